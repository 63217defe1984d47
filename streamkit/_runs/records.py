"""What a log knows of a run, in the form for users."""

from __future__ import annotations

from collections.abc import Mapping

from .codec import from_json, to_json
from .errors import RunCancelled, RunEnded, RunFailed, RunLost, RunNotFound, RunTimedOut
from .info import RunInfo
from .log import Record, Terms
from .reasons import decode_outcome

# JSON has it only as white space, which is not written here.
_BREAK = b"\n"

_ENDS: dict[str, type[RunEnded]] = {
    "cancelled": RunCancelled,
    "timed_out": RunTimedOut,
    "failed": RunFailed,
    "lost": RunLost,
}


def check_owner(run_id: str, record: Record, owner: str | None) -> None:
    """
    Check that a run belongs to the caller.

    :raises RunNotFound: if it has another owner

    """
    if owner is not None and owner != record.terms.owner:
        raise RunNotFound(run_id)


def data_of(terms: Terms) -> object:
    """Return the data with which a run was started."""
    return from_json(terms.data.partition(_BREAK)[0])


def noted(data: bytes, note: Mapping[str, str]) -> bytes:
    """Join the data with which a run was started and what its telemetry should find again."""
    return data + _BREAK + to_json(note)


def note_of(terms: Terms) -> dict[str, str]:
    """Return what telemetry noted when a run was started: nothing if there is no telemetry."""
    note = terms.data.partition(_BREAK)[2]
    return from_json(note) if note else {}


def info_of(run_id: str, record: Record) -> RunInfo:
    """Return what users are told of a run."""
    return RunInfo(
        id=run_id,
        owner=record.terms.owner,
        data=data_of(record.terms),
        epoch=record.epoch,
        first=record.first,
        last=record.last,
        outcome=None if record.outcome is None else decode_outcome(record.outcome),
        cancel_requested=record.cancel_requested,
        started_at=record.terms.started_at,
    )


def end_of(info: RunInfo) -> RunEnded | None:
    """Return what a reader raises at the end of a run, or ``None`` if it completed."""
    assert info.outcome is not None
    return None if info.outcome.kind == "completed" else _ENDS[info.outcome.kind](info)
