"""
B11: how long it takes to interrupt a source everywhere: 100 points, all kinds, both backends.

The time is processor time, of the whole call and for each run; beside it, the same source in as
many fresh event loops, in virtual time, with nobody who looks. ``python -m
benchmarks.interruptions`` prints this one alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from statistics import median

import anyio

from streamkit import with_cancellation
from streamkit.testing import Report, interrupt_everywhere, virtual_time

from .report import Ratio, Result, Table, number, text

TITLE = "Interruptions"

Source = Callable[[], AsyncGenerator[int, None]]


async def source(items: int) -> AsyncGenerator[int, None]:
    """Wait and yield: each is a point."""
    for number_of_item in range(items):
        await anyio.sleep(1)
        yield number_of_item


def interrupted(items: int) -> Report:
    """Interrupt it everywhere, and see that nothing was left out."""
    report = interrupt_everywhere(partial(source, items), max_seconds=600)
    if len(report.points) != 2 * items or report.left_out:
        raise RuntimeError(f"there were {len(report.points)} points, and some were left out")
    return report


def undisturbed(items: int, runs: int) -> None:
    """Run it as often on each backend as it takes for so many runs, to its end."""

    async def run() -> None:
        async with with_cancellation(source(items)) as stream:
            async for _ in stream:
                pass

    for backend in ("asyncio", "trio"):
        for _ in range(runs // 2):
            anyio.run(run, **virtual_time(backend))


def seconds(function: Callable[[], object]) -> float:
    """Return the processor time that something takes."""
    began = time.process_time()
    function()
    return time.process_time() - began


def measure(*, quick: bool = False) -> Result:
    items, rounds = (2, 2) if quick else (50, 5)
    # What is imported, and how many runs there are.
    runs = interrupted(items).runs
    whole: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        whole.append(seconds(lambda: interrupted(items)))
        bare.append(seconds(lambda: undisturbed(items, runs)))
    result = Result("B11", TITLE)
    rows = [
        [name, number(median(of)), number(1000 * median(of) / runs)]
        for name, of in {"interrupted": whole, "undisturbed, nobody looks": bare}.items()
    ]
    title = f"{2 * items} points, {runs} runs"
    result.tables.append(Table(title, ["all kinds, both backends", "s", "ms for each run"], rows))
    result.ratios.append(
        Ratio.of(f"{2 * items} points: seconds / 1", whole, [1.0] * rounds, 3.0, 2.5)
    )
    result.ratios.append(Ratio.of("interrupted / undisturbed", whole, bare))
    return result


if __name__ == "__main__":
    print(text(measure()))
