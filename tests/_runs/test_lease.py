"""A run that is cancelled when nobody reads it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel

from streamkit._runs.log import DOUBT
from streamkit.runs import (
    MemoryLog,
    Requests,
    RunCancelled,
    RunEnded,
    Runs,
    Unwatched,
)
from support import Log, Probe
from support.runs import end_of


async def test_unwatched() -> None:
    """A run that nobody reads any more is told, from when the last reader has gone."""
    log = Log()
    probe = Probe(*range(1_000), every=0.5)
    async with Runs(unwatched=10) as runs:
        info = await runs.start(probe.source())
        async with runs.attach(info.id) as first:
            await anext(first)
            async with runs.attach(info.id) as second:
                await anext(second)
            # Between two times at which it would say that it is there.
            await anyio.sleep(30.2)
            assert (await runs.get(info.id)).state == "running"
        log.start()
        _, end = await end_of_unwatched(runs, info.id)
        log("ended")
        assert isinstance(end, RunCancelled)
        assert end.reason == Unwatched()
    assert log == [(10, "ended")]


async def end_of_unwatched(runs: Runs, run_id: str) -> tuple[list[Any], RunEnded]:
    """Wait for the end without reading, which would keep it."""
    async with runs._log.watch(run_id) as watch:
        while (await runs.get(run_id)).outcome is None:
            await watch.wait()
    return await end_of(runs, run_id)


async def test_unwatched_from_the_start() -> None:
    """The clock begins with the start, and runs that are to go on do."""
    async with Runs() as runs:
        forever = await runs.start(Probe(block=True).source())
        alone = await runs.start(Probe(block=True).source(), unwatched=5)
        await anyio.sleep(4.9)
        assert (await runs.get(alone.id)).state == "running"
        await anyio.sleep(0.2)
        assert (await runs.get(alone.id)).state == "ended"
        await anyio.sleep(1_000)
        assert (await runs.get(forever.id)).state == "running"
    async with Runs(unwatched=5) as runs:
        forever = await runs.start(Probe(block=True).source(), unwatched=math.inf)
        await anyio.sleep(1_000)
        assert (await runs.get(forever.id)).state == "running"


async def test_read_elsewhere() -> None:
    """A reader in another process keeps a run, too."""
    log = MemoryLog()
    async with Runs(log, unwatched=5) as here, Runs(log) as elsewhere:
        info = await here.start(Probe(block=True).source())
        async with elsewhere.attach(info.id) as stream:
            with anyio.move_on_after(60):
                await anext(stream)
            assert (await here.get(info.id)).state == "running"
        await anyio.sleep(6)
        assert (await here.get(info.id)).state == "ended"


class NotedLog(MemoryLog):
    """Notes when it hears of a producer."""

    def __init__(self, *, lease: float) -> None:
        super().__init__(lease=lease)
        self.heard: list[float] = []

    async def renew(self, run_id: str, epoch: str, *, acknowledged: int = 0) -> Requests:
        self.heard.append(anyio.current_time())
        return await super().renew(run_id, epoch, acknowledged=acknowledged)


async def test_signs_of_life() -> None:
    """However long the lease, a producer is heard of between the two looks that bury a run."""
    log = NotedLog(lease=600)
    async with Runs(log) as runs:
        await runs.start(Probe(block=True).source())
        await anyio.sleep(60)
        assert max(after - before for before, after in pairwise(log.heard)) <= DOUBT / 2
        assert log.heard[-1] >= anyio.current_time() - DOUBT / 2
