"""What one run notes, to be looked at when it is over."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
import trio

from streamkit import CancelToken, Outcome, Stream, StreamCancelled

from .steps import Steps

if TYPE_CHECKING:
    from .cases import Case

#: Seconds that the sources have to clean up, in every chain.
GRACE = 5.0
#: The length of an ordinary clean-up: three waits.
WAITS, WAIT = 3, 0.1

BEAT = "beat"
FINAL = "final"

_inside: ContextVar[str] = ContextVar("inside", default="nothing")


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
        self.clock: Any = None
        #: The names of the faults that were injected.
        self.fired: list[str] = []

        self.token = CancelToken()
        #: Ends a stream inside the source, if there is one.
        self.inner_token = CancelToken()
        #: A scope of the source's own, if it holds one.
        self.own_scope: anyio.CancelScope | None = None
        self.frames: list[Frame] = []
        self.source_task: Any = None
        #: What the outermost generator has yielded.
        self.produced: list[int] = []
        #: Whether it came to its own end.
        self.completed = False
        #: The errors that were raised on purpose.
        self.raised: list[BaseException] = []

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

    def produce(self) -> int:
        """Return the next item, for the outermost generator to yield."""
        self.produced.append(len(self.produced))
        self.note(f"yields {self.produced[-1]}")
        return self.produced[-1]

    def frame(self, name: str = "source", **kind: Any) -> Frame:
        """Return the record of a generator, which is to run in its block."""
        frame = Frame(self, name, **kind)
        self.frames.append(frame)
        return frame

    def error(self, error: BaseException) -> BaseException:
        """Remember an error that is about to be raised on purpose."""
        self.raised.append(error)
        self.note(f"raises {text(error)}")
        return error

    def fired_any(self, *names: str) -> bool:
        """Tell whether one of these faults was injected."""
        return any(name in self.fired for name in names)


class Frame:
    """
    What happens in one generator: an async context manager, whose end is the clean-up.

    :param lasts: seconds of each of the waits of the clean-up
    :param shielded: whether it has a shield of its own
    :param fails: whether it raises in the end
    :param child: whether it is that of a task which the source has started: no grace is due then

    """

    def __init__(
        self,
        record: Record,
        name: str,
        *,
        lasts: float = WAIT,
        shielded: bool = False,
        fails: bool = False,
        child: bool = False,
    ) -> None:
        self._record = record
        self.name = name
        self.lasts = lasts
        self.child = child
        self.begun = self.ended = 0
        self.begun_at = self.over_at = 0.0
        self.was_interrupted_by: BaseException | None = None
        #: The first exception that came through, and how many times the source was told.
        self.saw: BaseException | None = None
        self.told: list[StreamCancelled] = []
        self._shielded = shielded
        self._fails = fails
        self._task: object = None
        self._token: Token[str] | None = None

    async def __aenter__(self) -> Frame:
        self._task = anyio.get_current_task().id
        if not self._record.source_task and not self.child:
            self._record.source_task = current_task()
        self._token = _inside.set(self.name)
        self._record.note(f"{self.name}: begins")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.sees(exc)
        self.begun += 1
        self.begun_at = anyio.current_time()
        self._record.note(f"{self.name}: clean-up begins, after {text(exc)}")
        try:
            with anyio.CancelScope(shield=self._shielded):
                for _ in range(WAITS):
                    await anyio.sleep(self.lasts)
        except BaseException as interruption:
            self.was_interrupted_by = interruption
            self._record.note(f"{self.name}: clean-up interrupted by {text(interruption)}")
            raise
        else:
            self.ended += 1
            self._record.note(f"{self.name}: clean-up ended")
        finally:
            self.over_at = anyio.current_time()
            self._look_around()
            del exc, traceback
        if self._fails:
            raise self._record.error(CleanUpError(self.name))

    @property
    def ends_by_itself(self) -> bool:
        """Whether its clean-up began without anybody having ended it."""
        ended = isinstance(self.saw, StreamCancelled | GeneratorExit)
        return not ended and not is_native(self.saw)

    def sees(self, exc: BaseException) -> None:
        """Remember an exception that was raised in the generator."""
        if self.saw is None:
            self.saw = exc
        if isinstance(exc, StreamCancelled) and exc not in self.told:
            self.told.append(exc)

    def _look_around(self) -> None:
        if anyio.get_current_task().id != self._task:
            self._record.problem("wrong-task", f"{self.name} is cleaned up in another task")
        assert self._token is not None
        try:
            _inside.reset(self._token)
        except ValueError:
            self._record.problem("wrong-context", f"{self.name} is cleaned up in another context")


def current_task() -> Any:
    """Return the running task, as the backend has it."""
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return asyncio.current_task()
