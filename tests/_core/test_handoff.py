"""The hand-off: nothing is read ahead, and nothing is lost, doubled or changed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from chains import CHAINS, Chain, any_chain, wrap
from streamkit import CancelToken, StreamCancelled
from streamkit._core.backend import get_backend
from streamkit._core.handoff import Handoff
from support import Probe, aiter_of, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class TestDemand:
    @any_chain
    async def test_consumer_sleeps(self, chain: Chain) -> None:
        """B1: after an item the source stays at its yield, for as long as the consumer is busy."""
        probe = Probe(*range(5), every=1)
        async with wrap(probe.source(), chain) as stream:
            await anyio.sleep(100)
            assert not probe.started
            assert await anext(stream) == 0
            await anyio.sleep(100)
            assert len(probe.tasks["step"]) == 1
            assert probe.produced == [0]

    @any_chain
    async def test_count(self, chain: Chain) -> None:
        """B2: a consumer that has taken k items has a source that has produced k."""
        probe = Probe(*range(20))
        async with wrap(probe.source(), chain) as stream:
            async for item in stream:
                await wait_all_blocked()
                assert probe.produced == list(range(item + 1))
        assert probe.produced == list(range(20))
        assert stream.outcome.items == 20

    @any_chain
    async def test_cancelled_ask_is_one_ask(self, chain: Chain) -> None:
        """B2: an ask that is cancelled, and the next one, which gets its item, are one demand."""
        probe = Probe(*range(3), every=10)
        async with wrap(probe.source(), chain) as stream:
            for _ in range(2):
                with anyio.move_on_after(4):
                    await anext(stream)
            await anyio.sleep(100)
            assert probe.produced == [0]
            assert await anext(stream) == 0
            await anyio.sleep(100)
            assert probe.produced == [0]

    async def test_item_that_is_there(self) -> None:
        """B4: to wait for an item that is there already asks the source for no further one."""
        handoff = Handoff(get_backend())
        handoff.put("a")
        await handoff.wait_for_item(lambda: False, 1)
        with anyio.move_on_after(1) as scope:
            await handoff.demand()
        assert scope.cancelled_caught
        assert await handoff.receive() == "a"


class TestCancelledConsumer:
    @any_chain
    async def test_when_an_item_arrives(self, chain: Chain) -> None:
        """B4: the ask is cancelled in the moment in which an item arrives: the next one gets it.

        The moment is every one of those from just before the source wakes to well after the item.
        """
        for ticks in range(8):
            gate = anyio.Event()
            scope = anyio.CancelScope()
            got = []

            async def source(gate: anyio.Event = gate) -> AsyncGenerator[str, None]:
                await gate.wait()
                yield "a"
                yield "b"

            async def cancel(
                gate: anyio.Event = gate, scope: anyio.CancelScope = scope, ticks: int = ticks
            ) -> None:
                await wait_all_blocked()
                if ticks:
                    gate.set()
                for _ in range(ticks - 1):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
                gate.set()

            async with anyio.create_task_group() as tasks, wrap(source(), chain) as stream:
                tasks.start_soon(cancel)
                with scope:
                    got.append(await anext(stream))
                got += [item async for item in stream]
            assert got == ["a", "b"]
            assert stream.outcome.items == 2

    @any_chain
    async def test_by_the_source(self, chain: Chain) -> None:
        """B4: the source itself cancels the ask, and yields without another await."""
        scope = anyio.CancelScope()

        async def source() -> AsyncGenerator[str, None]:
            await wait_all_blocked()
            scope.cancel()
            yield "a"
            yield "b"

        async with wrap(source(), chain) as stream:
            with scope:
                await anext(stream)
                raise AssertionError("the ask was cancelled")
            assert [item async for item in stream] == ["a", "b"]

    @any_chain
    async def test_when_an_item_is_there(self, chain: Chain) -> None:
        """B4: an ask for an item that is there is cancelled as well, and does not take it."""
        async with wrap(Probe("a", "b", every=5).source(), chain) as stream:
            with anyio.move_on_after(2):
                await anext(stream)
            await anyio.sleep(10)
            for _ in range(3):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await anext(stream)
                assert scope.cancelled_caught
            assert [item async for item in stream] == ["a", "b"]

    @any_chain
    async def test_by_a_deadline(self, chain: Chain) -> None:
        """B4: deadlines of the consumer that fall on the arrival of each item: none is lost."""
        got = []
        async with wrap(Probe(*range(30), every=5).source(), chain) as stream:
            while len(got) < 30:
                with anyio.move_on_after(5):
                    got.append(await anext(stream))
        assert got == list(range(30))

    @pytest.mark.asyncio_only
    @any_chain
    async def test_native(self, chain: Chain) -> None:
        """B4: a task that asks is cancelled natively when the item arrives; trio has no such."""
        for ticks in range(8):
            gate = asyncio.Event()
            got: list[str] = []

            async def source(gate: asyncio.Event = gate) -> AsyncGenerator[str, None]:
                await gate.wait()
                yield "a"
                yield "b"

            async def ask(stream: Any, got: list[str] = got) -> None:
                got.append(await anext(stream))

            async with wrap(source(), chain) as stream:
                asking = asyncio.create_task(ask(stream))
                await wait_all_blocked()
                gate.set()
                for _ in range(ticks):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait([asking])
                got += [item async for item in stream]
            assert got == ["a", "b"]


class TestOrder:
    @pytest.mark.parametrize("chain", [c for c in CHAINS if "cancellation" in c], ids="+".join)
    async def test_in_flight(self, chain: Chain) -> None:
        """B5: an item that nobody took yet comes before the last items of a cancelled source."""
        token = CancelToken()

        async def source() -> AsyncGenerator[str, None]:
            await anyio.sleep(5)
            token.cancel("stop")
            try:
                yield "in flight"
            except StreamCancelled:
                yield "last"
                yield "very last"

        async with wrap(source(), chain, token=token) as stream:
            with anyio.move_on_after(2):
                await anext(stream)
            await anyio.sleep(10)
            assert [item async for item in stream] == ["in flight", "last", "very last"]

    async def test_many_items(self) -> None:
        """B5: 10,000 items, delays, beats, asks that are cancelled: all arrive, once, in order."""
        chance = random.Random(5)
        number = 10_000
        cancelled = 0
        got: list[object] = []
        ended = False

        async def source() -> AsyncGenerator[int, None]:
            for item in range(number):
                match chance.randrange(64):
                    case 0:
                        await anyio.sleep(chance.randrange(1, 12))
                    case 1 | 2 | 3 | 4:
                        await anyio.lowlevel.checkpoint()
                yield item

        chain = ("cancellation", "keepalive", "status")
        async with wrap(source(), chain, interval=4) as stream:
            while not ended:
                with anyio.move_on_after(chance.choice([1, 3, 5, 7])) as scope:
                    async for item in stream:
                        got.append(item)
                    ended = True
                cancelled += scope.cancelled_caught
        beats = got.count("beat")
        got = [item for item in got if item != "beat"]
        assert got == list(range(number))
        assert stream.outcome.items == number
        assert stream.outcome.beats == beats
        assert beats > 50
        assert cancelled > 50


class TestItems:
    @any_chain
    async def test_any_object(self, chain: Chain) -> None:
        """B7: None, falsy items, exceptions, tuples: the same objects come out."""
        items = [
            None,
            0,
            False,
            "",
            (),
            (1, 2),
            (None, ValueError("an item")),
            [],
            ValueError("an item"),
            ValueError,
            StopAsyncIteration(),
            asyncio.CancelledError(),
            NotImplemented,
            ...,
            object(),
            "beat",
        ]
        async with wrap(aiter_of(*items), chain) as stream:
            got = [item async for item in stream]
        assert [id(item) for item in got] == [id(item) for item in items]
        assert stream.outcome.items == len(items)

    @any_chain
    async def test_empty(self, chain: Chain) -> None:
        """B7: a source without items is a stream without items."""
        probe = Probe[int]()
        async with wrap(probe.source(), chain) as stream:
            assert [item async for item in stream] == []
            assert probe.closed == 1
        assert stream.outcome.kind == "completed"
        assert stream.outcome.items == 0


async def test_closed_by_its_own_cancellation() -> None:
    """L9: a consumer is woken, then cancelled, and its stream closed for that: it is cancelled."""
    for ahead in (False, True):
        handoff = Handoff(get_backend(), read_ahead=0, in_a_row=1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def end(handoff: Handoff = handoff) -> None:
                    await wait_all_blocked()
                    handoff.wake_consumer()
                    scope.cancel()
                    handoff.close()

                tasks.start_soon(end)
                if ahead:
                    await handoff.wait_for_item(lambda: False, 10)
                else:
                    await handoff.receive()
        assert scope.cancelled_caught
