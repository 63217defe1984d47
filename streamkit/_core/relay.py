"""
The trampoline between a source and the event loop. With ``backend``, ``timer`` and ``loop``, the
only module that tells the backends apart.

A source is not awaited directly. It is driven by a small generator-based coroutine that forwards
what the event loop sends and throws. When the loop delivers a cancellation that a :class:`Scopes`
claims as its own, the relay puts :exc:`StreamCancelled` in its place, so that the await in the
innermost frame raises it.

asyncio *throws* a ``CancelledError``, trio *sends* an ``outcome.Error`` that holds a ``Cancelled``.
Both carry the reason that was given to :meth:`anyio.CancelScope.cancel`: at the end of the message
on asyncio, as an attribute on trio. Nothing else tells one cancellation from another: that a scope
was cancelled does not mean that this exception is due to it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

import anyio

from .backend import Backend
from .exceptions import StreamCancelled
from .scopes import Scopes

T = TypeVar("T")


class _DeliveredCancelled(StreamCancelled, asyncio.CancelledError):
    # Code that asyncio ships or that is written for it (task groups, Lock, Condition, wait_for)
    # unwinds correctly only for a CancelledError.
    pass


_DeliveredCancelled.__name__ = _DeliveredCancelled.__qualname__ = StreamCancelled.__qualname__


def tag_of(exc: BaseException) -> str | None:
    """Return the reason that a cancellation of the backend carries."""
    if isinstance(exc, asyncio.CancelledError):
        message = exc.args[0] if exc.args else None
        return message.rpartition("; reason: ")[2] if isinstance(message, str) else None
    return getattr(exc, "reason", None)


def _is_from_scope(exc: BaseException) -> bool:
    # What anyio itself goes by, to tell its cancellations from those of Task.cancel().
    message = exc.args[0] if exc.args else None
    return isinstance(message, str) and message.startswith("Cancelled via cancel scope ")


def is_stray(exc: BaseException) -> bool:
    """
    Tell whether a cancellation is that of something the running task awaited, and not its own.

    On asyncio, whoever awaits a future or a task that somebody has cancelled gets that exception.
    """
    if not issubclass(asyncio.CancelledError, anyio.get_cancelled_exc_class()):
        return False
    task = asyncio.current_task()
    assert task is not None
    return isinstance(exc, asyncio.CancelledError) and not task.cancelling()


class Relay:
    """
    Drives the task of one source, and delivers its typed cancellation.

    This is the part that all backends share; :func:`make_relay` returns the right subclass.
    """

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        #: Whether the source is being stepped. Otherwise its task waits for the consumer, and what
        #: reaches it then is none of the source's business.
        self.in_source = False
        #: What the source has awaited last, while it is being stepped.
        self._awaited: Any = None
        #: How often somebody has asked for the task to be cancelled. trio does not count.
        self._count_requests: Callable[[], int] = int
        #: As often at the last suspension.
        self._requests_before = 0

    def exception(self) -> StreamCancelled:
        """Return a fresh exception to raise in the source: never the same in two places."""
        signal = self._scopes.signal
        assert signal is not None
        return StreamCancelled(signal.reason)

    def put_off(self, exc: BaseException) -> BaseException | None:
        """
        Take note that a cancellation reached the source task while it was not running the source.

        A cancel scope asks again, at the next await. Clean-up that looks at ``Task.cancelling()``,
        as asyncio's task group does, must not find a request that nobody has seen.

        :return: what comes only once and must not be lost, to be raised in the source

        """
        return None

    def arm(self) -> None:
        """Wake the source for its signal, at its present or next suspension point."""
        self._scopes.arm()

    def _let_through(self) -> None:
        """Open the way for the armed signal: the source is about to be suspended."""
        self._scopes.uncover()
        if anyio.current_effective_deadline() > -math.inf:
            # Behind a shield of the source, where it would only keep scopes further out from
            # claiming what is on its way to them.
            self._scopes.cover()

    def _thrown(self, exc: BaseException) -> BaseException:
        """Return what the source sees of an exception thrown by the event loop."""
        return exc

    def _sent(self, value: Any) -> Any:
        """Return what the source sees of a value sent by the event loop. asyncio sends none."""
        return value

    @coroutine
    def drive(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await what the source task does: all of it, so that no step costs anything."""
        value: Any = None
        exc: BaseException | None = None
        scopes, count_requests = self._scopes, self._count_requests
        try:
            while True:
                try:
                    yielded = work.send(value) if exc is None else work.throw(exc)
                except StopIteration as stop:
                    # Not through a variable: it may be an error that leads to this frame.
                    return cast("T", stop.value)
                value = exc = None
                self._requests_before = count_requests()
                if self.in_source:
                    self._awaited = yielded
                    if scopes.armed:
                        self._let_through()
                else:
                    # It may hold its result.
                    self._awaited = None
                try:
                    value = yield yielded
                except GeneratorExit:
                    # The event loop drops the task: no way back from here.
                    work.close()
                    raise
                except BaseException as thrown:
                    exc = thrown
                # Outside of the except block: the exception that replaces another one must not
                # have it as its context, where anyio would look for a cancellation of its own.
                if self.in_source:
                    if exc is not None:
                        exc = self._thrown(exc)
                    elif value is not None:
                        value = self._sent(value)
        finally:
            # This frame is part of the traceback of what it raises.
            value = exc = yielded = self._awaited = None


