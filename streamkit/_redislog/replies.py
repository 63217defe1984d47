"""The answers of the scripts, in the terms of the protocol."""

from __future__ import annotations

from typing import Any

from .._runs.log import Page, Record, Requests, Terms

_FENCED = Requests(fenced=True)
_NONE = Requests()


def requests_of(reply: list[Any]) -> Requests:
    """Return what a producer is told."""
    if reply[0] != b"ok":
        return _FENCED
    if reply[1] is None and not reply[2]:
        return _NONE
    return Requests(cancel=reply[1], unwatched_for=reply[2] / 1000)


def page_of(reply: Any) -> Page | None:
    """Return a page, or ``None`` if there is no such run."""
    if not reply:
        return None
    epoch, first, last, head, outcome, lapsed, *entries = reply
    status = None if head is None else int(head)
    return Page(entries, first, last, epoch.decode(), status, outcome, bool(lapsed))


def record_of(reply: list[bytes]) -> Record | None:
    """Return what is known about a run, or ``None`` if there is no such run."""
    if not reply:
        return None
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    owner, unwatched, head = (fields.get(name) for name in (b"owner", b"unwatched", b"head"))
    terms = Terms(
        owner=None if owner is None else owner.decode("utf-8", "surrogatepass"),
        data=fields[b"data"],
        keep=int(fields[b"keep"]) / 1000,
        unwatched=None if unwatched is None else float(unwatched),
        started_at=float(fields[b"started_at"]),
    )
    return Record(
        terms=terms,
        epoch=fields[b"epoch"].decode(),
        first=int(fields[b"first"]),
        last=int(fields[b"last"]),
        head=None if head is None else int(head),
        outcome=fields.get(b"outcome"),
        cancel_requested=b"cancel" in fields,
        lapsed=bool(fields[b"lapsed"]),
    )
