"""
What a run leaves behind: tasks, generators that are suspended or were dropped, anyio streams that
nobody has closed, errors that nobody has handled.

Streams warn when they are collected. A full collection takes as long as some runs, so objects from
before the first run are left out of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import warnings
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from inspect import CORO_CLOSED, getcoroutinestate
from pathlib import Path
from types import CodeType
from typing import Any

import anyio

from .._core.stuck import frames
from .backend import on_trio

_PACKAGES = Path(anyio.__file__).parents[1]
_ANYIO = f"{_PACKAGES / 'anyio'}{os.sep}"
# The files of streamkit, and those of trio's own tasks.
_OURS = (f"{Path(__file__).parents[1]}{os.sep}", f"{_PACKAGES / 'trio' / '_core'}{os.sep}")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| at [0-9a-f]{6,}")


class Leftovers:
    """
    Notes what one run begins. Make it in the run's event loop, before the run.

    :param owns_loop: whether the event loop is only for this run
    """

    def __init__(self, *, owns_loop: bool) -> None:
        self._owns_loop = owns_loop
        self._tasks = live_tasks()
        #: The generators that were dropped, and the errors that reached the exception handler of
        #: the event loop. It grows as long as anything of the run is alive.
        self.heard: list[str] = []
        self._begun: weakref.WeakSet[Any] = weakref.WeakSet()

    @contextmanager
    def watched(self) -> Generator[None, None, None]:
        """Note the generators that begin in this block."""
        hooks = sys.get_asyncgen_hooks()

        def begin(generator: Any) -> None:
            self._begun.add(generator)
            # The event loop has set both hooks.
            assert hooks.firstiter is not None
            hooks.firstiter(generator)

        def finalize(generator: Any) -> None:
            self.heard.append(f"generator {_name(generator)}")
            assert hooks.finalizer is not None
            with warnings.catch_warnings():
                # trio warns about the same.
                warnings.simplefilter("ignore", ResourceWarning)
                hooks.finalizer(generator)

        sys.set_asyncgen_hooks(begin, finalize)
        try:
            # A loop of the run's own keeps the handler: tasks that die with it, or later, report
            # here as well.
            with hearing(self.heard, for_good=self._owns_loop):
                yield
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def found(self) -> list[str]:
        """Return what is left now, by name."""
        found = [f"task {_name(task)}" for task in live_tasks() - self._tasks if not _is_ours(task)]
        found += [
            f"generator {_name(generator)}"
            for generator in self._begun
            if generator.ag_frame is not None and not _is_ours(generator)
        ]
        return sorted(found)


@contextmanager
def hearing(heard: list[str], *, for_good: bool = False) -> Generator[None, None, None]:
    """
    Note what reaches the exception handler of the event loop.

    :param for_good: whether the handler stays after the block

    """
    if on_trio():
        yield
        return
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()

    def hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # As text: the exception would keep its frames alive.
        error = context.get("exception")
        what = context["message"] if error is None else type(error).__name__
        heard.append(f"error nobody took: {what}")

    loop.set_exception_handler(hear)
    try:
        yield
    finally:
        if not for_good:
            loop.set_exception_handler(handler)


@contextmanager
def collected() -> Generator[list[str], None, None]:
    """Collect the garbage of a run, and yield a list of what was not closed."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=ResourceWarning)
        yield found
        gc.collect()
    for warning in caught:
        if issubclass(warning.category, ResourceWarning):
            source = getattr(warning, "source", None)
            text = _ADDRESS.sub("", str(warning.message))
            found.append(f"open {type(source).__qualname__}" if source is not None else text)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    found.sort()


@contextmanager
def frozen() -> Generator[None, None, None]:
    """Leave existing objects out of each collection in this block."""
    was_frozen, was_enabled = gc.get_freeze_count(), gc.isenabled()
    gc.collect()
    gc.freeze()
    # Each run has a collection of its own.
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        if not was_frozen:
            gc.unfreeze()


def live_tasks() -> set[Any]:
    """Return the tasks of this event loop that are not finished."""
    if not on_trio():
        return set(asyncio.all_tasks())
    tasks: set[Any] = set()
    todo = [sys.modules["trio"].lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        tasks.add(task)
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return tasks


def body_of(holder: Any) -> Any:
    """Return the coroutine of a task, or a generator itself."""
    if isinstance(holder, asyncio.Task):
        return holder.get_coro()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return getattr(holder, "coro", holder)


def has_ended(task: Any) -> bool:
    """Tell whether a task has finished."""
    return getcoroutinestate(body_of(task)) == CORO_CLOSED


def _code(holder: Any) -> CodeType | None:
    """Return the code that a task or a generator runs, without anyio's wrappers."""
    codes = (frame.f_code for frame in frames(body_of(holder)))
    return next((code for code in codes if not code.co_filename.startswith(_ANYIO)), None)


def _name(holder: Any) -> str:
    """Return the qualified name of the code that a task or a generator runs."""
    code = _code(holder)
    return str(body_of(holder)) if code is None else code.co_qualname


def _is_ours(holder: Any) -> bool:
    code = _code(holder)
    return code is not None and code.co_filename.startswith(_OURS)
