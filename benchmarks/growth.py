"""
B2: what grows with the chain and with the number of items. Nothing should.

The time is processor time of the thread, as in B1. Chains of different length take turns, and an
old stream takes turns with fresh ones.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import AsyncGenerator, Callable
from itertools import count as count_from, cycle, islice
from statistics import median
from typing import Any

from streamkit import CancelToken, Stream, with_cancellation, with_keepalive, with_status

from .backends import installed
from .report import Ratio, Result, Table, number
from .sources import SOURCES, Run

TITLE = "Growth"

LENGTHS = (1, 3, 16)

#: Microseconds per item, by the length of the chain or the kind of stream.
Costs = dict[Any, list[float]]

COMBINATORS: list[Callable[[Any], Stream[int]]] = [
    lambda source: with_cancellation(source, CancelToken()),
    lambda source: with_keepalive(source, 30, -1),
    with_status,
]


def chain(source: Any, length: int) -> Stream[int]:
    """Put this many combinators on a source."""
    for combinator in islice(cycle(COMBINATORS), length):
        source = combinator(source)
    assert isinstance(source, Stream)
    return source


def measure(*, quick: bool = False) -> Result:
    result = Result("B2", TITLE)
    length_rows: list[list[str]] = []
    age_rows: list[list[str]] = []
    for backend in installed():
        for source in SOURCES:
            costs = backend.run(measure_lengths, source, *((200, 5) if quick else (1_000, 51)))
            what = f"{backend.name}, {source}"
            length_rows.append([what, *(number(median(costs[length])) for length in LENGTHS)])
            longest = f"{what}: chain of {LENGTHS[-1]} / chain of {LENGTHS[0]}"
            result.ratios.append(Ratio.of(longest, costs[16], costs[1], 1.5, 1.2))
        ages = (1_000, 4_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
        measured = backend.run(measure_ages, ages, *((100, 5) if quick else (250, 31)))
        for age, (times, blocks) in measured.items():
            old, fresh = (number(median(times[kind])) for kind in ("old", "fresh"))
            age_rows.append([f"{backend.name}, after {age:,} items", old, fresh, f"{blocks:+,}"])
        oldest, (times, blocks) = ages[-1], measured[ages[-1]]
        what = f"{backend.name}: item after {oldest:,} items / item of a fresh stream"
        result.ratios.append(Ratio.of(what, times["old"], times["fresh"], 1.1))
        what = f"{backend.name}: blocks of memory kept per 1,000 items, of {oldest:,}"
        result.ratios.append(Ratio.once(what, blocks / oldest * 1000, 1))
    columns = ["µs per item, by length of the chain", *map(str, LENGTHS)]
    result.tables.append(Table("Longer chains", columns, length_rows))
    columns = ["a chain of 3, ready source", "µs per item", "fresh stream, µs", "blocks of memory"]
    result.tables.append(Table("Longer streams", columns, age_rows))
    return result


async def measure_lengths(source: str, count: int, rounds: int) -> Costs:
    costs: Costs = {length: [] for length in LENGTHS}
    for number_of_round in range(-1, rounds):
        for length in LENGTHS if number_of_round % 2 else LENGTHS[::-1]:
            run = Run(count)
            gc.collect()
            async with chain(SOURCES[source](run), length) as items:
                async for item in items:
                    run.take(item)
            run.check(f"a chain of {length}")
            # The first round is for warming up.
            if number_of_round >= 0:
                costs[length].append(run.cost)
    return costs


async def measure_ages(
    ages: tuple[int, ...], count: int, rounds: int
) -> dict[int, tuple[Costs, int]]:
    """
    Compare one long stream with fresh ones, at several ages.

    :return: for each age, the costs and how many blocks of memory there are more than at the first

    """
    measured: dict[int, tuple[Costs, int]] = {}
    first_blocks = None
    async with chain(count_up(), LENGTHS[1]) as old:
        taken = 0
        for age in ages:
            await take(old, taken, age - taken)
            taken = age
            gc.collect()
            blocks = sys.getallocatedblocks()
            first_blocks = blocks if first_blocks is None else first_blocks
            costs: Costs = {"old": [], "fresh": []}
            measured[age] = costs, blocks - first_blocks
            for _ in range(rounds):
                costs["old"].append(await take(old, taken, count))
                taken += count
                async with chain(count_up(), LENGTHS[1]) as fresh:
                    await take(fresh, 0, 10)
                    costs["fresh"].append(await take(fresh, 10, count))
    return measured


async def count_up() -> AsyncGenerator[int, None]:
    for item in count_from(0):
        yield item


async def take(items: Stream[int], first: int, count: int) -> float:
    """Take this many items, the first of which is known. Returns microseconds per item."""
    start = time.thread_time()
    for expected in range(first, first + count):
        item = await anext(items)
        if item != expected:
            raise RuntimeError(f"got {item} instead of {expected} from a long stream")
    return (time.thread_time() - start) / max(count, 1) * 1e6
