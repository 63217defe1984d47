"""Event loops in virtual time that tell a :class:`Steps` of every step, and give up on a hang."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

# Its import makes the order in which trio runs tasks depend on one random generator alone.
import hypothesis  # noqa: F401
import trio
from trio._core import _run as trio_run

from streamkit.testing import VirtualTime, VirtualTimeLoop
from support import leaks
from support.virtual_time import START

from .steps import Hang, Steps

if TYPE_CHECKING:
    from contextvars import Context

# Virtual seconds, far beyond what any run takes: who waits for longer waits for ever.
MOST_SECONDS = 2000.0

Main = Callable[[], Awaitable[None]]


class _Stepping(VirtualTime):
    """Mixin: each callback is a step, and so is each timer."""

    steps: Steps

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        # anyio repeats this one for as long as a task resists: it is the same step again.
        if getattr(callback, "__name__", "") == "_deliver_cancellation":
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(self._step, callback, args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return super().call_at(when, self._step, callback, args, context=context)

    def _step(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.steps.before_step()
        callback(*args)

    def jump(self, seconds: float) -> None:
        """Let time pass at once."""
        self._now += seconds


class _Loop(_Stepping, VirtualTimeLoop):
    pass


LOOPS: dict[str, type[_Stepping]] = {"asyncio": _Loop}

if sys.platform != "win32":
    from support.virtual_time import VirtualUvloop

    class _Uvloop(_Stepping, VirtualUvloop):
        pass

    LOOPS["asyncio+uvloop"] = _Uvloop
if sys.version_info >= (3, 12):
    LOOPS["asyncio+eager"] = _Loop

BACKENDS = [*LOOPS, "trio"]


class _Task(asyncio.Task[Any]):
    """A task with a place of its own in a set, so that the same run has the same order again."""

    runs = itertools.count()
    numbers = itertools.count()
    run = mask = 0
    #: Those of the present run. ``asyncio.all_tasks()`` looks at all that were ever made and are
    #: not collected yet, which is what most of the time would go to.
    made: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.number = next(self.numbers)
        super().__init__(*args, **kwargs)
        self.made.add(self)

    @classmethod
    def begin_run(cls, mask: int) -> None:
        """Begin to count anew."""
        cls.run, cls.mask, cls.numbers = next(cls.runs), mask, itertools.count()
        cls.made = weakref.WeakSet()

    def __hash__(self) -> int:
        # asyncio has a set of the tasks of all runs, in which they should not collide.
        return (self.run << 20) + (self.number ^ self.mask)


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return _Task(coro, loop=loop, **kwargs)


class Clock(trio.abc.Clock):
    """trio's time, which stands still while anything is runnable, and then jumps."""

    def __init__(self, steps: Steps) -> None:
        self._now = START
        self._steps = steps
        self._steps_seen = -1

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        if self._steps.hung:
            raise Hang(self._steps.hung)
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if self._steps_seen != self._steps.total:
            # What was sent to the loop with run_sync_soon() is only seen in its poll.
            self._steps_seen = self._steps.total
            return 0
        if self._steps.hung or deadline > START + MOST_SECONDS:
            self._steps.hung = self._steps.hung or _waits_for_ever(deadline)
            raise Hang(self._steps.hung)
        self._now = max(self._now, deadline)
        return 0

    def jump(self, seconds: float) -> None:
        """Let time pass at once."""
        self._now += seconds


class _Instrument(trio.abc.Instrument):
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps.before_step()


def run(
    backend: str, main: Main, steps: Steps, seed: int, on_loop_error: Callable[[str], object]
) -> None:
    """
    Run ``main`` on a fresh loop, to its end or to a hang.

    :param seed: of the order in which tasks run on trio, and are cancelled on asyncio
    :param on_loop_error: called with what reaches the exception handler of the loop

    """
    if backend == "trio":
        _run_on_trio(main, steps, seed)
    else:
        _run_on_asyncio(backend, main, steps, seed, on_loop_error)


def _run_on_trio(main: Main, steps: Steps, seed: int) -> None:
    trio_run._r.seed(seed)
    try:
        trio.run(main, clock=Clock(steps), instruments=[_Instrument(steps)])
    except trio.TrioInternalError as error:
        if not isinstance(error.__cause__, Hang):
            raise


def _run_on_asyncio(
    backend: str, main: Main, steps: Steps, seed: int, on_loop_error: Callable[[str], object]
) -> None:
    loop = LOOPS[backend]()
    loop.steps = steps
    _Task.begin_run(seed % 8)
    loop.set_task_factory(_make_task)
    if sys.version_info >= (3, 12) and backend == "asyncio+eager":
        loop.set_task_factory(asyncio.create_eager_task_factory(_Task))
    loop.set_exception_handler(lambda _, context: on_loop_error(_text(context)))
    steps.on_hang = loop.stop
    guard = VirtualTime.call_at(loop, START + MOST_SECONDS, steps.give_up, _waits_for_ever())
    try:
        loop.run_until_complete(main())
        guard.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
    except RuntimeError:
        if not steps.hung:
            raise
    finally:
        loop.close()
        loop.set_exception_handler(_hear_late)


#: What loops had to say when they were over: of tasks that were garbage, when it was collected.
late: list[str] = []


def _hear_late(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    late.append(_text(context))


def _waits_for_ever(deadline: float = math.inf) -> str:
    what = "ever" if deadline == math.inf else f"{MOST_SECONDS} s of virtual time"
    return f"every task waits for {what}"


def _text(context: dict[str, Any]) -> str:
    return f"{context['message']}: {context.get('exception')!r}"


def live_tasks() -> set[Any]:
    """Return the tasks of the running loop that are not finished."""
    if trio.lowlevel.in_trio_task():
        return leaks.live_tasks()
    return {task for task in _Task.made if not task.done()}


async def together(*functions: Main) -> None:
    """Run each in a native task of its own, and wait for all of them."""
    if trio.lowlevel.in_trio_task():
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
        return
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(function()) for function in functions]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
