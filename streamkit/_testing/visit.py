"""
One visit: the source is consumed, or the function called, and interrupted at its points.

Each kind of interruption can happen to a consumer, or is something that a consumer can do. A
consumer leaves of its own accord after it has received an item. If it waits for one, it gets a
beat.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from .._combinators.timeout import StreamTimeout, TimedOut
from .._core.control import Control
from .._core.exceptions import StreamCancelled, is_backend_cancellation, leaves, without
from .._core.outcome import Outcome
from .._core.stage import Stage
from .._core.watching import watcher
from .eye import Eye
from .function import has_cancellation, watched
from .loops import in_own_task, right_after_this_step, running_task, start
from .observed import Watch
from .outside import Outside
from .points import Point
from .run import ConsumerError, Kind
from .subject import Subject

#: The reason with which a source is told to stop.
REASON = "interrupted"
_NUDGE = object()


class Visit(ABC):
    """
    One visit to a subject.

    :param subject: what is interrupted
    :param strikes: where it is interrupted, in this order, and how
    :param steps: how often it may wait after it was told
    :param patience: real seconds after which it may not wait again
    :param outside: returns what a wait is for, if that is outside of the event loop
    :param own: where it is cancelled without an interruption

    """

    def __init__(
        self,
        subject: Subject,
        strikes: tuple[tuple[Point, Kind], ...],
        steps: int,
        patience: float,
        outside: Outside,
        own: frozenset[Point],
    ) -> None:
        self.subject: Subject = subject
        self.kinds: list[Kind] = [kind for _, kind in strikes]
        points = tuple(point for point, _ in strikes)
        soon = right_after_this_step
        self.eye: Eye = Eye(points, self._strike, soon, steps, patience, outside, own)
        self.items: list[Any] = []
        self.outcome: Outcome | None = None
        #: What was raised to the consumer, or to the caller of the function.
        self.error: BaseException | None = None
        #: What ``aclose()`` raised in another task.
        self.closing_error: BaseException | None = None
        self.result: Any = None
        #: Whether the subject has let out what it was told.
        self.let_out: bool = False
        self._scope = anyio.CancelScope()
        #: The task of the consumer.
        self.task: Any = None

    async def go(self, wait: Callable[[anyio.Event], Awaitable[None]]) -> None:
        """
        Make the visit. Whatever the subject raises is kept.

        :param wait: waits for an event, for as long as that is reasonable
        """
        try:
            await in_own_task(self._go, wait)
        except Exception as exc:
            if self.eye.never_begins:
                raise
            # Raised because the subject has left its task in a bad state, such as with broken
            # scopes.
            self.error = exc if self.error is None else self.error

    @abstractmethod
    async def _go(self) -> None:
        """Make the visit, in a task of its own on asyncio. Must not raise."""

    @property
    @abstractmethod
    def made_before(self) -> int:
        """How many items it had made when it was told."""

    def unexpected(self) -> BaseException | None:
        """Return what was raised, except for what the interruption itself raises."""
        found = None if self.error is None else without(self.error, self._is_expected)
        return self.closing_error if found is None else found

    def _is_expected(self, exc: BaseException) -> bool:
        if not self.eye.asked_at:
            return False
        expected: tuple[type[BaseException], ...] = (StreamCancelled, StreamTimeout, ConsumerError)
        return isinstance(exc, expected) or is_backend_cancellation(exc)

    @property
    def has_lost_error(self) -> bool:
        """Whether the error of the consumer did not get out of its block."""
        if "error" not in self.kinds[: len(self.eye.asked_at)]:
            return False
        raised = () if self.error is None else leaves(self.error)
        return self._has_raised and not any(isinstance(exc, ConsumerError) for exc in raised)

    _has_raised = False

    def _strike(self, number: int) -> None:
        self._interrupt(self.kinds[number])

    def _interrupt(self, kind: Kind) -> None:
        if kind == "native":
            self.task.cancel()
        else:
            self._scope.cancel()


class StreamVisit(Visit):
    """A visit to a source or to a stream: all its items are taken."""

    _has_left = False
    _closes = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._watch = Watch(self.eye)
        self._closed = anyio.Event()
        self._order: Kind | None = None
        self._knob = _Knob()
        self._stream = self.subject.stream(self._knob)

    async def go(self, wait: Callable[[anyio.Event], Awaitable[None]]) -> None:
        await super().go(wait)
        if self._closes:
            await wait(self._closed)

    async def _go(self) -> None:
        stream, self.task = self._stream, running_task()
        token = watcher.set(self._watch)
        try:
            with self._scope:
                async with stream:
                    await self._take_all()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.error = exc
        finally:
            watcher.reset(token)
        self.outcome = stream.outcome if stream.ended else None
        self.let_out = self._watch.first is not None and self._watch.first.let_out

    async def _take_all(self) -> None:
        try:
            async for item in self._stream:
                if item is not _NUDGE:
                    self.items.append(item)
                if self._order == "leave":
                    return
                if self._order == "error":
                    self._has_raised = True
                    raise ConsumerError
        except anyio.ClosedResourceError:
            if not self._closes:
                raise

    @property
    def made_before(self) -> int:
        first = self._watch.first
        made = None if first is None else first.made_before
        return len(self.items) if made is None else made

    def _interrupt(self, kind: Kind) -> None:
        control = self._knob.control
        if kind == "stop":
            control.cancel(REASON)
        elif kind == "timeout":
            limit = TimedOut("idle", 0.0)
            control.cancel(limit, kind="timed_out", error=StreamTimeout)
        elif kind == "leave" or kind == "error":
            self._order = kind
            control.beat(_NUDGE)
        elif kind == "close":
            self._closes = True
            start(self._close)
        else:
            super()._interrupt(kind)

    async def _close(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException as exc:
            self.closing_error = exc
        self._closed.set()


class _Knob(Stage[Any, Any]):
    """The outermost stage, through which the stream is told."""

    control: Control

    def on_open(self, control: Control) -> None:
        self.control = control


class FunctionVisit(Visit):
    """A call of an async function."""

    async def _go(self) -> None:
        assert self.subject.work is not None
        self.task = running_task()
        token = watcher.set(Watch(self.eye, is_inside=True))
        try:
            with self._scope:
                await self._call()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.error = exc
        finally:
            watcher.reset(token)

    async def _call(self) -> None:
        assert self.subject.work is not None
        try:
            self.result = await watched(self.subject.work, self.eye)
        except BaseException as exc:
            self.let_out = has_cancellation(exc)
            raise

    @property
    def made_before(self) -> int:
        return 0


def visit_to(
    subject: Subject,
    strikes: tuple[tuple[Point, Kind], ...],
    steps: int,
    patience: float,
    outside: Outside,
    own: frozenset[Point],
) -> Visit:
    """Return a visit to what ``make`` gave."""
    kind = StreamVisit if subject.work is None else FunctionVisit
    return kind(subject, strikes, steps, patience, outside, own)
