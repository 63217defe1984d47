"""A log in a file, and processes that are forked: before it is opened, and while it is."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import environment

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, sys, warnings
import anyio
from streamkit.runs import Runs
from streamkit.sqlite import SQLiteLog

# Some releases of Python warn of a fork where there are threads.
warnings.simplefilter("ignore", DeprecationWarning)
log = SQLiteLog(sys.argv[1])

async def source():
    yield os.getpid()

async def main(run_id):
    async with Runs(log) as runs:
        await runs.start(source(), id=run_id)
        while runs.stats().running:
            await anyio.sleep(0.01)

def child(run_id, backend):
    pid = os.fork()
    if pid:
        return pid
    try:
        anyio.run(main, run_id, backend=backend)
    except BaseException as exc:
        print(run_id, type(exc).__name__, exc, flush=True)
    else:
        print(run_id, "done", flush=True)
    os._exit(0)

async def while_it_is_open():
    async with Runs(log) as runs:
        # Trio itself does not run in a process that was forked from it.
        os.waitpid(await anyio.to_thread.run_sync(child, "late", "asyncio"), 0)
        await runs.start(source(), id="mine")
        while runs.stats().running:
            await anyio.sleep(0.01)

async def count():
    async with Runs(log) as runs:
        seen = set()
        for run_id in "one", "two", "mine":
            async with runs.attach(run_id) as stream:
                seen.update([entry.item async for entry in stream])
        print(len(seen), "processes", flush=True)

for pid in [child("one", sys.argv[2]), child("two", sys.argv[2])]:
    os.waitpid(pid, 0)
anyio.run(while_it_is_open, backend=sys.argv[2])
anyio.run(count, backend=sys.argv[2])
"""


ADVICE = "so fork before the log is opened, or spawn the process"


def run(program: str, folder: Path, runs_on: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(folder / "runs.db"), runs_on],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("runs_on", ["asyncio", "trio"])
def test_forked(runs_on: str, tmp_path: Path) -> None:
    """A log that was made before a fork works after it. One that is open says what to do."""
    result = run(PROGRAM, tmp_path, runs_on)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert sorted(lines[:2]) == ["one done", "two done"]
    assert lines[2].startswith("late RuntimeError ")
    assert lines[2].endswith(ADVICE)
    assert lines[3:] == ["3 processes"]


OPEN_BEFORE = (
    PROGRAM.partition("async def while_it_is_open")[0]
    + """
def use():
    yield lambda: runs.attach("run")
    yield runs.start(source()).__await__().__next__
    yield log.renew("run", "epoch").__await__().__next__
    yield log.read("run", 0).__await__().__next__
    yield lambda: log.watch("run")
    yield log.open().__aenter__().__await__().__next__

runs = Runs(log)

async def main():
    async with runs:
        child = os.fork()
        if not child:
            for number, used in enumerate(use()):
                try:
                    used()
                except RuntimeError as exc:
                    print(exc, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        await runs.start(source(), id="mine")

anyio.run(main, backend=sys.argv[2])
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("runs_on", ["asyncio", "trio"])
def test_used_in_a_fork(runs_on: str, tmp_path: Path) -> None:
    """Misuse: a log is open, and used in a process that was forked: an error, and no wait."""
    result = run(OPEN_BEFORE, tmp_path, runs_on)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [ADVICE in line or "in each worker, in its lifespan" in line for line in lines] == [
        True
    ] * 6
    assert sum(ADVICE in line for line in lines) == 4
