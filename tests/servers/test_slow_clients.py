"""A thousand clients at once that read slowly, and then go."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from typing import TYPE_CHECKING

import pytest

from serving import Server, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS = 1000

# Bytes that a client reads in a go, and the real seconds between two of them.
AT_ONCE = 4096
EVERY = 0.5

# Real seconds for which they all are there.
FOR = 5.0

# What the server may keep in its own memory for each: its buffer of 64 KiB that is filled to the
# brim with a block of 64 KiB, the block that waits to be sent, and as much as two for the rest:
# the connection, the request, the stream and what the allocator rounds up.
BLOCK = 65536
BLOCKS_EACH = 3
BYTES_EACH = (BLOCKS_EACH + 2) * BLOCK

# Real seconds in which all sources are closed when the clients have gone.
CLOSED_WITHIN = 5.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that may have as many connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CLIENTS + 200
    if before[1] != resource.RLIM_INFINITY and before[1] < needed:
        pytest.skip(f"a process may open no more than {before[1]} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], needed), before[1]))
    try:
        with running("uvicorn", tmp_path, ["narrow", "{port}"]) as server:
            yield server
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def read_slowly(port: int, key: str, until: asyncio.Event) -> int:
    """Read a little at a time, and leave. Returns how much it was."""
    loop = asyncio.get_running_loop()
    total = 0
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AT_ONCE)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        request = f"GET /plain/stream?key={key}&kind=fast HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await loop.sock_sendall(connection, request.encode())
        while not until.is_set():
            data = await loop.sock_recv(connection, AT_ONCE)
            assert data, "the server closed the connection"
            total += len(data)
            await asyncio.sleep(EVERY)
    return total


async def visit(server: Server, keys: list[str]) -> tuple[list[int], list[int]]:
    """Be all the clients. Returns how much each has read, and the server's memory meanwhile."""
    loop = asyncio.get_running_loop()
    until = asyncio.Event()
    memory = []
    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(read_slowly(server.port, key, until)) for key in keys]
        end = loop.time() + FOR
        while loop.time() < end:
            await asyncio.sleep(EVERY)
            memory.append((await asyncio.to_thread(server.state))["memory"])
        until.set()
    return [client.result() for client in clients], memory


def test_slow_clients(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """WS30: memory is bounded while they read, and every source is closed when they have gone."""
    before = server.state()["memory"]
    keys = [f"slow-{number}" for number in range(CLIENTS)]
    read, memory = asyncio.run(visit(server, keys))
    left = time.monotonic()

    def closed() -> list[str]:
        return [record["key"] for record in server.records() if record["event"] == "closed"]

    eventually(lambda: len(closed()) >= CLIENTS, within=2 * CLOSED_WITHIN, what=server.output)
    took = max(record["time"] for record in server.records()) - left
    eventually(lambda: server.state()["tasks"] == server.idle_tasks)
    after = server.state()["memory"]
    ahead = sum(server.state()["produced"].values()) * BLOCK - sum(read)
    with capsys.disabled():
        print(
            f"\n{CLIENTS} slow clients on uvicorn read {sum(read) / 2**20:.0f} MiB, their sources "
            f"were {ahead / 2**20:.0f} ahead; the server had {before / 2**20:.0f} MiB before, "
            f"{max(memory) / 2**20:.0f} at most ({(max(memory) - before) / CLIENTS / 1024:.0f} KiB "
            f"each), {after / 2**20:.0f} afterwards; all closed after {took:.2f} s"
        )
    assert all(read)
    # One block may be on its way, in the kernel.
    assert ahead <= CLIENTS * (BLOCKS_EACH + 1) * BLOCK
    assert max(memory) - before < CLIENTS * BYTES_EACH
    assert took < CLOSED_WITHIN
    assert sorted(closed()) == sorted(keys)
    ended = [record for record in server.records() if record["event"] == "ended"]
    assert {record["reason"] for record in ended} == {"Disconnected"}
    assert server.trouble() == []
