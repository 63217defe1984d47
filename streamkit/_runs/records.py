"""What a log knows of a run, as users are told it."""

from __future__ import annotations

from .codec import from_json
from .errors import RunCancelled, RunEnded, RunFailed, RunLost, RunNotFound, RunTimedOut
from .info import RunInfo
from .log import Record
from .reasons import decode_outcome

_ENDS: dict[str, type[RunEnded]] = {
    "cancelled": RunCancelled,
    "timed_out": RunTimedOut,
    "failed": RunFailed,
    "lost": RunLost,
}


def check_owner(run_id: str, record: Record, owner: str | None) -> None:
    """
    See that a run is that of who asks.

    :raises RunNotFound: if it is another's

    """
    if owner is not None and owner != record.terms.owner:
        raise RunNotFound(run_id)


def info_of(run_id: str, record: Record) -> RunInfo:
    """Return what users are told of a run."""
    return RunInfo(
        id=run_id,
        owner=record.terms.owner,
        data=from_json(record.terms.data),
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
