"""
How a source is told on trio: its wait is aborted, with the exception that it should see.

Each wait of trio comes with a function that aborts it. The one of the source's waits is called
through the relay, or by it. That function is given what it may raise: a nursery at its end raises
it, and would take trio's own cancellation for nothing.

Where the source has no child tasks, a scope does that: the way is open until the source goes on, so
that whoever has an item for it meanwhile, in an anyio memory stream for instance, can see that it
is cancelled. But a scope would cancel the children, too. A group cancels itself when a child was,
and that would take the place of what the source is told, and be caught by the group. Nor may they
see a way that is closed again: ``trio.lowlevel.checkpoint_if_cancelled()``, which most of trio is
built on, looks, lets others run, and relies on what it saw. So where there are children, the relay
aborts the source's wait alone. They are cancelled when the source leaves their group.

For that, it reads what trio does not document, here and nowhere else: ``abort_func`` of what a task
yields, and ``_abort_func`` and ``_cancel_status`` of a task. Seen from trio 0.31 to 0.35.
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

# This often in a row, a source that has children, or may be unwinding from a scope of its own, can
# give way before it is told all the same.
_PATIENCE = 64


class TrioRelay(Relay):
    """Stands between the waits of a source and what aborts them."""

    def __init__(self, scopes: Scopes, consumer: object) -> None:
        super().__init__(scopes, consumer)
        trio: Any = sys.modules["trio"].lowlevel
        self._task = trio.current_task()
        self._reschedule = trio.reschedule
        #: The innermost scope around what the source has of its own.
        self._outermost = self._task._cancel_status
        self._succeeded, self._failed = trio.Abort.SUCCEEDED, trio.Abort.FAILED
        # It takes the place of what the source yields.
        self._trap = _trap_class(trio)(self._abort)
        #: The wait was aborted for the signal, and is being resumed.
        self._was_hit = False
        #: How often it has given way since its last wait.
        self._turns = 0
        #: It finds the way open when it looks.
        self._may_look = False
        #: A cancellation of its own is, or was, on its way through it.
        self._has_own = False

    def _open_way(self) -> None:
        if not self._has_children():
            self._scopes.uncover()
        elif self._task._abort_func is not None and self._is_exposed():
            # It waits, and was not woken yet.
            awaited, self._awaited = self._awaited, None
            if self._abort_for_signal(awaited.abort_func) is self._succeeded:
                self._reschedule(self._task, _error(self.exception()))

    def _has_children(self) -> bool:
        return any(nursery.child_tasks for nursery in self._task.child_nurseries)

    def _is_exposed(self) -> bool:
        """Tell whether the source is in no shield of its own, and in no scope that is cancelled."""
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
            # It cannot be aborted, but may look next: trio.lowlevel.checkpoint() does.
            self._turns += 1
            return None
        # When checkpoint() has found the way open, it waits in a scope that is cancelled.
        may_look, self._may_look, self._turns = self._may_look, False, 0
        if not (may_look or self._is_exposed()):
            return None
        if self._abort_for_signal(awaited.abort_func) is self._succeeded:
            self._was_hit = False
            scopes.deliver()
            return _error(self.exception())
        # It is aborted once at most.
        self._awaited = None
        return None

    def _resumes(self) -> None:
        # A scope of its own that it leaves with a cancellation catches that only on a closed way,
        # and children would be hit by an open one.
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
            return self._abort_for_signal(awaited.abort_func)
        return awaited.abort_func(raise_cancel)

    def _abort_for_signal(self, abort: Callable[[Callable[[], NoReturn]], Any]) -> Any:
        def tell() -> NoReturn:
            # From a thread of the source's, which may ask long after, and not from here: the signal
            # is delivered when the thread ends with it.
            if self._scopes.armed and aborting:
                self._scopes.deliver()
            raise self.exception()

        aborting = True
        result = abort(tell)
        aborting = False
        self._was_hit = result is self._succeeded
        return result

    def _sent(self, value: Any) -> Any:
        scopes, error = self._scopes, getattr(value, "error", None)
        was_hit, self._was_hit = self._was_hit, False
        if was_hit:
            scopes.deliver()
            return _error(self.exception())
        if isinstance(error, anyio.get_cancelled_exc_class()):
            self._has_own = True
            if scopes.delivered:
                scopes.claim(None)
        if scopes.armed:
            # What a thread has ended with is in a value.
            ended_with = getattr(getattr(value, "value", None), "error", None)
            if isinstance(ended_with, StreamCancelled):
                scopes.deliver()
            elif error is None:
                self._resumes()
            else:
                scopes.cover()
        return value


@cache
def _trap_class(trio: Any) -> Any:
    """Return the class of what a waiting task yields, found by a wait."""
    waiting = trio.wait_task_rescheduled(None)
    trap: object = waiting.send(None)
    waiting.close()
    return type(trap)


def _error(exc: BaseException) -> Any:
    outcome: Any = sys.modules["outcome"]
    return outcome.Error(exc)
