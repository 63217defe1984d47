"""
A function that is called at a time: by the event loop, where it has timers.

A sleeping task does the same, and costs as much as the source's own. asyncio has timers, so it gets
a task only when the time has come. trio has none, so a task does it there: one for all the streams
of a run, which exists while a timer is set.
"""

from __future__ import annotations

import asyncio
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from .arguments import check_made


class Timer(ABC):
    """
    Calls a function of a stage at a time. Made by :meth:`Control.timer`, closed with the source.
    """

    __slots__ = ("_context", "_fail", "_function", "_is_closed")

    def __init__(
        self, function: Callable[[], object], fail: Callable[[BaseException], object]
    ) -> None:
        self._function = function
        self._fail = fail
        self._context = copy_context()
        self._is_closed = False

    def set(self, when: float) -> None:
        """
        Call the function once, at this time instead of the one set before.

        :param when: seconds on the clock of :func:`anyio.current_time`
        :raises TypeError: if it is not a number
        :raises ValueError: if it is ``nan``, or an ``int`` that is too large for a ``float``

        """
        # Raised here, where the caller sees it: later it would end the whole trio run, and disturb
        # the order of all timers on asyncio.
        try:
            is_time = not math.isnan(when)
        except OverflowError:
            is_time = False
        if not is_time:
            raise ValueError(
                "a timer cannot be set for nan, or for what is too large for a float: write "
                "timer.set(control.now() + 5.0), for instance"
            )
        self._cancel()
        if not self._is_closed:
            self._schedule(when)

    def close(self) -> None:
        """Stop calling it."""
        self._is_closed = True
        self._cancel()

    async def settle(self) -> None:
        """Wait until a timer that was closed has left no task. Is not cancelled."""
        return

    @abstractmethod
    def _schedule(self, when: float) -> None:
        """Let :meth:`_call` be called at this time."""

    @abstractmethod
    def _cancel(self) -> None:
        """Cancel what was scheduled, if anything was."""

    def _call(self) -> None:
        """Call the function, in a task, in the context in which the timer was made."""
        try:
            check_made("the function of a timer", self._function())
        except BaseException as exc:
            self._fail(exc)


class AsyncioTimer(Timer):
    """A timer of the event loop."""

    __slots__ = ("_handle", "_loop")

    def __init__(
        self, function: Callable[[], object], fail: Callable[[BaseException], object]
    ) -> None:
        super().__init__(function, fail)
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None

    def _schedule(self, when: float) -> None:
        self._handle = self._loop.call_at(when, self._start, context=self._context)

    def _start(self) -> None:
        # A task, because outside of one, anyio may not know which event loop is running. No task
        # factory makes it: it should run in the next pass of the loop, as a task that slept until
        # now would.
        self._handle = None
        asyncio.Task(self._run(), loop=self._loop, name="timer of a stream")

    async def _run(self) -> None:
        # Neither closed nor set anew since.
        if self._handle is None and not self._is_closed:
            self._call()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class TrioTimer(Timer):
    """A timer that the run's :class:`_AlarmClock` looks after."""

    __slots__ = ("_alarm", "_clock")

    def __init__(
        self, function: Callable[[], object], fail: Callable[[BaseException], object]
    ) -> None:
        super().__init__(function, fail)
        self._clock = _alarm_clock()
        self._alarm: _Alarm | None = None

    def _schedule(self, when: float) -> None:
        self._alarm = self._clock.add(when, self)

    def ring(self) -> None:
        """Say that the time has come."""
        self._alarm = None
        self._context.run(self._call)

    async def settle(self) -> None:
        await self._clock.settle()

    def _cancel(self) -> None:
        if self._alarm is not None:
            self._clock.remove(self._alarm)
            self._alarm = None


@dataclass(order=True, slots=True)
class _Alarm:
    when: float
    number: int
    #: ``None`` once it has rung, or was removed.
    timer: TrioTimer | None = field(compare=False)


class _AlarmClock:
    """Looks after the timers of one trio run, in a task that exists while one is set."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._numbers = count()
        #: A heap. Most are removed long before their time, and stay here for a while.
        self._alarms: list[_Alarm] = []
        self._set = 0
        self._is_running = False
        #: Around the wait for the first alarm, and set only there.
        self._scope: Any = None

    def add(self, when: float, timer: TrioTimer) -> _Alarm:
        if not self._is_running:
            try:
                self._trio.lowlevel.spawn_system_task(self._run, name="timers of streams")
            except RuntimeError:
                if not self._trio.lowlevel.in_trio_run():
                    raise
                # The run is ending, and only closes its async generators.
            else:
                self._is_running = True
        alarm = _Alarm(when, next(self._numbers), timer)
        heappush(self._alarms, alarm)
        self._set += 1
        if self._scope is not None and when < self._scope.deadline:
            self._scope.deadline = when
        return alarm

    def remove(self, alarm: _Alarm) -> None:
        alarm.timer = None
        self._set -= 1
        if len(self._alarms) > 2 * self._set:
            self._alarms = [each for each in self._alarms if each.timer is not None]
            heapify(self._alarms)
        if not self._set and self._scope is not None:
            self._scope.cancel()

    async def settle(self) -> None:
        # A task that was told to end does so in the next pass, before or after this one.
        while self._is_running and not self._set:
            await self._trio.lowlevel.cancel_shielded_checkpoint()

    async def _run(self) -> None:
        try:
            while self._set:
                with self._trio.CancelScope(deadline=self._alarms[0].when) as self._scope:
                    await self._trio.sleep_forever()
                self._scope = None
                # Take all of them first, so that one that is set again for this time waits for its
                # turn.
                due: list[_Alarm] = []
                while self._alarms and self._alarms[0].when <= self._trio.current_time():
                    due.append(heappop(self._alarms))
                for alarm in due:
                    timer, alarm.timer = alarm.timer, None
                    if timer is not None:
                        self._set -= 1
                        timer.ring()
        finally:
            # A run that is ending leaves alarms that never ring.
            self._is_running, self._scope = False, None


_clock_of_run: Any = None


def _alarm_clock() -> _AlarmClock:
    global _clock_of_run
    trio: Any = sys.modules["trio"]
    if _clock_of_run is None:
        _clock_of_run = trio.lowlevel.RunVar("streamkit_timers")
    clock: _AlarmClock | None = _clock_of_run.get(None)
    if clock is None:
        clock = _AlarmClock(trio)
        _clock_of_run.set(clock)
    return clock
