"""
The trampoline between a source and the event loop.

A source is not awaited directly. It is driven by a small generator-based coroutine that forwards
what the event loop sends and throws. When the loop delivers a cancellation that a :class:`Scopes`
claims as its own, the relay puts :exc:`StreamCancelled` in its place, so that the await in the
innermost frame raises it.

asyncio *throws* a ``CancelledError``, trio *sends* an ``outcome.Error`` that holds a ``Cancelled``.
Both carry the reason that was given to :meth:`anyio.CancelScope.cancel`: at the end of the message
on asyncio, as an attribute on trio. Nothing else tells one cancellation from another: that a scope
was cancelled does not mean that this exception is due to it.

What differs between the backends is in ``relay_asyncio`` and ``relay_trio``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

from .exceptions import StreamCancelled
from .scopes import Scopes

T = TypeVar("T")


class Relay(ABC):
    """Drives the task of one source, and delivers what it is told. Made in the source task."""

    def __init__(self, scopes: Scopes, consumer: object) -> None:
        self._scopes = scopes
        #: The task that opened the stream.
        self._consumer = consumer
        #: Whether the source is being stepped. Otherwise its task waits for the consumer, and what
        #: reaches the task then does not concern the source.
        self.in_source = False
        #: What the source awaited last, while it is being stepped.
        self._awaited: Any = None
        #: How often somebody has asked for the task to be cancelled. trio does not count.
        self._count_requests: Callable[[], int] = int
        #: The same count at the last suspension.
        self._requests_before = 0
        #: Replaces each object of its class that the source yields to the event loop.
        self._trap: Any = None

    @staticmethod
    def is_native(exc: BaseException) -> bool:
        """Tell whether a cancellation of the backend does not come from a cancel scope."""
        return False

    @staticmethod
    def is_stray(exc: BaseException) -> bool:
        """
        Tell whether a cancellation is not the running task's own, but of something that it awaited.
        """
        return False

    def exception(self) -> StreamCancelled:
        """Return a new exception to raise in the source: never the same one in two places."""
        signal = self._scopes.signal
        assert signal is not None
        return StreamCancelled(signal.reason)

    def tell(self) -> None:
        """Wake the source for its signal, at its current or next suspension point."""
        self._scopes.arm()
        if self.in_source:
            self._open_way()

    def tell_if_native(self) -> bool:
        """
        Let a native cancellation of the source task count as being told: its consumer got one, too.

        :return: whether the source has seen it already, so that nothing more is raised in it

        """
        return False

    def put_off(self, exc: BaseException) -> BaseException | None:
        """
        Note that a cancellation reached the source task while it was not running the source.

        A cancel scope asks again, at the next await. Clean-up that looks at ``Task.cancelling()``,
        as asyncio's task group does, must not find a request that nobody has seen.

        :return: a cancellation that comes only once and must not be lost, to be raised in the
            source

        """
        return None

    @abstractmethod
    def _open_way(self) -> None:
        """Let the armed signal through to the source, which is suspended."""

    @abstractmethod
    def _suspends(self, awaited: Any) -> Any:
        """
        Let the armed signal through to the source, which is about to be suspended.

        :return: what the source is sent instead of being suspended, or ``None``

        """

    @abstractmethod
    def _resumes(self) -> None:
        """Let the source go on without having been told."""

    def _thrown(self, exc: BaseException) -> BaseException:
        """Return what the source sees of an exception thrown by the event loop."""
        return exc

    def _sent(self, value: Any) -> Any:
        """Return what the source sees of a value sent by the event loop. asyncio never does."""
        return value

    @coroutine
    def drive(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await all that the source task does as a whole, so that single steps cost nothing."""
        value: Any = None
        exc: BaseException | None = None
        scopes = self._scopes
        trap: object = self._trap
        trap_class = type(trap)
        try:
            while True:
                try:
                    yielded = work.send(value) if exc is None else work.throw(exc)
                except StopIteration as stop:
                    # Not through a variable: the value may be an error that leads to this frame.
                    return cast("T", stop.value)
                value = exc = None
                self._requests_before = self._count_requests()
                if self.in_source:
                    self._awaited = yielded
                    if scopes.armed:
                        value = self._suspends(yielded)
                        if value is not None:
                            continue
                    if trap is not None and type(yielded) is trap_class:
                        yielded = trap
                else:
                    # An awaited future may hold its result.
                    self._awaited = None
                try:
                    value = yield yielded
                except GeneratorExit:
                    # The event loop drops the task: there is no way back from here.
                    work.close()
                    raise
                except BaseException as thrown:
                    exc = thrown
                if scopes.is_timed:
                    # In a shield or in a thread, the source may go on long after its grace.
                    scopes.look_at(work)
                # Outside of the except block: the exception that replaces another one must not
                # have it as its context, where anyio would look for a cancellation of its own.
                if self.in_source:
                    if exc is not None:
                        exc = self._thrown(exc)
                    elif value is not None:
                        value = self._sent(value)
                    elif scopes.armed:
                        self._resumes()
        finally:
            # This frame is part of the traceback of what it raises.
            value = exc = yielded = trap = self._awaited = self._trap = None
