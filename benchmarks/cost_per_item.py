"""
B1: what each item costs, compared with the bare loop, the floor, and what people use today.

A cost is processor time of the one thread that does all the work: nothing here waits for anything
but the other task, and what else runs on the machine is not counted. It is taken from the first
step of the source to the last item in the consumer: set-up and tear-down are measured elsewhere.
The overhead of a peer is its time per item less that of the bare loop over the same source.

The speed of a processor changes from one tenth of a second to the next. So there are many short
rounds. In each, every peer is measured once, in an order that moves on from round to round. A ratio
is taken within a round, between two things that were measured next to each other, and the median of
the rounds is what counts.
"""

from __future__ import annotations

import gc
from functools import partial
from statistics import median

from .backends import Backend, installed
from .peers import (
    AIOSTREAM,
    BARE,
    BUFFERED,
    BUFFERED_FLOOR,
    FLOOR,
    HAND_OFF,
    MEMORY_STREAM,
    NO_COMBINATOR,
    QUEUE,
    SAFE_CHANNEL,
    SUBJECT,
    Peer,
    peers_on,
)
from .report import Ratio, Result, Table, number
from .rounds import Costs, in_turns
from .sources import SOURCES, Run

TITLE = "Cost per item"

# Anything that is compared with a target is measured side by side.
ORDER = [
    BARE,
    FLOOR,
    HAND_OFF,
    NO_COMBINATOR,
    SUBJECT,
    QUEUE,
    SAFE_CHANNEL,
    BUFFERED,
    BUFFERED_FLOOR,
    MEMORY_STREAM,
    AIOSTREAM,
]


def measure(*, quick: bool = False) -> Result:
    count, rounds = (200, 5) if quick else (4_000, 31)
    result = Result("B1", TITLE)
    for backend in installed():
        costs = {
            source: backend.run(measure_all, backend.name, source, count, rounds)
            for source in SOURCES
        }
        result.tables.append(_table(backend.name, costs))
        for source in SOURCES:
            result.ratios += _ratios(backend, source, costs[source])
            result.data[f"{backend.name}, {source}"] = {
                peer: median(overheads) for peer, overheads in _overheads(costs[source]).items()
            }
    return result


async def measure_all(backend: str, source: str, count: int, rounds: int) -> Costs:
    """Measure every peer in every round, in the running event loop."""
    peers = peers_on(backend)

    async def measure_one(name: str) -> float:
        return await _measure_one(name, peers[name], source, count)

    return await in_turns([name for name in ORDER if name in peers], rounds, measure_one)


async def _measure_one(name: str, peer: Peer, source: str, count: int) -> float:
    run = Run(count)
    # The collector stays on, as it is in programs. None pays for what another one has left.
    gc.collect()
    await peer(partial(SOURCES[source], run), run.take)
    run.check(f"{name!r}, with the {source} source,")
    return run.cost


def _overheads(costs: Costs) -> Costs:
    return {
        peer: [cost - bare for cost, bare in zip(costs[peer], costs[BARE], strict=True)]
        for peer in costs
        if peer != BARE
    }


def _table(title: str, costs_of: dict[str, Costs]) -> Table:
    columns = ["µs per item"]
    rows = [[peer] for peer in next(iter(costs_of.values()))]
    for source, costs in costs_of.items():
        columns += [source, "overhead", "/ floor"]
        overheads = _overheads(costs)
        for row in rows:
            peer = row[0]
            row.append(number(median(costs[peer])))
            if peer == BARE:
                row += ["", ""]
                continue
            floor = BUFFERED_FLOOR if peer in (BUFFERED, BUFFERED_FLOOR) else FLOOR
            by_floor = Ratio.of("", overheads[peer], overheads[floor]).value
            row += [number(median(overheads[peer])), number(by_floor)]
    return Table(title, columns, rows)


#: The requirement, and the aim.
_OF_FLOOR = {
    ("asyncio", "ready"): (1.1, 0.9),
    ("asyncio", "suspending"): (1.3, 1.1),
    ("uvloop", "ready"): (1.3, 1.1),
    ("uvloop", "suspending"): (1.6, 1.3),
    ("trio", "ready"): (1.35, 1.15),
    ("trio", "suspending"): (1.65, 1.3),
}
_BUFFERED_OF_QUEUE = {
    ("asyncio", "ready"): (0.09, 0.05),
    ("asyncio", "suspending"): (0.2, 0.15),
    ("uvloop", "ready"): (0.09, 0.05),
    ("uvloop", "suspending"): (0.25, 0.18),
}


def _ratios(backend: Backend, source: str, costs: Costs) -> list[Ratio]:
    overheads = _overheads(costs)

    def by(other: str, subject: str, must: float | None = None, aim: float | None = None) -> Ratio:
        what = f"{backend.name}, {source}: {subject} / {other}"
        return Ratio.of(what, overheads[subject], overheads[other], must, aim)

    ratios = [by(FLOOR, SUBJECT, *_OF_FLOOR[backend.name, source])]
    # What a ratio by another peer would be for something that costs no more than the floor.
    if backend.name == "trio":
        return [*ratios, by(SAFE_CHANNEL, SUBJECT, 0.8, 0.7), by(SAFE_CHANNEL, FLOOR)]
    ratios += [by(QUEUE, SUBJECT, 0.5, 0.35), by(QUEUE, FLOOR)]
    ratios.append(by(QUEUE, BUFFERED, *_BUFFERED_OF_QUEUE[backend.name, source]))
    return [*ratios, by(QUEUE, BUFFERED_FLOOR)]
