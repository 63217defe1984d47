"""What asyncio offers for a stream. Loaded when the first one is opened on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from functools import cache, partial
from types import coroutine
from typing import Any
from weakref import ref

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from .backend import Backend, Wakeup
from .loop import is_current_on_asyncio
from .relay_asyncio import AsyncioRelay
from .scopes import MARK
from .timer_asyncio import AsyncioTimer

# After a turn that was not enough, this many waits pass without one.
_PATIENCE = 15


# The last one, and its event loop: most programs run one. It does not hold the loop, which may hold
# a lot after its end.
_last: tuple[Callable[[], object], Backend] | None = None


def backend_of(loop: asyncio.AbstractEventLoop) -> Backend:
    """Return what this event loop offers."""
    global _last
    last = _last
    # What the loop's own method calls, unless somebody has replaced that, which may be at any time.
    own = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
    if own and last is not None and last[0]() is loop:
        return last[1]
    scope, task_group = _anyios()
    backend = Backend(
        relay=AsyncioRelay,
        cancelled=asyncio.CancelledError,
        now=time.monotonic if own else loop.time,
        current_task=asyncio.current_task,
        loop=id(loop),
        make_wakeup=AsyncioWakeup,
        make_scope=scope,
        make_task_group=task_group,
        make_timer=AsyncioTimer,
        soon=_soon,
        settle=_settle,
        checkpoint=_turn,
        checkpoint_if_cancelled=checkpoint_if_cancelled,
        is_here=partial(_is_current, ref(loop)),
    )
    if own:
        _last = ref(loop), backend
    return backend


def _is_current(find_loop: Callable[[], object]) -> bool:
    return is_current_on_asyncio(find_loop())


@cache
def _anyios() -> tuple[type[anyio.CancelScope], type[TaskGroup]]:
    return _showing(type(anyio.CancelScope())), type(anyio.create_task_group())


def _showing(of_anyio: Any) -> type[anyio.CancelScope]:
    """Return the class of scopes that can show a deadline without having it."""

    def deadline(scope: Any) -> Any:
        return MARK if hasattr(scope, "shows_mark") else of_anyio.deadline.fget(scope)

    # With a slot for the attribute: each stream has some of them.
    fields = {
        "deadline": property(deadline, of_anyio.deadline.fset),
        "__slots__": ("shows_mark",),
    }
    return type(of_anyio.__name__, (of_anyio,), fields)


def new_scope() -> anyio.CancelScope:
    """Return a new cancel scope."""
    make_scope, _ = _anyios()
    return make_scope()


class AsyncioWakeup(Wakeup):
    """
    Gives other tasks a turn before it waits, while that is enough.

    asyncio runs its tasks in the order in which they became ready. So a task that wakes another
    one, and then waits here, has the answer after one turn, if the other gives it without waiting
    for anything else. Both then run in each iteration of the event loop. With futures, each runs
    only in every second one. trio shuffles its tasks on purpose, so it does not pay there.
    """

    __slots__ = ("_create_future", "_is_set", "_waiter", "_waits_until_turn")

    def __init__(self) -> None:
        self._create_future = asyncio.get_running_loop().create_future
        self._waiter: asyncio.Future[None] | None = None
        self._is_set = False
        #: How many waits must pass until a turn is tried (again).
        self._waits_until_turn = 1

    def wait(self) -> Awaitable[None]:
        if not self._waits_until_turn:
            return self._take_turn()
        self._waits_until_turn -= 1
        self._waiter = waiter = self._create_future()
        return waiter

    @coroutine
    def _take_turn(self) -> Generator[Any, Any, None]:
        self._is_set = False
        yield
        if not self._is_set:
            self._waits_until_turn = _PATIENCE
            self._waiter = waiter = self._create_future()
            yield from waiter

    def set(self) -> None:
        self._is_set = True
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


def _soon(task: asyncio.Task[Any], function: Callable[[], object]) -> None:
    loop = task.get_loop()

    def call() -> None:
        # When the task of asyncio.run() has ended, nothing may begin.
        if not task.done():
            # Outside of a task, anyio may not know which event loop is running.
            asyncio._enter_task(loop, task)
            try:
                function()
            finally:
                asyncio._leave_task(loop, task)

    loop.call_soon(call)


async def _settle() -> None:
    """Do nothing: no task is involved."""


@coroutine
def _turn() -> Generator[None, None, None]:
    """Do what ``asyncio.sleep(0)`` does, with one coroutine fewer."""
    yield
