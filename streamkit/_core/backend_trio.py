"""What trio offers for a stream. Loaded when the first one is opened on it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any

import anyio

from .backend import Backend, Wakeup
from .loop import is_current_on_trio
from .orphans import orphanage
from .relay_trio import TrioRelay
from .timer_trio import TrioTimer


# Only the last one is cached: most programs run trio once. The token does not hold the run.
@lru_cache(maxsize=1)
def backend_of(token: Any) -> Backend:
    """Return what this run offers."""
    trio: Any = sys.modules["trio"]
    lowlevel: Any = trio.lowlevel
    soon = _SoonOnTrio(token, lowlevel)
    return Backend(
        relay=TrioRelay,
        cancelled=trio.Cancelled,
        now=lowlevel.current_clock().current_time,
        current_task=lowlevel.current_task,
        loop=id(token),
        make_wakeup=TrioWakeup,
        make_scope=trio.CancelScope,
        make_task_group=type(anyio.create_task_group()),
        make_timer=TrioTimer,
        soon=soon,
        settle=soon.settle,
        checkpoint=lowlevel.checkpoint,
        checkpoint_if_cancelled=lowlevel.checkpoint_if_cancelled,
        is_here=partial(is_current_on_trio, token),
        orphanage=orphanage(),
    )


def new_scope() -> anyio.CancelScope:
    """Return a new cancel scope."""
    scope: anyio.CancelScope = sys.modules["trio"].CancelScope()
    return scope


class TrioWakeup(Wakeup):
    __slots__ = ("_current_task", "_reschedule", "_succeeded", "_task", "_wait")

    def __init__(self) -> None:
        trio: Any = sys.modules["trio"].lowlevel
        self._current_task, self._reschedule = trio.current_task, trio.reschedule
        self._wait, self._succeeded = trio.wait_task_rescheduled, trio.Abort.SUCCEEDED
        self._task: Any = None

    def wait(self) -> Awaitable[None]:
        self._task = self._current_task()
        waiting: Awaitable[None] = self._wait(self._abort)
        return waiting

    def _abort(self, raise_cancel: object) -> Any:
        self._task = None
        return self._succeeded

    def set(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            self._reschedule(task)


class _SoonOnTrio:
    """
    Functions to call, all of a pass in one system task, which ends with the last of them.

    trio's own queue is for other threads, and costs two system calls.
    """

    def __init__(self, token: Any, trio: Any) -> None:
        self._token, self._spawn = token, trio.spawn_system_task
        self._checkpoint = trio.cancel_shielded_checkpoint
        self._functions: list[Callable[[], object]] = []

    def __call__(self, task: object, function: Callable[[], object]) -> None:
        # A stream whose task ends with an open block is an orphan, which is looked after.
        if not self._functions:
            # First: Ctrl-C may come after it, and the next function must be told again.
            try:
                self._spawn(self._run, name="calls what streams put off")
            except RuntimeError:
                # The run is ending, and only closes its async generators.
                self._token.run_sync_soon(self._call_all)
        self._functions.append(function)

    async def settle(self) -> None:
        # That task runs in the next pass. What waits for the caller goes on after that.
        if self._functions:
            await self._checkpoint()

    async def _run(self) -> None:
        self._call_all()

    def _call_all(self) -> None:
        functions, self._functions = self._functions, []
        for function in functions:
            function()
