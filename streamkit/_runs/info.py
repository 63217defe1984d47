"""What is known of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .cursor import Cursor

RunOutcomeKind: TypeAlias = Literal["completed", "cancelled", "timed_out", "failed", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended, in a form for every process."""

    #: As in :class:`~streamkit.Outcome`. ``"lost"``: the process that the run was in has died.
    kind: RunOutcomeKind
    #: Why it was cancelled: text, or one of streamkit's own reasons. For any other object, the name
    #: of its class.
    reason: object = None
    #: The name of the class of what the source raised.
    error: str | None = None
    #: ``True`` if the source was still busy when its time to clean up was over.
    grace_exceeded: bool = False
    #: In seconds since 1970, by the clock of the machine that ended it.
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What is known of a run."""

    id: str
    #: Who may read and cancel it, or ``None`` for anyone who knows the id.
    owner: str | None
    #: What was given to ``start(data=...)``.
    data: object
    #: Distinguishes this run from others of the same id: a random name.
    epoch: str
    #: The position of the first entry that is kept, or of the next one if there is none.
    first: int
    #: The position of the last entry, or 0.
    last: int
    #: How it ended, or ``None`` while it goes on.
    outcome: RunOutcome | None
    #: Whether it was asked to stop.
    cancel_requested: bool
    #: In seconds since 1970, by the clock of the machine on which it was started.
    started_at: float

    @property
    def state(self) -> Literal["running", "ended"]:
        """Whether the end of the run can be read."""
        return "running" if self.outcome is None else "ended"

    @property
    def ended_at(self) -> float | None:
        """When it ended, in seconds since 1970, or ``None`` while it goes on."""
        return None if self.outcome is None else self.outcome.ended_at

    @property
    def end_cursor(self) -> str | None:
        """The cursor of the end, past that of the last entry, or ``None`` while the run goes on."""
        return None if self.outcome is None else str(Cursor(self.epoch, self.last, is_end=True))
