"""What is trio's own where a source is left or told: nurseries, and the order of its tasks."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from observing import call_later, kind
from streamkit import (
    CancelToken,
    Left,
    Stream,
    StreamCancelled,
    current_cancellation,
    with_buffer,
    with_cancellation,
    with_keepalive,
)
from support import Backend, Log, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

pytestmark = pytest.mark.trio_only

# trio shuffles the tasks of a turn, and the children of a scope that is cancelled.
SEEDS = 200


def seeds() -> Iterator[int]:
    """Return numbers for runs that differ in the order in which trio takes its tasks."""
    state = random.getstate()
    try:
        yield from range(SEEDS)
    finally:
        random.setstate(state)


def run(main: Any, seed: int) -> None:
    """Run trio with its tasks in an order that the seed decides, in virtual time."""
    from trio._core import _run

    _run._r.seed(seed)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


class Crowd:
    """
    A source with children in a nursery, which hold and want what there is to be held.

    :param what: what they hold and want

    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.lock: Any = trio.Lock() if what == "trio.Lock" else anyio.Lock()
        self.semaphore: Any = trio.Semaphore(1) if what == "trio.Semaphore" else anyio.Semaphore(1)
        self.sent: list[int] = []
        self.received: list[int] = []
        self.told: list[object] = []

    def held(self) -> Any:
        return self.semaphore if "Semaphore" in self.what else self.lock

    async def child(self) -> None:
        held = self.held()
        try:
            while True:
                async with held:
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(0)
        finally:
            # As the clean-up of a connection pool does: in no shield.
            async with held:
                await anyio.lowlevel.checkpoint()

    async def source(self) -> AsyncGenerator[int, None]:
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(self.child)
                if self.what == "buffer":
                    async with with_buffer(self.counting(), 2) as stream:
                        async for item in stream:
                            yield item
                elif "stream" in self.what or "channel" in self.what:
                    async for item in self.piped(nursery):
                        yield item
                else:
                    for number in range(1000):
                        async with self.held():
                            await anyio.sleep(0.01)
                        yield number
        except* StreamCancelled as group:
            self.told += [exc for exc in leaves(group)]
            raise

    async def counting(self) -> AsyncIterator[int]:
        for number in range(1000):
            async with self.lock:
                await anyio.sleep(0.01)
            yield number

    async def piped(self, nursery: trio.Nursery) -> AsyncIterator[int]:
        send: Any
        receive: Any
        if self.what == "trio channel":
            send, receive = trio.open_memory_channel[int](1)
        else:
            send, receive = anyio.create_memory_object_stream[int](1)

        async def produce() -> None:
            with send:
                for number in range(1000):
                    await send.send(number)
                    self.sent.append(number)
                    await anyio.sleep(0.01)

        nursery.start_soon(produce)
        with receive:
            async for item in receive:
                self.received.append(item)
                yield item


def leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


whats = pytest.mark.parametrize(
    "what",
    [
        "trio.Lock",
        "anyio.Lock",
        "trio.Semaphore",
        "anyio.Semaphore",
        "trio channel",
        "anyio stream",
        "buffer",
    ],
)


class TestSeeds:
    """L13: children take what others hold on their way out, in every order."""

    @whats
    @pytest.mark.parametrize("how", ["scope in the wait", "scope in the body", "token", "outer"])
    def test_seeds(self, what: str, how: str) -> None:
        """L13: no assertion of trio's fails, nothing hangs, nobody is told twice."""
        for seed in seeds():
            crowd = Crowd(what)

            async def main(crowd: Crowd = crowd) -> None:
                token = CancelToken()
                source: Any = crowd.source()
                if how == "outer":
                    source = passing_on(with_cancellation(source))
                stream = with_cancellation(source, token)
                with anyio.move_on_after(0.0505):
                    async with anyio.create_task_group() as tasks:
                        if how in ("token", "outer"):
                            tasks.start_soon(call_later, 0.05, token.cancel, "stop")
                        with suppress(StreamCancelled):
                            async with stream:
                                async for _ in stream:
                                    if how == "scope in the body":
                                        await anyio.sleep(0.02)
                                    else:
                                        await anyio.lowlevel.checkpoint()
                assert stream.outcome is not None
                assert stream.outcome.kind in ("cancelled", "closed")
                assert not stream.outcome.grace_exceeded
                assert len(crowd.told) <= 1

            run(main, seed)


async def passing_on(stream: Stream[Any]) -> AsyncIterator[Any]:
    async with stream:
        async for item in stream:
            yield item
