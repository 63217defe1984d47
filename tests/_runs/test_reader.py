"""A reader in a moment that no run of its own would bring about."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamkit._runs.codec import encode
from streamkit.runs import (
    MemoryLog,
    Requests,
    RunCancelled,
    Runs,
    RunsClosed,
    Terms,
    UnknownVersion,
)
from streamkit.sse import RunEvents
from support import Client, Probe, wait_all_blocked
from support.runs import items_of
from support.unsteady import Way


@pytest.fixture
def no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no reader run between what is written and what the test does next."""
    monkeypatch.setattr("streamkit._runs.kept._TURNS", 0)


@pytest.mark.usefixtures("no_turns")
async def test_sent_away_with_an_entry() -> None:
    """What it was woken for just before is read, though the run goes on elsewhere."""
    log = MemoryLog()
    way = Way(log)
    seen: list[Any] = []

    def ignore(requests: Requests) -> None:
        pass

    async def append(position: int) -> None:
        item = encode(position)
        await log.append("chat", "0e", position, [item], acknowledged=position - 1, first=1)

    async def read(runs: Runs) -> None:
        with pytest.raises(RunsClosed):
            async with runs.attach("chat") as stream:
                async for entry in stream:
                    seen.append(entry.item)

    async with Runs(way) as runs, anyio.create_task_group() as tasks:
        await log.create("chat", "0e", Terms(), ignore)
        await append(1)
        tasks.start_soon(read, runs)
        await wait_all_blocked()
        way.takes = 0.1
        # None of this suspends: the reader is woken, and sent away before it runs.
        await append(2)
        for seat in runs._attendance._seats:
            seat.close()
    assert seen == [1, 2]


@pytest.mark.usefixtures("no_turns")
async def test_sent_away_from_what_is_gone() -> None:
    """Two runs of one id are never in one stream, and nothing is skipped, in that moment, too."""

    def ignore(requests: Requests) -> None:
        pass

    async def read(runs: Runs, run_id: str) -> None:
        with pytest.raises(RunsClosed):
            async with runs.attach(run_id) as stream:
                async for entry in stream:
                    seen.append((run_id, entry.position))

    log = MemoryLog()
    way = Way(log)
    seen: list[tuple[str, int]] = []
    async with Runs(way) as runs, anyio.create_task_group() as tasks:
        for run_id in "again", "trimmed":
            await log.create(run_id, "0e", Terms(), ignore)
            entries = [encode("a")]
            await log.append(run_id, "0e", 1, entries, acknowledged=0, first=1)
            tasks.start_soon(read, runs, run_id)
        await wait_all_blocked()
        way.takes = 0.1
        await log.end("again", "0e", b"{}")
        await log.delete("again", "0e")
        await log.create("again", "0f", Terms(), ignore)
        entries = [encode("b")] * 300
        await log.append("again", "0f", 1, entries, acknowledged=0, first=1)
        await log.append("trimmed", "0e", 2, entries, acknowledged=1, first=300)
        for seat in runs._attendance._seats:
            seat.close()
    assert sorted(seen) == [("again", 1), ("trimmed", 1)]


@pytest.mark.parametrize("keeps_pace", [False, True])
async def test_an_entry_of_a_later_release(keeps_pace: bool) -> None:
    """It is an error for who comes to it, after all that comes before it, and for nobody else."""
    log = MemoryLog()
    way = Way(log)
    entries = [encode(number) for number in range(1, 7)]
    entries[3] = bytes([2, *entries[3][1:]])

    def ignore(requests: Requests) -> None:
        pass

    async def write() -> None:
        for position in range(1, 7) if keeps_pace else ():
            await anyio.sleep(1)
            entry = entries[position - 1]
            await log.append("chat", "0e", position, [entry], acknowledged=0, first=1)

    async with Runs(way) as runs, anyio.create_task_group() as tasks:
        await log.create("chat", "0e", Terms(), ignore)
        if not keeps_pace:
            await log.append("chat", "0e", 1, entries, acknowledged=0, first=1)
        tasks.start_soon(write)
        seen: list[Any] = []
        with pytest.raises(UnknownVersion):
            async with runs.attach("chat") as stream:
                async for entry in stream:
                    seen.append(entry.item)
        assert seen == [1, 2, 3]
        client = Client()
        with pytest.raises(UnknownVersion):
            await client.get(RunEvents(runs, "chat", errors="status"))
        assert "".join(client.log.events[1:]).count("id: 0e:") == 3
        async with runs.attach("chat", after=4) as stream:
            assert [(await anext(stream)).item for _ in range(2)] == [5, 6]


@pytest.mark.parametrize("passes", range(14))
async def test_a_reader_is_cancelled(passes: int) -> None:
    """A reader, or a response, that is cancelled at any await leaves nothing, and hurts nobody."""
    log = MemoryLog()
    async with Runs(log) as runs:
        info = await runs.start(Probe("a", "b", "c", every=1).source())
        kept = log._runs[info.id]
        other: list[Any] = []

        async def attach() -> None:
            async with runs.attach(info.id) as stream:
                async for _ in stream:
                    pass

        async def respond() -> None:
            await Client().get(RunEvents(runs, info.id))

        async def read_all() -> None:
            other.extend(await items_of(runs, info.id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_all)
            await wait_all_blocked()
            for read in attach, respond:
                for at in 0.0, 1.0:
                    async with anyio.create_task_group() as cancelled:
                        cancelled.start_soon(read)
                        await anyio.sleep(at)
                        for _ in range(passes):
                            await anyio.lowlevel.checkpoint()
                        cancelled.cancel_scope.cancel()
                    assert runs.stats().readers == 1
                    assert kept.watches == 1
        assert other == ["a", "b", "c"]
        assert (runs.stats().readers, kept.watches) == (0, 0)


@pytest.mark.parametrize("passes", range(8))
async def test_a_wait_for_the_end_is_cancelled(passes: int) -> None:
    """Who asks a run to stop, and does not wait for it, has asked it."""
    log = MemoryLog()
    async with Runs(log) as runs:
        info = await runs.start(Probe("a", every=1).source())
        kept = log._runs[info.id]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runs.cancel_and_wait, info.id, "enough")
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert kept.watches == 0
        if passes:
            with pytest.raises(RunCancelled):
                await items_of(runs, info.id)
