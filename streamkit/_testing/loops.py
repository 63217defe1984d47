"""
A fresh event loop for each run, and what differs between the two backends.

A strike comes right after the step that led to its point, and before the source goes on. On asyncio
it is a callback, which comes after everything that is ready by then. So if the source has yielded,
and its consumer is about to run, the strike comes at once. trio would queue it with the tasks, in
any order, so an instrument is called at the end of the step.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from importlib import import_module
from typing import Any

from anyio import CancelScope, Event, run as run_loop

from .backend import Backend, Clock, on_trio
from .outside import OutsideLoop
from .trio_order import seed_trio
from .virtual_time import trio_clock


def run_fresh(
    main: Callable[[], Awaitable[None]], backend: Backend, clock: Clock, seed: int
) -> None:
    """Run a function in an event loop of its own."""
    if backend == "trio":
        seed_trio(seed)
        # Not with anyio.run(): before anyio 4.14, it drops the clock.
        import_module("trio").run(main, clock=trio_clock() if clock == "virtual" else None)
    else:
        options = {"loop_factory": OutsideLoop} if clock == "virtual" else {}
        run_loop(main, backend=backend, backend_options=options)


def check_installed(backend: str) -> None:
    """
    Check that a backend is installed.

    :raises ModuleNotFoundError: if it is not, saying what to do
    """
    try:
        import_module(backend)
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            f"{exc}: install it, or write backends=('asyncio',)", name=backend
        ) from None


def right_after_this_step(call: Callable[[], object], at_yield: bool) -> None:
    """
    Call something when the running task has ended its current step.

    :param at_yield: whether the source has yielded, so that the call is made at once on asyncio

    """
    if not on_trio():
        if at_yield:
            call()
        else:
            asyncio.get_running_loop().call_soon(call)
        return
    sys.modules["trio"].lowlevel.add_instrument(_after_step()(call))


@cache
def _after_step() -> Callable[[Callable[[], object]], object]:
    """Return the class of an instrument that calls something once. Making a class is slow."""
    trio: Any = sys.modules["trio"]

    class AfterStep(trio.abc.Instrument):  # type: ignore[misc]
        def __init__(self, call: Callable[[], object]) -> None:
            self.call: Callable[[], object] = call

        def after_task_step(self, task: object) -> None:
            trio.lowlevel.remove_instrument(self)
            self.call()

    return AfterStep


def start(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something that never raises in another task."""
    if on_trio():
        sys.modules["trio"].lowlevel.spawn_system_task(function)
    else:
        _started.add(task := asyncio.get_running_loop().create_task(function()))
        task.add_done_callback(_started.discard)


_started: set[asyncio.Task[None]] = set()


async def in_own_task(
    function: Callable[[], Coroutine[Any, Any, None]], wait: Callable[[Event], Awaitable[None]]
) -> None:
    """
    Run something in a native task, which it may leave cancelled, or with broken scopes.

    :param wait: waits for an event that is set when it has ended

    """
    over = Event()

    async def run() -> None:
        try:
            await function()
        finally:
            over.set()

    if on_trio():
        async with sys.modules["trio"].open_nursery() as tasks:
            tasks.start_soon(run)
            await wait(over)
        return
    task = asyncio.get_running_loop().create_task(run())
    try:
        await wait(over)
    except BaseException:
        task.cancel()
        raise
    finally:
        with CancelScope(shield=True):
            await asyncio.wait([task])
    task.result()


def running_task() -> Any:
    """Return the running task, as the backend's own object."""
    if on_trio():
        return sys.modules["trio"].lowlevel.current_task()
    return asyncio.current_task()
