"""
Timers on trio, which has none of its own.

A task does it: one for all the streams of a run, which exists while a timer is set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from .timer import Timer


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
