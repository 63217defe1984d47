"""
How long it takes to interrupt a source everywhere: 100 points, all kinds, both backends.

``python -m benchmarks.interruptions`` prints seconds, and milliseconds for each run: must be under
3 seconds where the machine does nothing else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator

import anyio

from streamkit.testing import Report, interrupt_everywhere

ITEMS = 50
REPEATS = 5


async def source() -> AsyncGenerator[int, None]:
    """Wait and yield, 50 times: each is a point."""
    for number in range(ITEMS):
        await anyio.sleep(1)
        yield number


def measure() -> Report:
    """Interrupt it everywhere, and see that nothing was left out."""
    report = interrupt_everywhere(source, max_seconds=600)
    if len(report.points) != 2 * ITEMS or report.left_out:
        raise RuntimeError(f"there were {len(report.points)} points, and some were left out")
    return report


def main() -> None:
    measure()
    taken: list[tuple[float, float, int]] = []
    for _ in range(REPEATS):
        began, worked = time.perf_counter(), time.process_time()
        runs = measure().runs
        taken.append((time.perf_counter() - began, time.process_time() - worked, runs))
    seconds = statistics.median(wall for wall, _, _ in taken)
    cpu = statistics.median(cpu for _, cpu, _ in taken)
    runs = taken[0][2]
    print(f"{runs} runs: {seconds:.2f} s, {cpu:.2f} s of CPU, {1000 * cpu / runs:.2f} ms for each")


if __name__ == "__main__":
    main()
