"""
What the two backends offer in public, at less cost than through anyio: a task that waits for
another one, the clock, the running task, and anyio's own cancel scopes and task groups.

Any number of tasks can wait for an anyio event, and it stays set, which costs something for each
item. Here one task waits, and is woken once. The rest is what anyio calls, too. But finding out
which backend is running costs more than the answer, and more than entering a scope, so it is done
once for each stream.
"""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from types import coroutine
from typing import Any
from weakref import ref

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from .loop import is_current_on_asyncio, is_current_on_trio, running_loop
from .orphans import Orphanage, orphanage
from .relay import Relay
from .relay_asyncio import AsyncioRelay
from .relay_trio import TrioRelay
from .timer import AsyncioTimer, Timer, TrioTimer

# After a turn that was not enough, this many waits pass without one.
_PATIENCE = 15


class Wakeup(ABC):
    """A place at which one task waits."""

    __slots__ = ()

    @abstractmethod
    def wait(self) -> Awaitable[None]:
        """
        Wait until another task calls :meth:`set`. Await it at once.

        A cancellation of the wait leaves nothing behind. One that comes after :meth:`set`, and
        before the task runs again, may still end the wait: the message itself must be kept
        elsewhere.
        """

    @abstractmethod
    def set(self) -> None:
        """Wake the task that waits here. Does nothing if none does."""


class _AsyncioWakeup(Wakeup):
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


class _TrioWakeup(Wakeup):
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


# Not frozen, which would cost three times as much: on uvloop there is one for each stream.
@dataclass(slots=True)
class Backend:
    """The backend of the running event loop."""

    #: Makes the relay of a source, in the source task.
    relay: type[Relay]
    #: The exception that it raises in a cancelled task.
    cancelled: type[BaseException]
    #: The clock of :func:`anyio.current_time`.
    now: Callable[[], float]
    #: Returns the running task, as the backend's own object.
    current_task: Callable[[], object]
    #: Identifies the event loop among those that run now.
    loop: int
    make_wakeup: Callable[[], Wakeup]
    #: Makes the scope that :class:`anyio.CancelScope` makes or wraps here, given the same
    #: arguments.
    make_scope: Callable[..., anyio.CancelScope]
    #: Makes what :func:`anyio.create_task_group` makes here.
    make_task_group: Callable[[], TaskGroup]
    #: Returns a timer, given its function, and a function that is called with an error of that.
    make_timer: Callable[[Callable[[], object], Callable[[BaseException], object]], Timer]
    #: Calls a function in the next pass of the event loop, as if from a task, unless that task has
    #: ended by then.
    soon: Callable[[Any, Callable[[], object]], object]
    #: Waits until that has left no task. Is not cancelled.
    settle: Callable[[], Awaitable[None]]
    #: Lets other tasks run, and a cancellation through.
    checkpoint: Callable[[], Awaitable[None]]
    #: Lets a cancellation through, and does nothing else.
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    #: Tells whether this is the event loop that is running in the current thread.
    is_here: Callable[[], bool]
    #: Looks after streams that outlive their tasks, where that is needed.
    orphanage: Orphanage | None = None


def get_backend() -> Backend:
    """Return the backend of the running event loop."""
    loop = running_loop()
    return _on_asyncio(loop) if isinstance(loop, asyncio.AbstractEventLoop) else _on_trio(loop)


def new_scope() -> anyio.CancelScope:
    """Return a new cancel scope, for code that needs nothing else of its backend."""
    loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        make_scope, _ = _anyios_on_asyncio()
        return make_scope()
    return _on_trio(loop).make_scope()


# The last one, and its event loop: most programs run one. It does not hold the loop, which may hold
# a lot after its end.
_last_on_asyncio: tuple[Callable[[], object], Backend] | None = None


def _on_asyncio(loop: asyncio.AbstractEventLoop) -> Backend:
    global _last_on_asyncio
    last = _last_on_asyncio
    # What the loop's own method calls, unless somebody has replaced that, which may be at any time.
    own = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
    if own and last is not None and last[0]() is loop:
        return last[1]
    scope, task_group = _anyios_on_asyncio()
    backend = Backend(
        AsyncioRelay,
        asyncio.CancelledError,
        time.monotonic if own else loop.time,
        asyncio.current_task,
        id(loop),
        _AsyncioWakeup,
        scope,
        task_group,
        AsyncioTimer,
        _soon_on_asyncio,
        _settle_on_asyncio,
        _turn,
        checkpoint_if_cancelled,
        partial(_is_current, ref(loop)),
    )
    if own:
        _last_on_asyncio = ref(loop), backend
    return backend


def _is_current(find_loop: Callable[[], object]) -> bool:
    return is_current_on_asyncio(find_loop())


@cache
def _anyios_on_asyncio() -> tuple[type[anyio.CancelScope], type[TaskGroup]]:
    return type(anyio.CancelScope()), type(anyio.create_task_group())


# Only the last one is cached: most programs run trio once. The token does not hold the run.
@lru_cache(maxsize=1)
def _on_trio(token: Any) -> Backend:
    trio: Any = sys.modules["trio"].lowlevel
    cancelled, make_scope = sys.modules["trio"].Cancelled, sys.modules["trio"].CancelScope
    soon = _SoonOnTrio(token, trio)
    return Backend(
        TrioRelay,
        cancelled,
        trio.current_clock().current_time,
        trio.current_task,
        id(token),
        _TrioWakeup,
        make_scope,
        type(anyio.create_task_group()),
        TrioTimer,
        soon,
        soon.settle,
        trio.checkpoint,
        trio.checkpoint_if_cancelled,
        partial(is_current_on_trio, token),
        orphanage(),
    )


def _soon_on_asyncio(task: asyncio.Task[Any], function: Callable[[], object]) -> None:
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


async def _settle_on_asyncio() -> None:
    """Do nothing: no task is involved."""


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
        while self._functions:
            await self._checkpoint()

    async def _run(self) -> None:
        self._call_all()

    def _call_all(self) -> None:
        functions, self._functions = self._functions, []
        for function in functions:
            function()


@coroutine
def _turn() -> Generator[None, None, None]:
    """Do what ``asyncio.sleep(0)`` does, with one coroutine fewer."""
    yield
