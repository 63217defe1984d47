"""How a stream ended: one typed value, written once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from .metadata import Head

OutcomeKind: TypeAlias = Literal["completed", "cancelled", "timed_out", "failed", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    How a stream ended and what passed through it. The first terminal event wins.

    All times are in seconds on the clock of :func:`anyio.current_time`.
    """

    #: ``"completed"``: the source ran to its end. ``"cancelled"``: a signal reached it, or it
    #: raised :exc:`StreamCancelled` itself. ``"timed_out"``: a limit of time was reached.
    #: ``"failed"``: the source or a stage raised. ``"closed"``: the consumer left early, or was
    #: itself cancelled.
    kind: OutcomeKind
    #: The reason of the cancellation, if there was one.
    reason: object = None
    #: What the source or a stage raised, if it was more than the cancellation.
    error: BaseException | None = None
    #: What was raised while the source was closed. It surfaces from ``aclose()``, or where the
    #: block is left.
    cleanup_error: BaseException | None = None
    #: What ``on_end`` raised. Only known to what comes after it: the ``on_end`` of outer stages,
    #: and ``final``. For them, a ``"completed"`` is then ``"failed"``.
    on_end_error: BaseException | None = None
    #: ``True`` if the source was still busy when its time to clean up was over.
    grace_exceeded: bool = False
    #: Where it was at that moment, as ``"file:line"``: the innermost frame that is not of asyncio,
    #: Trio or anyio. ``None`` if its time had not passed, or if there was no frame to be seen.
    stuck_at: str | None = None
    #: The :class:`Head` that the source gave before its first item, which says how it went.
    #: ``None`` if there was none, or if the status had been decided before it came.
    head: Head | None = None
    #: Items handed to the consumer, without beats and without the items that ``final`` adds.
    items: int = 0
    #: Beats received by the consumer.
    beats: int = 0
    #: When the stream was entered.
    started_at: float
    #: When the first item was there, or ``None`` if there was none.
    first_item_at: float | None = None
    #: When the source was closed.
    ended_at: float


def told_of_failure(outcome: Outcome, error: BaseException) -> Outcome:
    """Return the outcome as it is told after ``on_end`` has failed: not a success."""
    kind = "failed" if outcome.kind == "completed" else outcome.kind
    return replace(outcome, kind=kind, on_end_error=error)
