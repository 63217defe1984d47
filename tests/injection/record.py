"""What one run notes, to be looked at when it is over."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import anyio
import trio

from streamkit import CancelToken, Outcome, Stream, StreamCancelled

from .steps import Steps

if TYPE_CHECKING:
    from .cases import Case
    from .frame import Frame

#: Seconds that the sources have to clean up, in every chain.
GRACE = 5.0

#: What the inner token says.
INNER = "the inner token"
#: What the token says that waits for a yield.
SOFT = "the token, at a yield"
BEAT = "beat"
FINAL = "final"


class SourceError(Exception):
    """Raised by a source between its items."""


class CleanUpError(Exception):
    """Raised by a source in its clean-up."""


class BodyError(Exception):
    """Raised by a consumer in its block."""


def text(exc: BaseException | None) -> str:
    """Return a short text for an exception: that of a cancellation would tell of all tasks."""
    if isinstance(exc, BaseExceptionGroup):
        return f"{type(exc).__name__}({', '.join(map(text, exc.exceptions))})"
    if is_native(exc):
        return type(exc).__qualname__
    return repr(exc)


def is_native(exc: BaseException | None) -> bool:
    """Tell whether an exception is the backend's own cancellation."""
    native = isinstance(exc, asyncio.CancelledError | trio.Cancelled)
    return native and not isinstance(exc, StreamCancelled)


class Record:
    """
    Everything that happened in a run.

    :param case: which run it is
    :param steps: counts them

    """

    def __init__(self, case: Case, steps: Steps) -> None:
        self.case = case
        self.backend, self.source, self.chain = case.backend, case.source, case.chain
        self.steps = steps
        #: What happened, with the number of the step and the time: for whoever reads a replay.
        self.notes: list[tuple[int, float, str]] = []
        #: What is wrong, as ``(check, details)``, where it is seen on the spot.
        self.problems: list[tuple[str, str]] = []
        #: The generators that were left to the interpreter.
        self.abandoned: list[str] = []
        self.clock: Any = None
        #: The names of the faults that were injected.
        self.fired: list[str] = []

        self.token = CancelToken()
        #: How much of it there was when the source was asked to stop at a yield.
        self.produced_when_asked: int | None = None
        #: When the grace was ended by hand.
        self.grace_ended_at = math.inf
        #: Ends a stream inside the source, if there is one.
        self.inner_token = CancelToken()
        #: A scope of the source's own, if it holds one.
        self.own_scope: anyio.CancelScope | None = None
        self.frames: list[Frame] = []
        self.source_task: Any = None
        #: What the outermost generator has yielded, or several that are merged.
        self.produced: list[int] = []
        #: Which of them has yielded each item.
        self.producers: list[str] = []
        #: Whether it came to its own end.
        self.completed = False
        #: The errors that were raised on purpose, and how many items there were before.
        self.raised: list[BaseException] = []
        self.produced_before_error = 0

        self.stream: Stream[Any] | None = None
        self.consumer_task: Any = None
        self.block_scope: anyio.CancelScope
        self.ask_scope: anyio.CancelScope | None = None
        self.body_scope: anyio.CancelScope | None = None
        #: What the consumer is to do at its next turn.
        self.order: str | None = None
        self.close_requested: anyio.Event
        self.closer_task: Any = None
        self.received: list[Any] = []
        #: How many of its asks have begun in a cancelled scope, and have gone well.
        self.asked_in_vain = 0
        self.final_items = 0
        self.beats = 0
        #: Whether it was told of the end, and by which exceptions, if so.
        self.saw_end = False
        self.asked_errors: list[BaseException] = []
        #: Whether it was cancelled, and stays in its block in a shield.
        self.stays = False
        #: Whether it went before it was told of the end.
        self.left = False
        self.entered = False
        self.block_over = False
        #: What left the block, and what another task's ``aclose()`` raised.
        self.block_error: BaseException | None = None
        self.closer_error: BaseException | None = None
        self.cancelling = 0
        self.outcome: Outcome | None = None
        self.outcomes_told: list[Outcome] = []

    def note(self, text: str) -> None:
        """Remember that something happened."""
        self.notes.append((self.steps.number, anyio.current_time(), text))

    def problem(self, check: str, details: str) -> None:
        """Remember that something is wrong."""
        self.problems.append((check, details))

    @property
    def is_merged(self) -> bool:
        """Whether the source is made of several."""
        return self.source.startswith("merged")

    def produce(self, producer: str = "source") -> int:
        """Return the next item, for the outermost generator to yield, or for one of several."""
        self.produced.append(len(self.produced))
        self.producers.append(producer)
        self.note(f"yields {self.produced[-1]}")
        return self.produced[-1]

    def error(self, error: BaseException) -> BaseException:
        """Remember an error that is about to be raised on purpose."""
        if not self.raised:
            self.produced_before_error = len(self.produced)
        self.raised.append(error)
        self.note(f"raises {text(error)}")
        return error

    def fired_any(self, *names: str) -> bool:
        """Tell whether one of these faults was injected."""
        return any(name in self.fired for name in names)


def current_task() -> Any:
    """Return the running task, as the backend has it."""
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return asyncio.current_task()
