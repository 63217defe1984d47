"""
How a source is told on trio: its wait is aborted, with the exception that it should see.

Each wait on trio comes with a function that aborts it. For the source's waits, that is called
through the relay, or by it. It is given a function that raises the exception: a nursery at its end
keeps what that raises, but would ignore trio's own cancellation.

If the source has no child tasks, a scope does that: the way stays open until the source goes on. So
a sender that has an item for it meanwhile, in an anyio memory stream for instance, can see that it
is cancelled. But a scope would cancel the children, too. A task group whose child was cancelled
cancels itself: that cancellation would replace what the source is told, and the group would catch
it. Nor may children see the way closed again: ``trio.lowlevel.checkpoint_if_cancelled()``, on which
most of trio is built, checks, lets others run, and relies on what it saw. So if there are children,
the relay aborts only the source's own wait. They are cancelled when the source leaves their group.

For that, it reads undocumented attributes of trio, here and nowhere else: ``abort_func`` of what a
task yields, and ``_abort_func`` and ``_cancel_status`` of a task. They exist in trio 0.31 to 0.35.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

import anyio

from .exceptions import StreamCancelled
from .relay import Relay
from .scopes import Scopes

# How often in a row a source that has children, or may be unwinding from a scope of its own, can
# give way before it is told nevertheless.
_PATIENCE = 64


class TrioRelay(Relay):
    """Stands between the waits of a source and what aborts them."""

    def __init__(self, scopes: Scopes, consumer: object) -> None:
        super().__init__(scopes, consumer)
        trio: Any = sys.modules["trio"].lowlevel
        self._task = trio.current_task()
        self._reschedule = trio.reschedule
        #: The innermost scope that is not the source's own.
        self._outermost = self._task._cancel_status
        self._succeeded, self._failed = trio.Abort.SUCCEEDED, trio.Abort.FAILED
        # Replaces what the source yields.
        self._trap = _trap_class(trio)(self._abort)
        #: Whether the wait was aborted for the signal, and is being resumed.
        self._was_hit = False
        #: How often it has given way since its last wait.
        self._turns = 0
        #: Whether it finds the way open when it looks.
        self._may_look = False
        #: Whether a cancellation of its own is passing through it, or has done so.
        self._has_own = False

    def _open_way(self) -> None:
        if not self._has_children():
            self._scopes.uncover()
        elif self._task._abort_func is not None and self._is_exposed():
            # It waits, and has not been woken yet.
            awaited, self._awaited = self._awaited, None
            self._end_wait(awaited.abort_func)

    def _has_children(self) -> bool:
        return any(nursery.child_tasks for nursery in self._task.child_nurseries)

    def _is_exposed(self) -> bool:
        """Tell whether the source is neither in a shield of its own nor in a cancelled scope."""
        status = self._task._cancel_status
        while status is not self._outermost:
            if status._scope.shield or status._scope.cancel_called:
                return False
            status = status._parent
        return True

    def _suspends(self, awaited: Any) -> Any:
        scopes = self._scopes
        scopes.cover()
        if type(awaited) is not type(self._trap):
            # This cannot be aborted, but the source may look next: trio.lowlevel.checkpoint() does.
            self._turns += 1
            return None
        # If checkpoint() has found the way open, it waits in a cancelled scope.
        may_look, self._may_look, self._turns = self._may_look, False, 0
        if not (may_look or self._is_exposed()):
            return None
        if self._abort_for_signal(awaited.abort_func) is self._succeeded:
            self._was_hit = False
            scopes.deliver()
            return _error(self.exception())
        # A wait is aborted at most once.
        self._awaited = None
        return None

    def _resumes(self) -> None:
        # A scope of its own that it leaves with a cancellation catches that only while the way is
        # closed, and an open way would reach children.
        patience = _PATIENCE if self._has_own or self._has_children() else 0
        self._may_look = self._turns > patience
        if self._may_look:
            self._scopes.uncover()
        else:
            self._scopes.cover()

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> Any:
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            return self._failed
        if self._scopes.is_open and self._is_exposed():
            # trio would raise its own exception first, with all the frames that have led here.
            self._end_wait(awaited.abort_func)
            return self._failed
        return awaited.abort_func(raise_cancel)

    def _end_wait(self, abort: Callable[[Callable[[], NoReturn]], Any]) -> None:
        if self._abort_for_signal(abort) is self._succeeded:
            # With nothing: what the source is sent instead is an error.
            self._reschedule(self._task)

    def _abort_for_signal(self, abort: Callable[[Callable[[], NoReturn]], Any]) -> Any:
        def tell() -> NoReturn:
            # A thread of the source may call this long after the abort. Then the signal is
            # delivered when the thread ends with it.
            if self._scopes.armed and aborting:
                self._scopes.deliver()
            raise self.exception()

        aborting = True
        result = abort(tell)
        aborting = False
        self._was_hit = result is self._succeeded
        return result

    def _sent(self, value: Any) -> Any:
        scopes, error, was_hit = self._scopes, getattr(value, "error", None), self._was_hit
        if error is None and not (was_hit or scopes.armed):
            # Nearly always.
            return value
        self._was_hit = False
        if was_hit:
            scopes.deliver()
            return _error(self.exception())
        if isinstance(error, anyio.get_cancelled_exc_class()):
            self._has_own = True
            if scopes.delivered:
                scopes.claim(None)
        if scopes.armed:
            # The result of a thread is wrapped in a value.
            ended_with = getattr(getattr(value, "value", None), "error", None)
            if isinstance(ended_with, StreamCancelled):
                scopes.deliver()
            elif error is None:
                self._resumes()
            else:
                scopes.cover()
        return value


def abort_wait(task: Any, error: BaseException) -> None:
    """
    Let the wait of a task end with an error, whatever shields it.

    Nothing happens if the task is about to go on, has ended, or waits for what cannot be aborted.
    Just to reschedule it would be wrong: whatever it waits for would reschedule it again.
    """

    def tell() -> NoReturn:
        raise error

    if task._abort_func is not None:
        trio: Any = sys.modules["trio"].lowlevel
        if task._abort_func(tell) is trio.Abort.SUCCEEDED:
            trio.reschedule(task, _error(error))


@cache
def _trap_class(trio: Any) -> Any:
    """Return the class of what a waiting task yields, found by starting a wait."""
    waiting = trio.wait_task_rescheduled(None)
    trap: object = waiting.send(None)
    waiting.close()
    return type(trap)


def _error(exc: BaseException) -> Any:
    outcome: Any = sys.modules["outcome"]
    return outcome.Error(exc)