class _AsyncioRelay(Relay):
    def __init__(self, scopes: Scopes) -> None:
        super().__init__(scopes)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._count_requests = task.cancelling

    def exception(self) -> StreamCancelled:
        signal = self._scopes.signal
        assert signal is not None
        return _DeliveredCancelled(signal.reason)

    def put_off(self, exc: BaseException) -> BaseException | None:
        # asyncio folds requests of the same tick into one exception, under the message of the last
        # one. A scope does not ask after anybody else, so there is one of a scope at most.
        several = self._task.cancelling() - self._requests_before > 1
        is_native = not _is_from_scope(exc)
        if not is_native or (several and anyio.current_effective_deadline() == -math.inf):
            self._task.uncancel()
        if is_native:
            return asyncio.CancelledError(*exc.args)
        return asyncio.CancelledError() if several else None

    def arm(self) -> None:
        super().arm()
        self._ask_once()

    def _let_through(self) -> None:
        super()._let_through()
        # After the attempt that anyio makes in the next iteration.
        self._task.get_loop().call_soon(self._ask_once)

    def _ask_once(self) -> None:
        # Something that takes its time to be cancelled, such as a task with a clean-up of its own,
        # has been asked now. anyio would ask again in each iteration of the loop.
        awaited = self._awaited
        asked = self._task.cancelling() > self._requests_before
        if asked and isinstance(awaited, asyncio.Future) and not awaited.done():
            self._scopes.cover()

    def _thrown(self, exc: BaseException) -> BaseException:
        self._awaited = None
        if not isinstance(exc, asyncio.CancelledError):
            return exc
        requests = self._task.cancelling() - self._requests_before
        if requests > 1 and self._scopes.armed:
            # A native Task.cancel(), by asyncio.timeout() for instance, came in the same tick, and
            # asyncio folds both into one exception. It goes first, under no tag but its own.
            self._task.uncancel()
            self._scopes.claim(None)
            return asyncio.CancelledError()
        if self._scopes.claim(tag_of(exc)):
            # Clean-up is not being cancelled: asyncio.TaskGroup and asyncio.timeout() ask.
            self._task.uncancel()
            return self.exception()
        return exc


class _TrioRelay(Relay):
    def _sent(self, value: Any) -> Any:
        error = getattr(value, "error", None)
        if isinstance(error, anyio.get_cancelled_exc_class()) and self._scopes.claim(tag_of(error)):
            return type(value)(self.exception())
        return value


def make_relay(scopes: Scopes, backend: Backend) -> Relay:
    """Return a relay for the running backend. Must be called in the source task."""
    return _AsyncioRelay(scopes) if backend.is_asyncio else _TrioRelay(scopes)
