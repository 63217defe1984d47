"""
B3: what an open stream costs that nothing comes from: memory, tasks, set-up and tear-down.

Each stream is held by a task of its own, as it is by a server's request. *Asked* is what counts:
the stream is entered, its source has been asked for an item and blocks, and the holder waits.
*Entered* is the same before the first ask. Beside them is the least that has as many tasks: an
empty anyio task group with two tasks that sleep. Each holder is cancelled by a scope of its own.

Time is processor time of the thread, from the first holder's start to the last one's end. Memory is
what ``tracemalloc`` sees, in a pass of its own, and without that of the holders.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from statistics import median

import anyio

from .backends import installed
from .chain import chain_of_three
from .report import Ratio, Result, Table, number
from .settling import Countdown, settle

TITLE = "Many streams"

ASKED = "asked"
ENTERED = "entered"
TASK_GROUP = "task group"
HOLDER = "holder alone"

# A slow machine takes its time to open all of them.
LONG_SILENCE = 3_600


Shape = Callable[[Countdown], Awaitable[None]]


async def hold_asked(opened: Countdown) -> None:
    async def source() -> AsyncGenerator[int, None]:
        opened.arrive()
        await anyio.sleep_forever()
        yield 0

    async with chain_of_three(source(), silence=LONG_SILENCE) as items:
        async for _ in items:
            raise AssertionError("nothing was sent")


async def hold_entered(opened: Countdown) -> None:
    async def source() -> AsyncGenerator[int, None]:
        raise AssertionError("nobody asked")
        yield 0

    async with chain_of_three(source(), silence=LONG_SILENCE):
        opened.arrive()
        await anyio.sleep_forever()


async def hold_task_group(opened: Countdown) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.start_soon(anyio.sleep_forever)
        opened.arrive()
        await anyio.sleep_forever()


async def hold_nothing(opened: Countdown) -> None:
    opened.arrive()
    await anyio.sleep_forever()


SHAPES: dict[str, Shape] = {
    ASKED: hold_asked,
    ENTERED: hold_entered,
    TASK_GROUP: hold_task_group,
    HOLDER: hold_nothing,
}


async def open_and_close(
    shape: Shape, count: int, while_open: Callable[[], object] | None = None
) -> None:
    """Open this many holders at once, and then cancel each."""
    opened = Countdown(count)
    scopes: list[anyio.CancelScope] = []

    async def hold() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await shape(opened)

    async with anyio.create_task_group() as holders:
        for _ in range(count):
            holders.start_soon(hold)
        await opened.wait()
        await settle()
        if while_open is not None:
            while_open()
        for scope in scopes:
            scope.cancel()


@dataclass
class Weight:
    heap: float
    tasks: float


#: By number of streams and shape.
Weights = dict[int, dict[str, Weight]]

#: Microseconds per stream, by shape, number of streams and round.
Times = dict[str, dict[int, list[float]]]


async def weigh(shape: Shape, count: int) -> Weight:
    """Count bytes and tasks of this many open ones."""
    weight = Weight(0, 0)

    def look() -> None:
        gc.collect()
        weight.heap = tracemalloc.get_traced_memory()[0]
        weight.tasks = len(anyio.get_running_tasks())

    # Without collections meanwhile, which take most of the time where all memory is traced.
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        await open_and_close(shape, count, look)
    finally:
        tracemalloc.stop()
        gc.enable()
    return weight


async def weigh_all(count: int) -> dict[str, Weight]:
    """Return bytes and tasks of each shape, per stream and without its holder."""
    weights = {}
    for name, shape in SHAPES.items():
        # What the first one loads or caches is not weighed.
        await open_and_close(shape, 1)
        weights[name] = await weigh(shape, count)
    holder = weights.pop(HOLDER)
    return {
        name: Weight((weight.heap - holder.heap) / count, (weight.tasks - holder.tasks) / count)
        for name, weight in weights.items()
    }


async def time_all(counts: tuple[int, ...], rounds: int, at_least: int) -> Times:
    """
    Time set-up with tear-down, in turns.

    :param at_least: how many streams to open for one number, a few at a time
    """
    timed = [ASKED, TASK_GROUP, ENTERED]
    times: Times = {name: {count: [] for count in counts} for name in timed}
    for number_of_round in range(rounds):
        for count in counts:
            repeats = max(at_least // count, 1)
            # It takes long, and what is entered is never far from what is asked.
            names = timed[:2] if count > 1_000 else timed
            for name in names[:: -1 if number_of_round % 2 else 1]:
                gc.collect()
                start = time.thread_time()
                for _ in range(repeats):
                    await open_and_close(SHAPES[name], count)
                taken = time.thread_time() - start
                times[name][count].append(taken / count / repeats * 1e6)
    return times


def measure(*, quick: bool = False) -> Result:
    counts = (1, 10, 50) if quick else (1, 100, 1_000, 10_000)
    result = Result("B3", TITLE)
    for backend in installed():
        weights = {count: backend.run(weigh_all, count) for count in counts}
        times = backend.run(time_all, counts, 5, 50 if quick else 1_000)
        result.tables.append(_table(f"{backend.name}, per stream", weights, times))
        result.ratios += _ratios(backend.name, weights, times)
        result.data[backend.name] = {
            "counts": counts,
            "heap": {n: [weights[c][n].heap for c in counts] for n in (ASKED, TASK_GROUP)},
            "time": {n: [median(times[n][c]) for c in counts] for n in (ASKED, TASK_GROUP)},
        }
    return result


def _table(title: str, weights: Weights, times: Times) -> Table:
    shapes = (ASKED, ENTERED, TASK_GROUP)
    columns = [
        "open streams",
        *(f"KiB, {shape}" for shape in shapes),
        *(f"µs, {shape}" for shape in shapes),
        "tasks",
    ]
    rows = [
        [
            f"{count:,}",
            *(number(of[shape].heap / 1024) for shape in shapes),
            *(
                number(median(times[shape][count])) if times[shape][count] else ""
                for shape in shapes
            ),
            f"{of[ASKED].tasks:g}",
        ]
        for count, of in weights.items()
    ]
    return Table(title, columns, rows)


def _ratios(name: str, weights: Weights, times: Times) -> list[Ratio]:
    counts = list(weights)
    few, most = counts[1], counts[-1]
    asked, entered, group = times[ASKED], times[ENTERED], times[TASK_GROUP]
    set_up = "set-up and tear-down"
    ratios = [
        Ratio.once(f"{name}: KiB per stream", weights[most][ASKED].heap / 1024, 16, 8),
        Ratio.once(f"{name}: tasks per stream", weights[most][ASKED].tasks, 2),
    ]
    for count in counts:
        what = f"{name}, {count:,}: {set_up}, asked / task group"
        ratios.append(Ratio.of(what, asked[count], group[count], 1.5))
    # Many tasks cost more than few, by themselves: it is flat if it grows no more than that.
    growth = [many / one for many, one in zip(asked[most], asked[few], strict=True)]
    of_group = [many / one for many, one in zip(group[most], group[few], strict=True)]
    by_number = f"{name}: {most:,} by {few:,}"
    return [
        *ratios,
        Ratio.of(f"{by_number}, asked / the same of task groups", growth, of_group, 1.2),
        Ratio.of(f"{by_number}, asked", asked[most], asked[few]),
        Ratio.of(f"{by_number}, task group", group[most], group[few]),
        Ratio.of(f"{name}, {few:,}: {set_up}, entered / task group", entered[few], group[few]),
    ]
