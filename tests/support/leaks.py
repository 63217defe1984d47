"""What a test must not leave behind: tasks, async generators, errors that nobody fetched."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import warnings
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import anyio
import trio

from streamkit.testing import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import AsyncGeneratorType

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LeakError(AssertionError):
    """The test itself passed but left something behind."""


async def wait_all_blocked() -> None:
    """Wait until all other tasks are blocked; virtual time does not move meanwhile.

    ``anyio.wait_all_tasks_blocked()`` polls with ``sleep(0.1)`` on asyncio, which moves it.
    """
    loop = None if on_trio() else asyncio.get_running_loop()
    if isinstance(loop, VirtualTime):
        await loop.wait_idle()
    else:
        await anyio.wait_all_tasks_blocked()


def on_trio() -> bool:
    """Tell whether the caller runs in a trio task."""
    return trio.lowlevel.in_trio_task()


def live_tasks() -> set[Any]:
    """Return the asyncio or trio tasks of this loop that are not finished."""
    if not on_trio():
        return set(asyncio.all_tasks())
    tasks: set[Any] = set()
    todo = [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        assert task is not None
        tasks.add(task)
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return tasks


class LeakCheck:
    """Runs one coroutine function in the current loop and collects what it leaves behind.

    :param allow_gc_generators: do not mind async generators that nobody closed

    """

    def __init__(self, *, allow_gc_generators: bool = False) -> None:
        self.allow_gc_generators = allow_gc_generators
        self.finalized: list[str] = []  # async generators that the garbage collector closed
        self._still_open: list[str] = []  # those that the end of the loop will close
        self._problems: list[str] = []

    async def run(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        before = live_tasks()
        if not on_trio():
            # Not restored: tasks that die with the loop or after it report here as well.
            asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        with self._watch_generators() as started:
            result = await fn(*args)
            gc.collect()  # while their loop is there to close them
            if self.finalized:
                await wait_all_blocked()  # the loop closes them in tasks of its own
            self._problems.extend(f"task still alive: {task!r}" for task in live_tasks() - before)
            self._still_open.extend(
                agen.__qualname__ for agen in started if agen.ag_frame is not None
            )
        return result

    def problems(self) -> list[str]:
        """Return one line for each leak, those found after the end of the loop included."""
        found = list(self._problems)
        if not self.allow_gc_generators:
            for how, names in (
                ("left to the garbage collector", self.finalized),
                ("still open", self._still_open),
            ):
                found.extend(f"async generator {how}: {name}" for name in names)
        return found

    def add(self, problem: str) -> None:
        """Report something that only the caller can see."""
        self._problems.append(problem)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # As text: the exception itself would keep its frames alive.
        exc = context.get("exception")
        details = "".join(traceback.format_exception(exc)) if exc else repr(context)
        self._problems.append(f"event loop error: {context['message']}\n{details}")

    @contextmanager
    def _watch_generators(self) -> Iterator[weakref.WeakSet[AsyncGeneratorType[Any, Any]]]:
        """Record the async generators that start in this thread, and how they end.

        To be entered inside the loop, which has installed its own hooks by then.
        """
        started: weakref.WeakSet[AsyncGeneratorType[Any, Any]] = weakref.WeakSet()
        hooks = sys.get_asyncgen_hooks()

        def firstiter(agen: AsyncGeneratorType[Any, Any]) -> None:
            started.add(agen)
            if hooks.firstiter is not None:
                hooks.firstiter(agen)

        def finalizer(agen: AsyncGeneratorType[Any, Any]) -> None:
            self.finalized.append(agen.__qualname__)
            if hooks.finalizer is not None:
                with warnings.catch_warnings():
                    # trio warns about the same thing, as an error in a place without caller
                    warnings.simplefilter("ignore", ResourceWarning)
                    hooks.finalizer(agen)

        # The interpreter passes nothing but its own AsyncGeneratorType.
        sys.set_asyncgen_hooks(firstiter, finalizer)  # type: ignore[arg-type]
        try:
            yield started
        finally:
            sys.set_asyncgen_hooks(*hooks)
