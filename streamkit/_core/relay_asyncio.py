"""
How a source is told on asyncio: by one request to cancel its task, which only the relay makes.

A scope would do that as well, but would cancel the tasks that the source has started, too. An anyio
task group whose child was cancelled cancels itself: that cancellation would replace what the source
is told, and the group would catch it. So the scopes do it only if the source is behind a shield of
its own, and has no such tasks: a thread checks for itself, and the shield may be lowered. What the
source awaits is cancelled only while it is pending: otherwise, a lock or an item that the source
has just been given would be lost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import anyio

from .exceptions import StreamCancelled
from .relay import Relay
from .scopes import TAG, Scopes

# How anyio recognizes its own requests.
_OF_ANYIO = "Cancelled via cancel scope "


class _DeliveredCancelled(StreamCancelled, asyncio.CancelledError):
    # Code that asyncio ships or that is written for it (task groups, Lock, Condition, wait_for)
    # unwinds correctly only for a CancelledError.

    def __init__(self, reason: object = None) -> None:
        super().__init__(reason)
        if isinstance(reason, str) and reason.startswith(_OF_ANYIO):
            # The text of another cancellation, by which anyio would take this one for its own.
            self.args = ()


_DeliveredCancelled.__name__ = _DeliveredCancelled.__qualname__ = StreamCancelled.__qualname__
_DeliveredCancelled.__module__ = "streamkit"


_NOT_NATIVE = (_OF_ANYIO, TAG)


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
        # Normally, only the end of asyncio.run() cancels both its task and the consumer's, in one
        # tick: that tells the source, in whichever order they come.
        self._native_tells = False
        #: The number of requests when the source last saw a native one, as its consumer did.
        self._native_seen_at = 0
        #: The same, whether or not its consumer did.
        self._unwinding_at = 0
        #: Whether this relay has requested the cancellation of the wait that goes on.
        self._has_asked = False

    @staticmethod
    def is_native(exc: BaseException) -> bool:
        # anyio recognizes its own requests by the first. The second marks ours.
        message = exc.args[0] if exc.args else None
        return not (isinstance(message, str) and message.startswith(_NOT_NATIVE))

    @staticmethod
    def is_stray(exc: BaseException) -> bool:
        # A task that awaits a cancelled future or task gets that exception. So does one in a
        # cancelled scope, without a request, from a thread that has checked for that.
        task = asyncio.current_task()
        assert task is not None
        if not isinstance(exc, asyncio.CancelledError) or task.cancelling():
            return False
        return anyio.current_effective_deadline() > -math.inf

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
        # asyncio folds requests of the same tick into one exception, with the message of the last
        # one. A scope does not add its request to another, so at most one is from a scope.
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
        # The source itself may have called this: it is suspended later.
        if asyncio.current_task() is not self._task:
            self._ask()

    def _suspends(self, awaited: Any) -> Any:
        self._task.get_loop().call_soon(self._ask)

    def _resumes(self) -> None:
        # It was not asked, because it was behind a shield. If it is unwinding from a scope of its
        # own, that can claim its exception only while the way is closed.
        self._forget_request()
        self._scopes.cover()

    def _forget_request(self) -> None:
        """Take back a request that is used up: what the source awaited has not passed it on."""
        if self._has_asked:
            self._has_asked = False
            self._task.uncancel()

    def _ask(self) -> None:
        """Request the cancellation of the source's suspended task, once for each wait."""
        scopes, task, awaited = self._scopes, self._task, self._awaited
        was_asked = task.cancelling() > self._requests_before
        if was_asked or not (scopes.armed and self.in_source):
            return
        if not self._as_source(scopes.reach_source):
            if not self._as_source(self._has_children):
                scopes.uncover()
        elif not isinstance(awaited, asyncio.Future):
            self._has_asked = task.cancel(scopes.tag)
        elif not awaited.done():
            self._has_asked = task.cancel(scopes.tag)
            if not awaited.done():
                # It may await a task with a clean-up of its own, for instance.
                scopes.begin_grace()

    def _has_children(self) -> bool:
        own = id(self._task)
        return any(info.parent_id == own for info in anyio.get_running_tasks())

    def _as_source(self, ask: Callable[[], bool]) -> bool:
        """Ask what only the running task can ask, as if the source's task were running."""
        loop, task = self._task.get_loop(), self._task
        running = asyncio.current_task(loop)
        if running is not None:
            asyncio._leave_task(loop, running)
        asyncio._enter_task(loop, task)
        try:
            return ask()
        finally:
            asyncio._leave_task(loop, task)
            if running is not None:
                asyncio._enter_task(loop, running)

    def _thrown(self, exc: BaseException) -> BaseException:
        self._awaited = None
        scopes, task = self._scopes, self._task
        if not isinstance(exc, asyncio.CancelledError):
            if scopes.armed:
                self._resumes()
            return exc
        requests = task.cancelling() - self._requests_before
        # If it is the only one, this is due to it: a task that is cancelled may raise another
        # exception than that which it was given, and asyncio.gather() makes one.
        is_ours, self._has_asked = self._has_asked and requests == 1, False
        native = requests > 0 and not is_ours and self.is_native(exc)
        if scopes.armed and (native or requests > 1) and self._native_tells:
            for _ in range(requests):
                task.uncancel()
            scopes.told_natively = True
            scopes.deliver()
            return self.exception()
        if scopes.armed and requests > 1:
            # A native Task.cancel(), by asyncio.timeout() for instance, came in the same tick, and
            # asyncio folds both into one exception. The native one goes first, without our tag.
            task.uncancel()
            if scopes.claim(None):
                # Or the other request came at the end of its grace.
                for _ in range(requests - 1):
                    task.uncancel()
                return self.exception()
            return asyncio.CancelledError()
        if not requests and scopes.armed and scopes.is_open:
            # A thread for which the source waits in a shield has checked for a cancellation.
            scopes.deliver()
            return self.exception()
        if scopes.claim(scopes.tag if is_ours else _tag_of(exc)):
            self._take_back()
            return self.exception()
        if native:
            self._see_native()
        return exc

    def _take_back(self) -> None:
        """Take the request back: clean-up is not cancelled, and asyncio.TaskGroup checks that."""
        task = self._task
        if self._unwinding_at and task.cancelling() > self._unwinding_at:
            # Not yet. From Python 3.13 on, an asyncio.timeout() that is being left takes what is
            # raised here for its own, if there is no request besides its own.
            self._count_requests = self._count_until_taken_back
        else:
            task.uncancel()

    def _count_until_taken_back(self) -> int:
        task = self._task
        if task.cancelling() <= self._unwinding_at:
            task.uncancel()
            self._count_requests = task.cancelling
        return task.cancelling()

    def _see_native(self) -> None:
        """Note that a native request reached the source, and whether its consumer got one, too."""
        self._unwinding_at = self._task.cancelling()
        enclosing, consumer = self._scopes.enclosing, cast("asyncio.Task[Any]", self._consumer)
        told_so = enclosing is not None and enclosing.told_natively
        if told_so or consumer.cancelling() > self._consumer_requests:
            self._native_seen_at = self._task.cancelling()


def _tag_of(exc: asyncio.CancelledError) -> str | None:
    """Return the tag of a request of ours, or the reason given to a scope of anyio."""
    message = exc.args[0] if exc.args else None
    return message.rpartition("; reason: ")[2] if isinstance(message, str) else None
