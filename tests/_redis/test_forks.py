"""A registry that is made before a fork, as where a server loads an application once for all."""

from __future__ import annotations

import subprocess
import sys

import anyio.to_thread

from support import Backend, environment
from support.valkey import LIMIT, MARKS, log_url, new_prefix

pytestmark = MARKS

BEGIN = """
import os, sys
import anyio
from streamkit.redis import Redis, RedisCancelRegistry

url, prefix, backend = sys.argv[1:]
"""

MADE_BEFORE = """
registry = RedisCancelRegistry(url, prefix=prefix)
registry.cancel("early", "from before")
ready, is_ready = os.pipe()

async def hold():
    async with registry, registry.open("run") as token:
        os.write(is_ready, registry._part._process.encode())
        print("told:", await token.wait(), flush=True)

async def stop():
    async with registry:
        assert name != registry._part._process.encode()
        print(bool(await registry.cancel_and_wait("run", "stop", timeout=10)), flush=True)
        async with registry.open("early") as token:
            print(token.reason)

child = os.fork()
if not child:
    anyio.run(hold, backend=backend)
    os._exit(0)
name = os.read(ready, 100)
anyio.run(stop, backend=backend)
os.waitpid(child, 0)
"""

ENTERED_BEFORE = """
registry = RedisCancelRegistry(url, prefix=prefix)
redis = Redis(url)

def use():
    yield lambda: registry.open("run")
    yield lambda: registry.cancel("run")
    yield registry.cancel_and_wait("run").__await__().__next__
    yield registry.__aenter__().__await__().__next__
    yield redis.__aenter__().__await__().__next__
    yield RedisCancelRegistry(redis).__aenter__().__await__().__next__

async def main():
    async with registry, redis:
        child = os.fork()
        if not child:
            for number, used in enumerate(use()):
                try:
                    used()
                except RuntimeError as exc:
                    assert "write 'async with' in each worker" in str(exc), exc
                    print(number, end=" ", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(registry.cancel("run"))

anyio.run(main, backend=backend)
"""


LOG_OPEN_BEFORE = """
from streamkit.redis import RedisLog
from streamkit.runs import Runs

log = RedisLog(url, prefix=prefix)
runs = Runs(log)
redis = Redis(url)
shared = RedisLog(redis, prefix=prefix)

async def source():
    yield 1

def use():
    yield lambda: runs.attach("run")
    yield runs.start(source()).__await__().__next__
    yield runs.cancel("run").__await__().__next__
    yield runs.get("run").__await__().__next__
    yield runs.__aenter__().__await__().__next__
    yield log.renew("run", "epoch").__await__().__next__
    yield log.append("run", "epoch", 2, [b""], acknowledged=1, first=1).__await__().__next__
    yield log.read("run", 0).__await__().__next__
    yield lambda: log.watch("run")
    yield log.open().__aenter__().__await__().__next__
    yield shared.open().__aenter__().__await__().__next__

def try_all():
    for number, used in enumerate(use()):
        try:
            used()
        except RuntimeError as exc:
            assert "write 'async with' in each worker" in str(exc), exc
            print(number, end=" ", flush=True)
    print(flush=True)

async def read():
    async with runs, runs.attach("run") as stream:
        print([entry.item async for entry in stream], flush=True)

async def main():
    async with redis, runs:
        await runs.start(source(), id="run")
        while runs.stats().running:
            await anyio.sleep(0.01)
        child = os.fork()
        if not child:
            try_all()
            os._exit(0)
        os.waitpid(child, 0)
    await read()

anyio.run(main, backend=backend)
# It is open no more, so a child may open it.
child = os.fork()
if not child:
    anyio.run(read, backend=backend)
    os._exit(0)
os.waitpid(child, 0)
"""


async def output_of(program: str, backend: Backend, url: str) -> str:
    name = backend.name.partition("+")[0]
    command = [sys.executable, "-W", "error", "-c", BEGIN + program, url, new_prefix(), name]

    def run() -> str:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment()
        )
        assert not result.stderr
        return result.stdout

    return await anyio.to_thread.run_sync(run)


async def test_made_before(backend: Backend, url: str) -> None:
    """C21: made before the fork, entered in each worker: each has a name of its own."""
    assert await output_of(MADE_BEFORE, backend, url) == "told: stop\nTrue\nfrom before\n"


async def test_entered_before(backend: Backend, url: str) -> None:
    """Misuse: entered before the fork, used in a worker: an error that says where to enter it."""
    assert await output_of(ENTERED_BEFORE, backend, url) == "0 1 2 3 4 5 0\n"


async def test_log_is_open(backend: Backend, url: str) -> None:
    """Misuse: a log is open where a process is forked: an error where it, or a run, is used there.

    Where it was made, it is as it was, and it can be opened later by a process that is forked.
    """
    numbers = " ".join(map(str, range(11)))
    output = await output_of(LOG_OPEN_BEFORE, backend, log_url(url))
    assert output == f"{numbers} \n[1]\n[1]\n"
