"""Things to do later, and the task that does them when their time has come."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import anyio


class Agenda:
    """Things to do at their time. :meth:`run` does them, and may run in several tasks at once."""

    def __init__(self) -> None:
        # A heap: the time, a number that decides between equal times, and the callback.
        self._due: list[tuple[float, int, Callable[[float], object]]] = []
        self._numbers = count()
        self._woken: set[anyio.Event] = set()

    def __len__(self) -> int:
        """Return how many things are left to do."""
        return len(self._due)

    def add(self, when: float, do: Callable[[float], object]) -> None:
        """
        Schedule something.

        :param when: the time, by the clock of the event loop
        :param do: called with the current time

        """
        heappush(self._due, (when, next(self._numbers), do))
        if self._due[0][0] == when:
            for woken in self._woken:
                woken.set()

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        woken = anyio.Event()
        try:
            while True:
                now = anyio.current_time()
                while self._due and self._due[0][0] <= now:
                    heappop(self._due)[2](now)
                self._woken.discard(woken)
                woken = anyio.Event()
                self._woken.add(woken)
                with anyio.CancelScope(deadline=self._due[0][0] if self._due else math.inf):
                    await woken.wait()
        finally:
            self._woken.discard(woken)
