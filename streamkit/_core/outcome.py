"""How a stream ended: one typed value, written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

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
    #: What ``on_end`` raised. Only known to ``final``, for which a ``"completed"`` is ``"failed"``
    #: then.
    on_end_error: BaseException | None = None
    #: ``True`` if the source was still at it when its time to clean up had passed.
    grace_exceeded: bool = False
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
