"""
Many short runs: nothing is left of them in the server when they were kept for long enough, and in
the process nothing grows with their number.

Some thousands are a test. ``nox -s soak`` starts a hundred thousand.
"""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest
from runners import QUIET, Runner

from support import Backend, backends, environment
from support.processes import megabytes
from support.valkey import MARKS, admin, log_url, new_prefix, start_server, url_of

pytestmark = MARKS

SOAK = os.environ.get("STREAMKIT_SOAK")
RUNS = 1_000 if SOAK is None else 100_000
KEEP = 0.5
# Keys that there may be at once, of those 100,000: two for each run of some seconds.
MOST_KEYS = 20_000
# Megabytes by which the process may grow in three quarters of the runs.
GROWTH = 16.0
# Real seconds.
PATIENCE = 60.0 if SOAK is None else 1_800.0

PROGRAM = f"""
import sys
import anyio
from streamkit.redis import RedisLog
from streamkit.runs import Runs

url, prefix, backend = sys.argv[1:4]

async def words():
    for word in "to be, or not to be".split():
        yield word

async def main():
    log = RedisLog(url, prefix=prefix, outage=30.0)
    left = iter(range({RUNS}))

    async def start():
        for number in left:
            over = anyio.Event()

            async def on_end(*_):
                over.set()

            await runs.start(words(), id=f"run {{number}}", on_end=on_end)
            await over.wait()
            if number == {RUNS} // 4:
                print("a quarter", flush=True)

    async with Runs(log, keep={KEEP}) as runs:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(start)
        while runs.stats().running:
            await anyio.sleep(0.01)
        print("idle", flush=True)
        sys.stdin.readline()
        desk = log._desk
        assert desk.produced == desk.followed == desk._listeners == desk._pages == {{}}

anyio.run(main, backend=backend)
"""


@pytest.fixture(autouse=True)
def _may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "HUNG_AFTER", PATIENCE + 60)


async def test_many_runs(backend: Backend) -> None:
    """10^5 runs, then idle: the keys are those of the last seconds, and then there is none."""
    server = start_server()
    url, prefix = url_of(server), new_prefix()
    command = [sys.executable, "-W", "error", "-W", QUIET, "-c", PROGRAM, log_url(url), prefix]
    process = Runner(
        [*command, backend.name.partition("+")[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        with process, anyio.fail_after(PATIENCE):
            sizes: list[float] = []
            most = 0

            async def hear() -> None:
                for wanted in "a quarter", "idle":
                    assert await process.says(PATIENCE) == wanted
                    sizes.append(megabytes(process.pid))
                tasks.cancel_scope.cancel()

            async with admin(url) as client:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(hear)
                    while True:
                        most = max(most, await client.dbsize())
                        assert most < MOST_KEYS
                        await anyio.sleep(0.1)
                early, late = sizes
                assert late < early + GROWTH
                assert most > 0
                process.communicate("\n")
                assert process.returncode == 0
                with anyio.fail_after(KEEP + 10):
                    while await client.dbsize():
                        await anyio.sleep(0.05)
                print(f"\n{RUNS} runs: at most {most} keys, {early:.1f} and {late:.1f} MB")
    finally:
        process.kill()
        server.terminate()
