"""
A task that waits for another one: the least that each backend offers for it, in public.

An event of anyio does the same. It can be waited for by any number of tasks and stays set, which
is paid for with each item: here it is one task, and it is woken once.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from typing import Any

import anyio


class Wakeup(ABC):
    """A place at which one task waits."""

    @abstractmethod
    async def wait(self) -> None:
        """
        Wait until another task calls :meth:`set`.

        A cancellation of the wait leaves nothing. One that comes after :meth:`set`, and before the
        task runs again, lets the wait end as it was to.
        """

    @abstractmethod
    def set(self) -> None:
        """Wake the task that waits here. Does nothing if none does."""

    @property
    @abstractmethod
    def is_awaited(self) -> bool:
        """Whether a task is in :meth:`wait`, be it that it is woken and has not run since."""


class _AsyncioWakeup(Wakeup):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def set(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_awaited(self) -> bool:
        return self._waiter is not None


class _TrioWakeup(Wakeup):
    def __init__(self) -> None:
        self._trio: Any = sys.modules["trio"].lowlevel
        self._task: Any = None
        self._is_over = False

    async def wait(self) -> None:
        self._task, self._is_over = self._trio.current_task(), False
        try:
            await self._trio.wait_task_rescheduled(self._abort)
        finally:
            self._task = None

    def _abort(self, raise_cancel: object) -> Any:
        self._is_over = True
        return self._trio.Abort.SUCCEEDED

    def set(self) -> None:
        if self._task is not None and not self._is_over:
            self._is_over = True
            self._trio.reschedule(self._task)

    @property
    def is_awaited(self) -> bool:
        return self._task is not None


def make_wakeup() -> Wakeup:
    """Return one for the running event loop."""
    on_asyncio = issubclass(asyncio.CancelledError, anyio.get_cancelled_exc_class())
    return _AsyncioWakeup() if on_asyncio else _TrioWakeup()
