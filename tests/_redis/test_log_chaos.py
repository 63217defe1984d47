"""
Readers come and go in several processes, while whatever can go wrong does.

Some seconds of it are a test. ``nox -s soak`` does it for ten minutes, and waits until no key is
left.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import coredis
import pytest
from runners import LEASE, QUIET, RECONCILE, Runner, kill, log_of, runner

from streamkit._runs.log import AFTER_READ
from streamkit.runs import Runs
from support import Backend, backends, environment
from support.processes import megabytes
from support.proxy import Proxy, proxy_to
from support.valkey import MARKS, admin_url, log_url, new_prefix, start_server, url_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS

SOAK = os.environ.get("STREAMKIT_SOAK")
SECONDS = float(SOAK or 8)
# Megabytes that a process may grow in three quarters of that.
GROWTH = 24.0

READERS = f"""
import random, sys
import anyio
from streamkit.redis import RedisLog
from streamkit.runs import RunCancelled, RunEnded, Runs

# How many each has seen in order, and who has seen the last word.
seen, ended = [], set()

async def read(runs, reader):
    cursor = None
    while True:
        try:
            with anyio.move_on_after(random.choice([0.01, 0.1, 1, 10])):
                async with runs.attach("run", after=cursor) as stream:
                    async for entry in stream:
                        assert reader not in ended
                        if entry.item == "last":
                            ended.add(reader)
                        else:
                            assert entry.item == seen[reader] + 1, (entry, seen[reader])
                            seen[reader] += 1
                        cursor = entry.cursor
        except RunCancelled:
            return
        await anyio.sleep(random.choice([0, 0.01, 0.2]))

async def main():
    url, prefix, _, number = sys.argv[1:5]
    log = RedisLog(url, prefix=prefix, lease={LEASE}, outage=30.0, reconcile={RECONCILE})
    seen.extend([0] * int(number))
    async with Runs(log) as runs, anyio.create_task_group() as tasks:
        print("reading", flush=True)
        for reader in range(int(number)):
            tasks.start_soon(read, runs, reader)
    assert len(ended) == len(seen) and len(set(seen)) == 1, (ended, seen)
    print("all have seen", seen[0], flush=True)

anyio.run(main, backend=sys.argv[3])
"""


@pytest.fixture(autouse=True)
def may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the watchdog of the tests wait for a soak."""
    if SOAK is not None:
        monkeypatch.setattr(backends, "HUNG_AFTER", SECONDS + 300)


async def test_chaos(backend: Backend, tmp_path: Path) -> None:
    """For some seconds, something fails every half of one: each reader has the log, and its end."""
    await chaos(backend, tmp_path, seconds=SECONDS, readers=33)


async def chaos(backend: Backend, tmp_path: Path, *, seconds: float, readers: int) -> None:
    config = {"appendonly": "yes", "appendfsync": "always"}
    server = start_server(data_dir=tmp_path, **config)
    prefix = new_prefix()
    url = url_of(server)
    with ExitStack() as stack:
        stack.callback(lambda: server.terminate())
        ways = [stack.enter_context(proxy_to(server.port)) for _ in range(3)]
        urls = [url.replace(str(server.port), str(way.port)) for way in ways]
        producer = stack.enter_context(runner(backend, urls[0], prefix, 30.0))
        name = backend.name.partition("+")[0]
        processes = [start_readers(stack, log_url(each), prefix, name, readers) for each in urls]
        for process in processes:
            assert await process.says() == "reading"

        async def restart() -> None:
            nonlocal server
            kill(server)
            await anyio.sleep(0.2)
            server = await anyio.to_thread.run_sync(
                lambda: start_server(server.port, data_dir=tmp_path, **config)
            )

        async def freeze() -> None:
            producer.send_signal(signal.SIGSTOP)
            await anyio.sleep(LEASE / 2)
            producer.send_signal(signal.SIGCONT)

        start = anyio.current_time()
        early: list[float] = []
        while anyio.current_time() < start + seconds:
            await random.choice([restart, freeze, lambda: tell(url), lambda: disturb(ways)])()
            await anyio.sleep(0.5)
            if not early and anyio.current_time() > start + seconds / 4:
                early = [megabytes(process.pid) for process in (producer, *processes)]
        late = [megabytes(process.pid) for process in (producer, *processes)]
        # For a soak, with pytest -s.
        print("\nmegabytes:", *(f"{a:.1f} -> {b:.1f}" for a, b in zip(early, late, strict=True)))
        assert all(b < a + GROWTH for a, b in zip(early, late, strict=True))
        async with Runs(log_of(url, prefix)) as runs:
            assert await runs.cancel_and_wait("run", "enough", timeout=30)
            last = (await runs.get("run")).last - 1
        for process in processes:
            assert await process.says() == f"all have seen {last}"
        if SOAK is not None:
            await until_forgotten(url, prefix)


async def until_forgotten(url: str, prefix: str) -> None:
    async with coredis.Redis.from_url(admin_url(url)) as client:
        with anyio.fail_after(AFTER_READ + 30):
            while await client.keys(f"*{prefix}*"):
                await anyio.sleep(1)


def start_readers(stack: ExitStack, url: str, prefix: str, backend: str, number: int) -> Runner:
    process = Runner(
        [
            *(sys.executable, "-W", "error", "-W", QUIET, "-c", READERS),
            *(url, prefix, backend, str(number)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


async def tell(url: str) -> None:
    """Tell the server to cut off who is subscribed, or who writes, or to answer nobody."""
    commands: list[tuple[bytes, ...]] = [
        (b"KILL", b"TYPE", b"PUBSUB"),
        (b"KILL", b"TYPE", b"NORMAL"),
        (b"PAUSE", b"700"),
    ]
    async with coredis.Redis.from_url(admin_url(url)) as client:
        command = random.choice(commands)
        if command[0] == b"PAUSE":
            await client.client_pause(700)
        else:
            await client.client_kill(type_=command[2])  # type: ignore[arg-type]


async def disturb(ways: list[Proxy]) -> None:
    """Cut the way of one process, or let nothing through, or no answer."""
    way = random.choice(ways)
    way.be(random.choice(["stalled", "mute", "cut"]))
    await anyio.sleep(0.3)
    way.be("open")
