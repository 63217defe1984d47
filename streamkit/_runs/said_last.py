"""How a run has ended, as the end of a stream, and the frames of a profile for it."""

from __future__ import annotations

import time

import anyio

from .._core.outcome import Outcome
from .._sse.events import Frame
from .._sse.profile import Profile
from .errors import RunEnded, RunLost
from .info import RunInfo


def outcome_of(info: RunInfo, error: RunEnded | None) -> Outcome:
    """Return how a run has ended as the outcome of a stream."""
    ended = info.outcome
    assert ended is not None
    offset = anyio.current_time() - time.time()
    is_failed = ended.kind in ("failed", "lost")
    return Outcome(
        kind="failed" if ended.kind == "lost" else ended.kind,
        reason=ended.reason,
        error=error if is_failed else None,
        grace_exceeded=ended.grace_exceeded,
        items=info.last,
        started_at=info.started_at + offset,
        ended_at=ended.ended_at + offset,
    )


def said_last(profile: Profile, outcome: Outcome) -> list[Frame] | None:
    """Return the frames of a profile for the end of a run."""
    if isinstance(outcome.error, RunLost):
        return profile.lost()
    return profile.final(outcome)
