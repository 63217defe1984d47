"""Sources that take the time, and prove that nothing was lost on the way."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable

import anyio


class Run:
    """
    A number of items on their way: when they set out, and what arrived.

    Its clock is the processor time of this thread, from the first step of the source to the last
    item that was taken.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.last = count - 1
        self.received: list[int] = []
        self.started_at = self.ended_at = 0.0

    def begin(self) -> None:
        self.started_at = time.thread_time()

    def take(self, item: int) -> None:
        self.received.append(item)
        if item == self.last:
            self.ended_at = time.thread_time()

    def check(self, what: str) -> None:
        """Refuse what did not bring the same items in the same order."""
        if self.received != list(range(self.count)):
            raise RuntimeError(f"{what} lost, repeated or reordered items")

    @property
    def cost(self) -> float:
        """Microseconds per item."""
        return (self.ended_at - self.started_at) / self.count * 1e6


async def ready(run: Run) -> AsyncGenerator[int, None]:
    """Yield what is there already: never suspends."""
    run.begin()
    for item in range(run.count):
        yield item


async def suspending(run: Run) -> AsyncGenerator[int, None]:
    """Let the event loop run before each item, as what reads from a socket does."""
    run.begin()
    for item in range(run.count):
        await anyio.sleep(0)  # noqa: ASYNC115  (what users write)
        yield item


SOURCES: dict[str, Callable[[Run], AsyncGenerator[int, None]]] = {
    "ready": ready,
    "suspending": suspending,
}
