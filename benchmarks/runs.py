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

*Replay* reads a run that has ended, and beside it the same items come from a generator, through a
buffer of the same size. *Memory* is what a run of many short items holds for each.

The clock and the rounds are those of B1.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from statistics import median
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from streamkit import with_buffer
from streamkit.runs import MemoryLog, Runs
from streamkit.sse import RunEvents

from .backends import installed
from .peers import BARE, FLOOR, NO_COMBINATOR, peers_on
from .report import Ratio, Result, Table, number
from .responses import (
    SOURCES as TEXT_SOURCES,
    SUBJECT as EVENT_STREAM,
    Run as Response,
    event_stream,
    request,
)
from .rounds import Costs, in_turns

TITLE = "Runs in one process"

RUN = "run, source to MemoryLog"
ATTACHED = "attached reader"
RESPONSE = "RunEvents"
REPLAY = "replay, attach"
BUFFERED = "generator, buffer of 64"


async def ready(count: int) -> AsyncGenerator[str, None]:
    """Yield what is there already: never suspends."""
    for item in range(count):
        yield f"token {item}"


async def suspending(count: int) -> AsyncGenerator[str, None]:
    """Let the event loop run before each item, as what reads from a socket does."""
    for item in range(count):
        await anyio.sleep(0)  # noqa: ASYNC115  (what users write)
        yield f"token {item}"


SOURCES: dict[str, Callable[[int], AsyncGenerator[str, None]]] = {
    "ready": ready,
    "suspending": suspending,
}


class Taken:
    """What was taken: all of it, in order, or the measurement is refused."""

    def __init__(self, count: int) -> None:
        self._wanted = [f"token {item}" for item in range(count)]
        self._items: list[Any] = []
        self.take: Callable[[Any], None] = self._items.append

    def check(self, what: str) -> None:
        if self._items != self._wanted:
            raise RuntimeError(f"{what} lost, repeated or reordered items")


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


# To its readers


class Audience:
    """Those who read one run: who is there, and when the last of them had the last item."""

    def __init__(self, readers: int) -> None:
        self._coming = self._taking = readers
        self.ended_at = 0.0

    @property
    def is_complete(self) -> bool:
        return not self._coming

    def come(self) -> None:
        self._coming -= 1

    def has_all(self) -> None:
        self._taking -= 1
        if not self._taking:
            self.ended_at = time.thread_time()


#: Reads a run of so many items to its end.
Reader = Callable[[Runs, str, int, Audience], Coroutine[Any, Any, None]]


async def attach(runs: Runs, run_id: str, count: int, audience: Audience) -> None:
    """Read a run as a stream."""
    taken = Taken(count)
    async with runs.attach(run_id) as stream:
        audience.come()
        async for entry in stream:
            taken.take(entry.item)
            if entry.position == count:
                audience.has_all()
    taken.check(ATTACHED)


async def answer(runs: Runs, run_id: str, count: int, audience: Audience) -> None:
    """Read a run as a response does."""
    info = await runs.get(run_id)
    events = [
        f"data: token {item}\nid: {info.epoch}:{item + 1}\n\n".encode() for item in range(count)
    ]
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if body := message.get("body"):
            sent.append(body)
            if body.endswith(events[-1]):
                audience.has_all()

    response = RunEvents(runs, run_id, final=lambda outcome: None)
    audience.come()
    await request(response, send)
    if b"".join(sent) != b"".join(events):
        raise RuntimeError("a response did not send what the run has yielded")


READERS: dict[str, Reader] = {ATTACHED: attach, RESPONSE: answer}


async def measure_readers(source: str, readers: int, count: int, rounds: int) -> Costs:
    """Measure one run with many readers, and one response."""
    async with Runs(MemoryLog(), keep=0) as runs:

        async def measure_one(name: str) -> float:
            if name == EVENT_STREAM:
                return await measure_response(source, count)
            return await measure_one_run(runs, source, READERS[name], readers, count)

        return await in_turns([EVENT_STREAM, *READERS], rounds, measure_one)


async def measure_one_run(
    runs: Runs, source: str, reader: Reader, readers: int, count: int
) -> float:
    """Return microseconds per reader and item, less those of the run alone."""
    alone = time.thread_time()
    await run_to_its_end(runs, SOURCES[source](count), count)
    alone = time.thread_time() - alone

    go = anyio.Event()
    audience = Audience(readers)

    async def started() -> AsyncGenerator[str, None]:
        await go.wait()
        async for item in SOURCES[source](count):
            yield item

    info = await runs.start(started())
    async with anyio.create_task_group() as tasks:
        for _ in range(readers):
            tasks.start_soon(reader, runs, info.id, count, audience)
        while not audience.is_complete or runs.stats().readers < readers:
            await checkpoint()
        gc.collect()
        start = time.thread_time()
        go.set()
    return (audience.ended_at - start - alone) / readers / count * 1e6


async def measure_response(source: str, count: int) -> float:
    """Return microseconds per item of one response, as B5 does."""
    run = Response(count)
    app = event_stream(partial(TEXT_SOURCES[source], run))
    gc.collect()
    await request(app, run.send)
    run.check(EVENT_STREAM)
    return run.cost


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
    """Return the bytes that an entry holds, beside its own."""
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
