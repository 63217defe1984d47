"""
B8: what a log in a file costs: with several runs that write, and from process to process.

*Appends* is the time that an entry takes when many runs write one entry after the other, each of
which it waits for, so that those of all are written together. *Elsewhere* is the time from where an
item is yielded in one process to where a reader in another one has it; both read the same clock.
*Here* is the same in one process, beside that of a log in memory.

These are times of a clock, not of a processor: what else the machine does counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import anyio

from streamkit.runs import MemoryLog, Requests, RunLog, RunNotFound, Runs, Terms
from streamkit.sqlite import SQLiteLog

from .backends import installed
from .report import Ratio, Result, Table, number

TITLE = "Runs in a file"

PAUSE = 0.02

WORKER = """
import sys
import anyio
from benchmarks.runs_in_a_file import write
anyio.run(write, sys.argv[1], int(sys.argv[3]), backend=sys.argv[2])
"""


async def stamped(count: int) -> AsyncGenerator[float, None]:
    """Yield the time, again and again."""
    for _ in range(count):
        await anyio.sleep(PAUSE)
        yield time.monotonic()


async def write(path: str, count: int) -> None:
    """Let a run go on, in a process of its own."""
    async with Runs(SQLiteLog(path)) as runs:
        ended = anyio.Event()

        async def on_end(outcome: object, info: object) -> None:
            ended.set()

        await runs.start(stamped(count), id="run", on_end=on_end)
        await ended.wait()


async def late(runs: Runs) -> list[float]:
    """Return milliseconds from each yield of a run to its reader."""
    taken: list[float] = []
    async with runs.attach("run") as stream:
        taken += [(time.monotonic() - entry.item) * 1000 async for entry in stream]
    return taken


async def measure_elsewhere(path: str, backend: str, count: int) -> list[float]:
    """Read a run of another process."""
    command = [sys.executable, "-c", WORKER, path, backend, str(count)]
    async with Runs(SQLiteLog(path)) as runs:
        async with await anyio.open_process(command, stdout=None, stderr=None):
            while True:
                try:
                    await runs.get("run")
                    break
                except RunNotFound:
                    await anyio.sleep(0.05)
            return await late(runs)


async def measure_here(log: RunLog, count: int) -> list[float]:
    """Read a run of this process."""
    async with Runs(log) as runs:
        await runs.start(stamped(count), id="run")
        return await late(runs)


async def measure_appends(path: str, runs: int, count: int) -> float:
    """Return microseconds for each entry, where many runs write one at a time."""
    log = SQLiteLog(path)
    entry = b"x" * 40

    async def create(run_id: str) -> None:
        await log.create(run_id, "0e", Terms(), _ignore)

    async def append(run_id: str) -> None:
        for done in range(count):
            await log.append(run_id, "0e", done + 1, [entry], acknowledged=done, first=1)

    async with log.open():
        async with anyio.create_task_group() as tasks:
            for each in range(runs):
                tasks.start_soon(create, str(each))
        start = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for each in range(runs):
                tasks.start_soon(append, str(each))
        taken = time.perf_counter() - start
        for each in range(runs):
            if (await log.get(str(each))).last != count:
                raise RuntimeError("a log has not kept what was written")
    return taken / runs / count * 1e6


def _ignore(requests: Requests) -> None:
    """Take no hint."""


def measure(*, quick: bool = False) -> Result:
    result = Result("B8", TITLE)
    for backend in installed():
        with TemporaryDirectory() as place:
            count, many, rounds = (20, 5, 1) if quick else (100, 100, 7)
            appends = [
                backend.run(measure_appends, str(Path(place) / f"{each}.db"), 200, many)
                for each in range(rounds)
            ]
            elsewhere = backend.run(
                measure_elsewhere, str(Path(place) / "elsewhere.db"), backend.anyio_name, count
            )
            here = backend.run(measure_here, SQLiteLog(Path(place) / "here.db"), count)
            memory = backend.run(measure_here, MemoryLog(), count)
        # At least 20,000 in a second.
        best = min(appends)
        result.ratios.append(Ratio.once(f"{backend.name}: µs per append of 200 runs", best, 50))
        what = f"{backend.name}: ms to a reader in another process, p50"
        result.ratios.append(Ratio.once(what, median(elsewhere), 60))
        what = f"{backend.name}: ms to a reader in this process, p50"
        result.ratios.append(Ratio.once(what, median(here), 5))
        rows = [
            ["to a reader in another process", number(median(elsewhere))],
            ["to a reader in this process", number(median(here))],
            ["the same, with a MemoryLog", number(median(memory))],
        ]
        result.tables.append(Table(backend.name, ["ms", ""], rows))
    return result
