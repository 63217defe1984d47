"""What the runs of B7 yield, and what is taken from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio

from streamkit.runs import Runs


async def ready(count: int) -> AsyncGenerator[str, None]:
    """Yield what is there already: never suspends."""
    for item in range(count):
        yield f"token {item}"


async def suspending(count: int) -> AsyncGenerator[str, None]:
    """Let the event loop run before each item, as what reads from a socket does."""
    for item in range(count):
        await anyio.sleep(0)  # noqa: ASYNC115  (what users write)
        yield f"token {item}"


async def slow(count: int) -> AsyncGenerator[str, None]:
    """Say something now and then, as a model does."""
    for item in range(count):
        await anyio.sleep(EVERY)
        yield f"token {item}"


SOURCES: dict[str, Callable[[int], AsyncGenerator[str, None]]] = {
    "ready": ready,
    "suspending": suspending,
}

SLOW = "slow"

# Seconds between the items of a slow source.
EVERY = 0.02


def source_of(name: str) -> Callable[[int], AsyncGenerator[str, None]]:
    """Return what makes a source."""
    return slow if name == SLOW else SOURCES[name]


class Taken:
    """What was taken: all of it, in order, or the measurement is refused."""

    def __init__(self, count: int) -> None:
        self._wanted = [f"token {item}" for item in range(count)]
        self._items: list[Any] = []
        self.take: Callable[[Any], None] = self._items.append

    def check(self, what: str) -> None:
        if self._items != self._wanted:
            raise RuntimeError(f"{what} lost, repeated or reordered items")


async def run_to_its_end(runs: Runs, source: AsyncGenerator[str, None], count: int) -> None:
    """Let a run go, and refuse one that has not kept everything."""
    ended = anyio.Event()
    kept = 0

    async def on_end(outcome: Any, info: Any) -> None:
        nonlocal kept
        kept = info.last
        ended.set()

    await runs.start(source, on_end=on_end)
    await ended.wait()
    if kept != count:
        raise RuntimeError(f"a run has kept {kept} of {count} items")
