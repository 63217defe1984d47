"""A sync generator that takes notes and may be blocked, and who waits for what it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio.lowlevel
import anyio.to_thread

from observing import kind
from streamkit import CancelToken, Stream, StreamCancelled
from support import wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Real seconds after which what has to come from another thread counts as lost.
HANGS_AFTER = 20.0


class Source:
    """
    A sync generator that takes notes, and may be blocked.

    :param items: how many items it yields before it is blocked, and how many after that
    :param handles: yield this when it is told to stop, and end
    :param interrupted: what its blocked call raises when it is interrupted
    :param swallows: whether it catches that, and goes on

    """

    def __init__(
        self,
        items: int = 3,
        *,
        after: int = 0,
        blocks: bool = False,
        handles: tuple[object, ...] | None = None,
        interrupted: BaseException | None = None,
        swallows: bool = False,
    ) -> None:
        self._before, self._after, self._blocks = items, after, blocks
        self._handles, self._interrupted, self._swallows = handles, interrupted, swallows
        #: Set when it is blocked, and to let it go on.
        self.is_blocked, self.released = threading.Event(), threading.Event()
        #: In which thread each step ran, what was raised in it, and how often it was closed.
        self.threads: list[threading.Thread] = []
        self.seen: list[str] = []
        self.closed = 0
        self.produced = 0
        #: In which threads it was interrupted.
        self.interruptions: list[int] = []
        self._is_interrupted = False

    def interrupt(self) -> None:
        """Have the blocked call raise."""
        self.interruptions.append(threading.get_ident())
        self._is_interrupted = True
        self.released.set()

    def block(self) -> None:
        self.is_blocked.set()
        assert self.released.wait(HANGS_AFTER)
        if self._is_interrupted and self._interrupted is not None:
            raise self._interrupted

    async def blocked(self) -> None:
        """Wait until it is blocked, in the event loop."""
        await in_thread(self.is_blocked)
        await wait_all_blocked()

    def items(self) -> Generator[object, None, None]:
        try:
            yield from self._numbers(self._before)
            if self._blocks:
                try:
                    self.block()
                except ConnectionError:
                    if not self._swallows:
                        raise
                    self.seen.append("ConnectionError")
            yield from self._numbers(self._after)
        except StreamCancelled as stop:
            self.seen.append(kind(stop))
            if self._handles is None:
                raise
            yield from self._handles
        except GeneratorExit:
            self.seen.append("GeneratorExit")
            raise
        finally:
            self.threads.append(threading.current_thread())
            self.closed += 1

    def _numbers(self, count: int) -> Iterator[int]:
        for _ in range(count):
            self.threads.append(threading.current_thread())
            self.produced += 1
            yield self.produced


def fire_when(event: threading.Event, token: CancelToken) -> None:
    assert event.wait(HANGS_AFTER)
    token.cancel("stop")


async def in_thread(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, HANGS_AFTER)


def source_task() -> asyncio.Task[Any]:
    tasks = asyncio.all_tasks()
    [task] = [task for task in tasks if task.get_name().startswith("source task of ")]
    return task


def ours() -> list[str]:
    """Return the names of the threads of sources that are there."""
    return [each.name for each in threading.enumerate() if each.name.startswith("thread of ")]


async def spin(until: Callable[[], bool]) -> None:
    """Keep virtual time from jumping."""
    while not until():
        await anyio.lowlevel.checkpoint()


async def rest_of(stream: Stream[Any]) -> list[object]:
    """Return the items that are left, and what the iteration raises."""
    items: list[object] = []
    try:
        async for item in stream:
            items.append(item)
    except (Exception, StreamCancelled, SystemExit) as exc:
        items.append(kind(exc))
    return items
