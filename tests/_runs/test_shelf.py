"""Readers: where they begin, and that nobody waits for anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from streamkit.runs import (
    CursorMismatch,
    Entry,
    MemoryLog,
    RunNotFound,
    Runs,
)
from streamkit.sse import RunEvents
from support import Client, Log, Probe, aiter_of, wait_all_blocked
from support.event_stream import parse
from support.runs import items_of
from support.unsteady import Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


# Where a reader begins


async def test_begins_anywhere() -> None:
    """At each position, by number and by cursor, while the run goes on and when it has ended."""
    async with Runs() as runs:
        info = await runs.start(Probe(*range(1, 6), every=1).source())
        for moment in 3.5, 10:
            await anyio.sleep(moment)
            known = (await runs.get(info.id)).last
            for after in range(known + 1):
                for cursor in after, str(after), f"{info.epoch}:{after}":
                    async with runs.attach(info.id, after=cursor) as stream:
                        entry = await anext(stream, None)
                        assert entry is None or entry.position == after + 1
                        assert (entry is None) == (after == 5)
            if moment == 10:
                assert await items_of(runs, info.id, after="now") == []


async def test_no_cursor_of_this_run() -> None:
    """A cursor of another run, or beyond the tail, or of an end that was not, is told."""
    async with Runs() as runs:
        info = await runs.start(Probe("a", every=1).source(), id="chat")
        for wait in 0, 5:
            await anyio.sleep(wait)
            for cursor in "0e:1", f"{info.epoch}:2", 7, f"{info.epoch}:0.end", "0e:1.end":
                with pytest.raises(CursorMismatch, match="the cursor does not fit"):
                    await items_of(runs, "chat", after=cursor)
        await items_of(runs, "chat", after=f"{info.epoch}:1.end")
        await runs.delete("chat")
        await runs.start(aiter_of("b", "c"), id="chat")
        with pytest.raises(CursorMismatch, match="it is of another run"):
            await items_of(runs, "chat", after=f"{info.epoch}:1")


async def test_never_two_incarnations() -> None:
    """A reader of a run whose id is used again never sees anything of the other one."""
    async with Runs() as runs:
        for steps in "expire", "delete":
            info = await runs.start(Probe(*range(500)).source(), id="chat", keep=1)
            await wait_all_blocked()
            seen: list[Entry[Any]] = []
            with pytest.raises((CursorMismatch, RunNotFound)):
                async with runs.attach("chat") as stream:
                    async for entry in stream:
                        seen.append(entry)
                        if len(seen) == 1:
                            if steps == "expire":
                                await anyio.sleep(100)
                            else:
                                await runs.delete("chat")
                            await runs.start(Probe(*range(1_000)).source(), id="chat")
                            await wait_all_blocked()
            assert {entry.epoch for entry in seen} == {info.epoch}
            assert len(seen) < 500
            await runs.delete("chat")


# Nobody waits for anybody


async def test_a_hot_source() -> None:
    """A source that never suspends, without a reader, freezes nothing."""
    ticks = 0

    async def source() -> AsyncGenerator[int, None]:
        while not done:
            yield 1

    async with Runs(max_items=100) as runs:
        done = False
        info = await runs.start(source())
        while (await runs.get(info.id)).last < 10_000:
            await anyio.lowlevel.checkpoint()
            ticks += 1
        done = True
        assert ticks >= 50
        assert await runs.cancel_and_wait(info.id) in {True, False}


async def test_a_slow_reader_slows_nobody() -> None:
    """B1: neither the run nor another reader waits for one that does not read, or reads slowly."""
    log = Log()
    async with Runs() as runs:
        log.start()
        info = await runs.start(Probe(*range(1_000), every=0.001).source())
        async with runs.attach(info.id) as stuck, runs.attach(info.id) as slow:
            assert (await anext(stuck)).item == 0
            assert (await anext(slow)).item == 0
            assert await items_of(runs, info.id) == list(range(1_000))
            log("read")
            last = 0
            async for entry in slow:
                last = entry.item
                await anyio.sleep(0.1)
            assert last == 999
            assert [entry.item async for entry in stuck] == list(range(1, 1_000))
    assert log == [(1, "read")]


async def test_read_ahead_is_bounded() -> None:
    """A reader that never reads holds 200 entries at most, however many there are."""
    async with Runs() as runs:
        info = await runs.start(aiter_of(*range(1_000)))
        async with runs.attach(info.id) as stream:
            assert (await anext(stream)).item == 0
            await wait_all_blocked()
            handoff: Any = stream._open_handoff
            assert 100 <= len(handoff._packets) < 200


async def test_what_comes_fast_comes_together() -> None:
    """While readers are woken, the source goes on: to wake them again for each item would cost."""

    async def fast() -> AsyncGenerator[int, None]:
        await anyio.sleep(1)
        for item in range(200):
            await anyio.lowlevel.checkpoint()
            yield item

    async with Runs() as runs, anyio.create_task_group() as tasks:
        info = await runs.start(fast())
        clients = [Client() for _ in range(3)]
        for client in clients:
            tasks.start_soon(client.get, RunEvents(runs, info.id))
        assert await items_of(runs, info.id) == list(range(200))
    for client in clients:
        first, *messages, end = client.log.events
        assert (first, end) == (200, "end")
        events = parse(*(str(message).encode() for message in messages)).events
        assert [event.data for event in events[:-1]] == list(map(str, range(200)))
        assert len(messages) < 60


async def test_what_comes_slowly_costs_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is no faster than its readers is written as it comes, and nobody waits."""
    turns = 0

    async def checkpoint() -> None:
        nonlocal turns
        turns += 1
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("streamkit._runs.kept.checkpoint", checkpoint)
    async with Runs() as runs:
        slow = await runs.start(Probe(*range(20), every=0.05).source())
        assert await items_of(runs, slow.id) == list(range(20))
        assert turns == 0
        fast = await runs.start(Probe(*range(20), every=0.0001).source())
        assert await items_of(runs, fast.id) == list(range(20))
        assert turns > 0


# Who waits for the end


async def test_another_run_instead_of_the_one_that_was_told() -> None:
    """Who waits for the end of a run does not wait for a later one of the same id."""
    log = MemoryLog()
    way = Way(log)
    ended: list[bool] = []

    async def wait() -> None:
        ended.append(await elsewhere.cancel_and_wait("chat"))

    async with Runs(log) as runs, Runs(way) as elsewhere:
        await runs.start(Probe(block=True).source(), id="chat")
        way.cut("get")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await wait_all_blocked()
            await runs.delete("chat")
            await runs.start(Probe(block=True).source(), id="chat")
            way.mend()
            await wait_all_blocked()
            tasks.cancel_scope.cancel()
        assert ended == [True]
        assert not (await runs.get("chat")).cancel_requested
