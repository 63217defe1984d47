"""Waiting until many tasks have come so far, and are blocked."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint


class Countdown:
    """An event that is set when this many have come."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._over = anyio.Event()

    def arrive(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._over.set()

    async def wait(self) -> None:
        await self._over.wait()


async def settle() -> None:
    """Let what was started or woken run until it is blocked, too."""
    for _ in range(5):
        await checkpoint()
