"""Many short rounds, in each of which every peer is measured once, in turns."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence

#: Microseconds per item of each peer, one number for each round.
Costs = dict[str, list[float]]


async def in_turns(
    names: Sequence[str], rounds: int, measure_one: Callable[[str], Awaitable[float]]
) -> Costs:
    """
    Measure every peer in every round, in an order that moves on from round to round.

    :param measure_one: measures the peer of this name once

    """
    for name in names:
        await measure_one(name)
    costs: Costs = {name: [] for name in names}
    # What is loaded by now stays: later collections need not look at it each time.
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            costs[name].append(await measure_one(name))
    gc.unfreeze()
    return costs
