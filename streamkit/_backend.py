"""
What the two backends offer, in public, for less than it costs through anyio: a task that waits for
another one, and the clock.

An event of anyio can be waited for by any number of tasks and stays set, which is paid for with
each item. Here it is one task, and it is woken once. The clock is the same; what it costs to ask
anyio for the running backend each time is saved.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import anyio


class Wakeup(ABC):
    """A place at which one task waits."""

    @abstractmethod
    def wait(self) -> Awaitable[None]:
        """
        Wait until another task calls :meth:`set`. To be awaited at once.

        A cancellation of the wait leaves nothing. One that comes after :meth:`set`, and before the
        task runs again, lets the wait end as it was to.
        """

    @abstractmethod
    def set(self) -> None:
        """Wake the task that waits here. Does nothing if none does."""


class _AsyncioWakeup(Wakeup):
    def __init__(self) -> None:
        self._create_future = asyncio.get_running_loop().create_future
        self._waiter: asyncio.Future[None] | None = None

    def wait(self) -> Awaitable[None]:
        self._waiter = waiter = self._create_future()
        return waiter

    def set(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class _TrioWakeup(Wakeup):
    def __init__(self) -> None:
        trio: Any = sys.modules["trio"].lowlevel
        self._current_task = trio.current_task
        self._wait_task_rescheduled = trio.wait_task_rescheduled
        self._reschedule = trio.reschedule
        self._succeeded = trio.Abort.SUCCEEDED
        self._task: Any = None

    def wait(self) -> Awaitable[None]:
        self._task = self._current_task()
        waiting: Awaitable[None] = self._wait_task_rescheduled(self._abort)
        return waiting

    def _abort(self, raise_cancel: object) -> Any:
        self._task = None
        return self._succeeded

    def set(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            self._reschedule(task)


def _on_asyncio() -> bool:
    return issubclass(asyncio.CancelledError, anyio.get_cancelled_exc_class())


def make_wakeup() -> Wakeup:
    """Return one for the running event loop."""
    return _AsyncioWakeup() if _on_asyncio() else _TrioWakeup()


def get_clock() -> Callable[[], float]:
    """Return what :func:`anyio.current_time` asks in the running event loop."""
    if _on_asyncio():
        return asyncio.get_running_loop().time
    clock: Callable[[], float] = sys.modules["trio"].lowlevel.current_clock().current_time
    return clock
