"""
B7: what a run costs in one process: from its source to its log, and from there to its readers.

*From source to log* is the time until the end of a run can be read, per item, less that of a bare
loop over the same source. Beside it is what it costs to hand the items over to another task: the
floor of B1, and a stream without a combinator.

*To readers* is the time from the first item of a run to the last one that the last of its readers
has taken, per reader and item, less what the run alone takes. Beside it is an ``EventStream`` for
as many items, from its source to ``send``, as B5 measures it: what each reader would have cost if
it had a source of its own. A reader is attached, or a ``RunEvents`` from the run to ``send``. A run
that is read is written in larger pieces, which may save more than its only reader costs.

Both sources are as fast as they can be. With an item *every 20 ms*, each reader is woken for each
item, and beside them are as many ``EventStream`` with a slow source each.

*Replay* reads a run that has ended, and beside it the same items come from a generator, through a
buffer of the same size. *Memory* is what a run of many short items holds for each.

The clock and the rounds are those of B1.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import AsyncGenerator
from functools import partial
from statistics import median
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from streamkit import with_buffer
from streamkit.runs import MemoryLog, Runs

from .backends import installed
from .peers import BARE, FLOOR, NO_COMBINATOR, peers_on
from .report import Ratio, Result, Table, number
from .responses import (
    SUBJECT as EVENT_STREAM,
)
from .rounds import Costs, in_turns
from .run_readers import READERS, measure_readers, measure_slow
from .run_sources import EVERY, SOURCES, Taken, ready, run_to_its_end

TITLE = "Runs in one process"

RUN = "run, source to MemoryLog"
REPLAY = "replay, attach"
BUFFERED = "generator, buffer of 64"


# From source to log


async def measure_log(backend: str, source: str, count: int, rounds: int) -> Costs:
    """Measure a run, and what else takes the same items to another task."""
    peers = peers_on(backend)
    async with Runs(MemoryLog(), keep=0) as runs:

        async def measure_one(name: str) -> float:
            gc.collect()
            start = time.thread_time()
            if name == RUN:
                await run_to_its_end(runs, SOURCES[source](count), count)
            else:
                taken = Taken(count)
                hand_over: Any = peers[name]
                await hand_over(partial(SOURCES[source], count), taken.take)
                cost = time.thread_time() - start
                taken.check(name)
                return cost / count * 1e6
            return (time.thread_time() - start) / count * 1e6

        return await in_turns([BARE, FLOOR, NO_COMBINATOR, RUN], rounds, measure_one)


# What has ended


async def measure_replay(count: int, rounds: int) -> Costs:
    """Measure how long it takes to read what is kept."""
    async with Runs(MemoryLog(), max_items=count) as runs:
        info = await runs.start(ready(count))
        while (await runs.get(info.id)).state == "running":
            await checkpoint()

        async def measure_one(name: str) -> float:
            gc.collect()
            taken = Taken(count)
            start = time.thread_time()
            if name == REPLAY:
                async with runs.attach(info.id) as entries:
                    async for entry in entries:
                        taken.take(entry.item)
            else:
                async with with_buffer(ready(count), 64) as items:
                    async for item in items:
                        taken.take(item)
            cost = time.thread_time() - start
            taken.check(name)
            return cost / count * 1e6

        return await in_turns([BUFFERED, REPLAY], rounds, measure_one)


async def weigh_entry(count: int) -> float:
    """Return the bytes that an entry holds, besides its own."""
    async with Runs(MemoryLog(), max_items=count) as runs:
        blocked = anyio.Event()

        async def source() -> AsyncGenerator[str, None]:
            async for item in ready(count):
                yield item
            await blocked.wait()

        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        info = await runs.start(source())
        while (await runs.get(info.id)).last < count:
            await checkpoint()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        blocked.set()
    own = sum(len(f"token {item}") for item in range(count))
    return (held - own) / count


def measure(*, quick: bool = False) -> Result:
    count, rounds = (100, 5) if quick else (2_000, 21)
    result = Result("B7", TITLE)
    for backend in installed():
        rows: list[list[str]] = []
        for source in SOURCES:
            costs = backend.run(measure_log, backend.name, source, count, rounds)
            _add_log(result, rows, f"{backend.name}, {source}", costs)
        for source in SOURCES:
            for readers in (1, 10) if quick else (1, 100, 1_000):
                items = 20 if quick else 500 if readers == 1 else 100
                few = 5 if quick or readers == 1_000 else rounds
                costs = backend.run(measure_readers, source, readers, items, few)
                what = f"{backend.name}, {source}, {readers:,} readers"
                what = what if readers > 1 else f"{backend.name}, {source}, 1 reader"
                rows += [[f"{what}: {name}", number(median(costs[name]))] for name in costs]
                for reader in READERS:
                    by = f"{what}: {reader} / {EVENT_STREAM}"
                    result.ratios.append(Ratio.of(by, costs[reader], costs[EVENT_STREAM], 0.5))
        readers, items = (10, 5) if quick else (100, 40)
        costs = backend.run(measure_slow, readers, items, 5)
        what = f"{backend.name}, an item every {EVERY * 1000:.0f} ms, {readers} readers"
        rows += [[f"{what}: {name}", number(median(costs[name]))] for name in costs]
        for reader in READERS:
            by = f"{what}: {reader} / {EVENT_STREAM}"
            result.ratios.append(Ratio.of(by, costs[reader], costs[EVENT_STREAM]))
        costs = backend.run(measure_replay, 1_000 if quick else 10_000, rounds)
        peers = (REPLAY, BUFFERED)
        rows += [[f"{backend.name}: {name}", number(median(costs[name]))] for name in peers]
        what = f"{backend.name}: µs per entry of a replay"
        result.ratios.append(Ratio.of(what, costs[REPLAY], [1.0] * len(costs[REPLAY]), 1))
        what = f"{backend.name}: replay / {BUFFERED}"
        result.ratios.append(Ratio.of(what, costs[REPLAY], costs[BUFFERED]))
        weight = backend.run(weigh_entry, 1_000 if quick else 10_000)
        what = f"{backend.name}: bytes per entry, beside its own"
        result.ratios.append(Ratio.once(what, weight, 200))
        result.tables.append(Table(backend.name, ["µs per item", ""], rows))
    return result


def _add_log(result: Result, rows: list[list[str]], what: str, measured: Costs) -> None:
    overhead = {
        name: [cost - bare for cost, bare in zip(measured[name], measured[BARE], strict=True)]
        for name in (FLOOR, NO_COMBINATOR, RUN)
    }
    rows += [[f"{what}: {name}", number(median(costs))] for name, costs in overhead.items()]
    result.ratios.append(Ratio.of(f"{what}: {RUN} / {FLOOR}", overhead[RUN], overhead[FLOOR]))
    # One hand-off, as it is between a source and its consumer.
    by = f"{what}: {RUN} / {NO_COMBINATOR}"
    result.ratios.append(Ratio.of(by, overhead[RUN], overhead[NO_COMBINATOR], 1))
