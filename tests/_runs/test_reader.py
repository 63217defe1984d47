"""A reader in a moment that no run of its own would bring about."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from streamkit._runs.codec import encode
from streamkit.runs import MemoryLog, Requests, Runs, RunsClosed, Terms
from support import wait_all_blocked
from support.unsteady import Way


@pytest.fixture
def no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no reader run between what is written and what the test does next."""
    monkeypatch.setattr("streamkit._runs.kept._MOST_TURNS", 0)


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
