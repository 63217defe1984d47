"""
How a source is told on trio: by opening the way for a moment, in which no other task runs.

``trio.lowlevel.checkpoint_if_cancelled()``, which most of trio is built on, looks whether its task
is cancelled, lets others run, and relies on it that it still is. So the way is open only within one
synchronous stretch, and closed while any task can look: what is blocked then is aborted then, and
nobody else learns of it.

Each wait of trio comes with a function that aborts it. The one of the source's waits is called
through the relay, which has the exception that the source is to see for those who raise it
themselves: a nursery at its end does, and would take trio's own for nothing. What a task yields to
trio has that function as ``abort_func``, which trio does not document: seen from trio 0.31 to 0.35.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import anyio

from .exceptions import StreamCancelled
from .relay import Relay
from .scopes import Scopes

# So often a source that may be unwinding from a scope of its own can give way in a row, until it is
# told all the same.
_PATIENCE = 64


class TrioRelay(Relay):
    """Stands between the waits of a source and what aborts them."""

    def __init__(self, scopes: Scopes, consumer: object) -> None:
        super().__init__(scopes, consumer)
        trio: Any = sys.modules["trio"].lowlevel
        self._task = trio.current_task()
        self._succeeded, self._failed = trio.Abort.SUCCEEDED, trio.Abort.FAILED
        # What a wait yields, made by a wait: it takes the place of what the source yields.
        waiting = trio.wait_task_rescheduled(self._abort)
        self._trap = waiting.send(None)
        waiting.close()
        #: The wait was aborted for the signal, and is being resumed.
        self._was_hit = False
        #: How often it has given way since its last wait.
        self._turns = 0
        #: It finds the way open when it looks.
        self._may_look = False
        #: A cancellation of its own is, or was, on its way through it.
        self._has_own = False

    def _open_way(self) -> None:
        self._scopes.uncover()
        # Where no other task can look, it stays open until the source is resumed: who has an item
        # for it, in an anyio memory stream for instance, is to see that it is cancelled.
        if not self._was_hit or any(nursery.child_tasks for nursery in self._task.child_nurseries):
            self._scopes.cover()

    def _suspends(self, awaited: Any) -> Any:
        scopes = self._scopes
        scopes.cover()
        if type(awaited) is not type(self._trap):
            # It cannot be aborted, but may look next: trio.lowlevel.checkpoint() does.
            self._turns += 1
            return None
        may_look, self._may_look, self._turns = self._may_look, False, 0
        if anyio.current_effective_deadline() == -math.inf:
            # A scope of its own, if that is cancelled, is to catch what it has asked for. But here
            # it may be the one in which checkpoint() waits when it has found the way open.
            if not may_look:
                return None
        elif not self._is_visible():
            return None
        if self._abort_for_signal(awaited.abort_func) is self._succeeded:
            self._was_hit = False
            scopes.deliver()
            return _error(self.exception())
        # It is aborted once at most.
        self._awaited = None
        return None

    def _is_visible(self) -> bool:
        """Tell whether the running source is behind no shield of its own."""
        self._scopes.uncover()
        try:
            return anyio.current_effective_deadline() == -math.inf
        finally:
            self._scopes.cover()

    def _resumes(self) -> None:
        # A scope of its own that it leaves with a cancellation catches that only on a closed way.
        self._may_look = self._turns > (_PATIENCE if self._has_own else 0)
        if self._may_look:
            self._scopes.uncover()

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> Any:
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            return self._failed
        if self._scopes.is_open:
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
        if was_hit or (scopes.armed and isinstance(error, StreamCancelled)):
            scopes.deliver()
            return _error(self.exception())
        if isinstance(error, anyio.get_cancelled_exc_class()):
            self._has_own = True
            if scopes.delivered:
                scopes.claim(None)
        elif scopes.armed and error is None:
            self._resumes()
        return value


def _error(exc: BaseException) -> Any:
    outcome: Any = sys.modules["outcome"]
    return outcome.Error(exc)
