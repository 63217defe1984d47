"""
A function that is called at a time: by the event loop, where it has timers.

A task that sleeps does the same, and weighs as much as the source's own. asyncio has timers, so it
gets a task only when the time has come; trio has none, so a task does it there.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import anyio

from ._backend import Wakeup


class Timer(ABC):
    """
    Calls a function of a stage at a time. Made by :meth:`Control.timer`, closed with the source.
    """

    __slots__ = ()

    @abstractmethod
    def set(self, when: float) -> None:
        """
        Have the function called once, at this time, and not at the one set before.

        :param when: seconds on the clock of :func:`anyio.current_time`

        """

    @abstractmethod
    def close(self) -> None:
        """Call it no more."""


class AsyncioTimer(Timer):
    """One of the event loop's own."""

    __slots__ = ("_function", "_handle", "_is_closed", "_loop")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._is_closed = False

    def set(self, when: float) -> None:
        self._cancel()
        if not self._is_closed:
            self._handle = self._loop.call_at(when, self._start)

    def _start(self) -> None:
        # Outside of a task, anyio need not know which event loop is running. No factory makes this
        # one: it is to run with the next pass of the loop, as a task that slept until now would.
        self._handle = None
        asyncio.Task(self._call(), loop=self._loop, name="timer of a stream")

    async def _call(self) -> None:
        # Neither closed nor set anew since.
        if self._handle is None and not self._is_closed:
            self._function()

    def close(self) -> None:
        self._is_closed = True
        self._cancel()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class TaskTimer(Timer):
    """A task, which :meth:`run` is."""

    __slots__ = ("_function", "_is_closed", "_is_too_late", "_scope", "_wakeup", "_when")

    def __init__(self, function: Callable[[], object], wakeup: Wakeup) -> None:
        self._function = function
        self._wakeup = wakeup
        self._when = math.inf
        self._is_closed = False
        #: Around the wait for the time, and set only there.
        self._scope: anyio.CancelScope | None = None
        self._is_too_late = False

    def set(self, when: float) -> None:
        self._when = when
        if self._scope is not None:
            # The time set before may have come, though the task has not run since.
            self._is_too_late = self._scope.cancel_called
            self._scope.deadline = when

    def close(self) -> None:
        self._is_closed = True
        self._wakeup.set()

    async def run(self) -> None:
        """Call the function at each time that is set, until the timer is closed."""
        while not self._is_closed:
            with anyio.CancelScope(deadline=self._when) as self._scope:
                await self._wakeup.wait()
            self._scope = None
            if self._is_too_late:
                self._is_too_late = False
            elif not self._is_closed:
                self._when = math.inf
                self._function()
