"""A clock that runs only while the consumer waits."""

from __future__ import annotations

import math

import anyio


class WaitClock:
    """
    Adds up how long the consumer waits for items that are not there yet.

    All waits count, however they end: by an item, by a beat, or because they are cancelled.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None
        self._start: anyio.Event | None = None

    @property
    def seconds(self) -> float:
        """Its reading now."""
        if self._since is None:
            return self._before
        return self._before + (anyio.current_time() - self._since)

    def start(self) -> None:
        """Let it run: the consumer waits."""
        self._since = anyio.current_time()
        if self._start is not None:
            self._start.set()
            self._start = None

    def stop(self) -> None:
        """Let it stand still. Does nothing if it already does."""
        self._before, self._since = self.seconds, None

    async def reach(self, seconds: float) -> None:
        """Wait until it shows so many seconds."""
        reached = -math.inf
        while self.seconds < seconds:
            if self._since is None:
                if self._start is None:
                    self._start = anyio.Event()
                await self._start.wait()
                continue
            due = self._since + (seconds - self._before)
            if due <= reached:
                # That time has passed, even if a coarse clock or a rounded sum disagrees.
                break
            await anyio.sleep_until(due)
            reached = due
