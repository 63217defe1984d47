"""What a source is told when it should stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .exceptions import StreamCancelled
from .outcome import OutcomeKind


@dataclass(frozen=True, slots=True)
class Left:
    """
    The reason of a source whose consumer has gone: nobody takes its items now.

    The consumer has left the block, closed the stream, or was cancelled itself; or a stage has
    failed.
    """

    def __str__(self) -> str:
        return "the consumer has left"


@dataclass(slots=True)
class Signal:
    """A typed cancellation: what the source is told, and how long it may take."""

    reason: object
    grace: float
    kind: OutcomeKind = "cancelled"
    #: Makes the exception that the consumer receives, from the reason, if the source does not
    #: handle it. Made late: a raised exception holds frames, and contexts of finished tasks may
    #: hold this.
    error: Callable[[Any], BaseException] = StreamCancelled

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for an answer: at a ``yield``, the source is simply closed."""
        return self.kind == "closed"


@lru_cache(maxsize=64)
def left(grace: float) -> Signal:
    """Return the signal for a source whose consumer has gone. Nearly always it is the same one."""
    return Signal(Left(), grace, "closed")
