"""One consumer's stay at a stream: how it gets to the place that it leaves, and what it leaves."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio

from support import wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from streamkit import Outcome, Stream

Source: TypeAlias = Callable[[], AsyncGenerator[Any, None]]
Place: TypeAlias = Literal["blocked", "at a yield"]

# Real seconds. What another process or thread learns from us may take a moment, and no longer.
LEARNS_WITHIN = 2.0
LOOKS_EVERY = 0.01
# An ask that takes so long is given up: the source is blocked, or is asked once more.
ASK = 0.05


@dataclass
class Library:
    """A source that uses a library, and how to tell what is left of it.

    What is left is anything that is true, and is shown where a test fails.
    """

    #: Makes the source. It yields something, and then is blocked in the library for very long.
    source: Source
    #: What is still in use on our side. It may await nothing: it is asked as the block ends.
    held: Callable[[], object]
    #: What the other side still does for us.
    served: Callable[[], object] = lambda: None
    #: Whether the other side has said all that it will say.
    silent: Callable[[], object] = lambda: True


async def one_deep(source: Source) -> AsyncGenerator[Any, None]:
    # Called here: an argument would hold the generator, as no application does.
    async for item in source():
        yield item


async def two_deep(source: Source) -> AsyncGenerator[Any, None]:
    async for item in one_deep(source):
        yield item


DEPTHS: dict[str, Callable[[Source], AsyncGenerator[Any, None]]] = {
    "direct": lambda source: source(),
    "one deep": one_deep,
    "two deep": two_deep,
}


class Visit:
    """A stay at a stream of a library's source, to be ended in one way or another."""

    def __init__(self, library: Library, place: Place, depth: str) -> None:
        self.library = library
        self.place = place
        self.outcome: Outcome | None = None
        self._depth = depth
        self._items = 0
        self._held: object = "not looked yet"
        self._left_in = math.inf
        self._go_on = anyio.Event()

    def source(self) -> AsyncGenerator[Any, None]:
        """Make the source, with plain generators around it."""
        return DEPTHS[self._depth](self.library.source)

    def block(self, stream: Stream[Any]) -> Block:
        """Return the block of the stream, which notes what is held as soon as it is left."""
        return Block(self, stream)

    def took(self, item: object = None) -> None:
        self._items += 1

    def is_blocked(self) -> bool:
        """Tell whether a source that has nothing to say now will never have."""
        return self._items > 0 and bool(self.library.silent())

    async def stay(self, stream: AsyncIterator[Any]) -> None:
        """Receive until something from outside ends it; at a yield, be busy with the first item."""
        async for _ in stream:
            self.took()
            if self.place == "at a yield":
                await self._go_on.wait()

    async def come_back(self, stream: AsyncIterator[Any]) -> None:
        """Bring the source to its place and return: at a yield with the item, else without."""
        while True:
            with anyio.move_on_after(ASK) as ask:
                await anext(stream)
                self.took()
                if self.place == "at a yield":
                    return
            if ask.cancelled_caught and self.is_blocked():
                return

    async def reached(self) -> None:
        """Wait, in another task than the consumer's, until the source is in its place."""
        while not (self._items if self.place == "at a yield" else self.is_blocked()):
            await anyio.sleep(LOOKS_EVERY)
        await wait_all_blocked()

    @asynccontextmanager
    async def meanwhile(
        self, act: Callable[[], Awaitable[object]], *, goes_on: bool
    ) -> AsyncIterator[None]:
        """Act in another task once the source is in its place.

        :param goes_on: the consumer asks for the next item afterwards; else it is interrupted

        """

        async def when_reached() -> None:
            await self.reached()
            await act()
            if goes_on:
                self._go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(when_reached)
            yield
            tasks.cancel_scope.cancel()

    def look(self, outcome: Outcome | None = None, left_in: float = 0.0) -> None:
        self._held = self.library.held()
        self.outcome = outcome
        self._left_in = left_in

    async def leftovers(self) -> dict[str, object]:
        """Return all that is not as it should be."""
        with anyio.move_on_after(LEARNS_WITHIN):
            while self.library.served():
                await anyio.sleep(LOOKS_EVERY)
        found = {
            "held as the block ended": self._held,
            "served for ever": self.library.served(),
            "error of the clean-up": self.outcome and self.outcome.cleanup_error,
            "cut after its grace": self.outcome and self.outcome.grace_exceeded,
            # Half of the grace: what takes so long waits for something that does not come.
            "seconds of leaving": self._left_in > 2.5 and self._left_in,
        }
        return {what: value for what, value in found.items() if value}


class Block:
    """``async with stream``, and a look at what is held before anything else can happen."""

    def __init__(self, visit: Visit, stream: Stream[Any]) -> None:
        self._visit = visit
        self._stream = stream

    async def __aenter__(self) -> Stream[Any]:
        return await self._stream.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        since = anyio.current_time()
        try:
            return await self._stream.__aexit__(exc_type, exc, traceback)
        finally:
            self._visit.look(self._stream.outcome, anyio.current_time() - since)
