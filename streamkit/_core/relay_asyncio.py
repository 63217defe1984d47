"""
How a source is told on asyncio: by a request to cancel its task, which an anyio scope makes.

The way stays open while the source is suspended, and anyio asks in each turn of the event loop. So
it is closed once the source's task was asked: what takes its time to be cancelled, such as a task
with a clean-up of its own, is asked once.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import anyio

from .exceptions import StreamCancelled
from .relay import Relay
from .scopes import Scopes


class _DeliveredCancelled(StreamCancelled, asyncio.CancelledError):
    # Code that asyncio ships or that is written for it (task groups, Lock, Condition, wait_for)
    # unwinds correctly only for a CancelledError.
    pass


_DeliveredCancelled.__name__ = _DeliveredCancelled.__qualname__ = StreamCancelled.__qualname__
_DeliveredCancelled.__module__ = "streamkit"


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


class AsyncioRelay(Relay):
    """Tells a native ``Task.cancel()`` of the source task from the requests of scopes."""

    def __init__(self, scopes: Scopes, consumer: Any) -> None:
        super().__init__(scopes, consumer)
        self._consumer_requests = consumer.cancelling()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._count_requests = task.cancelling
        # asyncio.timeout(), TaskGroup and others in the source cancel its task, and take that back.
        # At the end of asyncio.run(), and only then as a rule, both its task and the consumer's
        # are cancelled in one tick: that tells the source, in whichever order it comes.
        self._native_tells = False
        #: The number of requests when the source last saw a native one, as its consumer did.
        self._native_seen_at = 0

    @staticmethod
    def is_native(exc: BaseException) -> bool:
        # What anyio itself goes by, to tell its cancellations from those of Task.cancel().
        message = exc.args[0] if exc.args else None
        return not (isinstance(message, str) and message.startswith("Cancelled via cancel scope "))

    def exception(self) -> StreamCancelled:
        signal = self._scopes.signal
        assert signal is not None
        return _DeliveredCancelled(signal.reason)

    def tell_if_native(self) -> bool:
        self._native_tells = True
        seen_at, self._native_seen_at = self._native_seen_at, 0
        if not seen_at or self._task.cancelling() < seen_at:
            return False
        self._scopes.told_natively = True
        self._task.uncancel()
        return True

    def put_off(self, exc: BaseException) -> BaseException | None:
        # asyncio folds requests of the same tick into one exception, under the message of the last
        # one. A scope does not ask after anybody else, so there is one of a scope at most.
        several = self._task.cancelling() - self._requests_before > 1
        native = self.is_native(exc)
        if not native or (several and anyio.current_effective_deadline() == -math.inf):
            self._task.uncancel()
        if not (native or several):
            return None
        if self._native_tells:
            self._scopes.told_natively = True
            self._task.uncancel()
            return None
        self._see_native()
        return asyncio.CancelledError(*exc.args) if native else asyncio.CancelledError()

    def _open_way(self) -> None:
        # The source itself may be who tells it: it is suspended later.
        if asyncio.current_task() is not self._task:
            self._scopes.uncover()
            self._ask_once()

    def _suspends(self, awaited: Any) -> Any:
        self._scopes.uncover()
        # After the attempt that anyio makes in the next iteration.
        self._task.get_loop().call_soon(self._ask_once)

    def _resumes(self) -> None:
        # Nobody asked it: it was behind a shield. A scope of its own that it is unwinding from can
        # only claim its exception while the way is closed.
        self._scopes.cover()

    def _ask_once(self) -> None:
        awaited = self._awaited
        asked = self._task.cancelling() > self._requests_before
        if asked and isinstance(awaited, asyncio.Future) and not awaited.done():
            self._scopes.cover()
            self._scopes.begin_grace()

    def _thrown(self, exc: BaseException) -> BaseException:
        self._awaited = None
        scopes, task = self._scopes, self._task
        if not isinstance(exc, asyncio.CancelledError):
            if scopes.armed:
                scopes.cover()
            return exc
        requests = task.cancelling() - self._requests_before
        native = requests > 0 and self.is_native(exc)
        if scopes.armed and (native or requests > 1) and self._native_tells:
            for _ in range(requests):
                task.uncancel()
            scopes.told_natively = True
            scopes.deliver()
            return self.exception()
        if scopes.armed and requests > 1:
            # A native Task.cancel(), by asyncio.timeout() for instance, came in the same tick, and
            # asyncio folds both into one exception. It goes first, under no tag but its own.
            task.uncancel()
            if scopes.claim(None):
                # Or it was asked again, at the end of its grace.
                for _ in range(requests - 1):
                    task.uncancel()
                return self.exception()
            self._see_native()
            return asyncio.CancelledError()
        if scopes.claim(_tag_of(exc)):
            # Clean-up is not being cancelled: asyncio.TaskGroup and asyncio.timeout() ask.
            task.uncancel()
            return self.exception()
        if native:
            self._see_native()
        return exc

    def _see_native(self) -> None:
        """Take note that a native request reached the source, if its consumer has got one, too."""
        enclosing, consumer = self._scopes.enclosing, cast("asyncio.Task[Any]", self._consumer)
        told_so = enclosing is not None and enclosing.told_natively
        if told_so or consumer.cancelling() > self._consumer_requests:
            self._native_seen_at = self._task.cancelling()


def _tag_of(exc: asyncio.CancelledError) -> str | None:
    """Return the reason given to the anyio scope that an exception is due to."""
    message = exc.args[0] if exc.args else None
    return message.rpartition("; reason: ")[2] if isinstance(message, str) else None
