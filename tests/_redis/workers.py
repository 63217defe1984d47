"""A process that holds a key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from support import Backend, environment

SHORT = """
import streamkit._redis.lease, streamkit._redis.store
streamkit._redis.lease._RENEW_AFTER = 0.3
streamkit._redis.lease.LEASE = streamkit._redis.store.LEASE = 1.0
"""

WORKER = """
import sys
import anyio
from streamkit import StreamCancelled, with_cancellation
from streamkit.redis import RedisCancelRegistry

async def source():
    try:
        yield "ready"
        await anyio.sleep_forever()
    except StreamCancelled as stop:
        yield f"told: {stop.reason}"

async def main():
    async with RedisCancelRegistry(sys.argv[1], prefix=sys.argv[2]) as registry:
        opened = registry.open("run", exclusive=len(sys.argv) > 4)
        async with with_cancellation(source(), opened) as stream:
            async for item in stream:
                print(item, flush=True)
        print(len(registry), "keys", flush=True)

anyio.run(main, backend=sys.argv[3])
"""


@contextmanager
def worker(
    backend: Backend, url: str, prefix: str, *, exclusive: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run a program that holds the key "run" in a process of its own, and say when it does."""
    name = backend.name.partition("+")[0]
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-c", SHORT + WORKER, url, prefix, name),
            *["exclusive"] * exclusive,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
