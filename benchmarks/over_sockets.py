"""
B6: what a response costs on a real server, compared with those that people use.

Each peer is an endpoint on a uvicorn of its own, in a process of its own: all of these run at the
same time, and are measured in turns. The clients are in this process, and read what they are sent.
What is measured is the processor time of the server's process, so it includes all that the server,
the framework and the kernel do for a connection, and nothing that a client does.

An *active* connection receives an item every 50 ms. An *idle* one has received its first, and waits
for the next one. Memory is that of the process, as the system counts it, in servers that have done
nothing else before.

To close a connection also means to free what it held. What is part of a cycle is freed later, by a
collection: whoever leaves the most to that seems to close the fastest. So what all of it takes
includes one collection, less the time that this takes in a server without garbage.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

from .report import Ratio, Result, Table, number
from .responses import SSE_STARLETTE, SUBJECT
from .socket_server import PEERS

TITLE = "A response over real sockets"

#: The event loops of uvicorn, each with the parser that is installed with it.
KINDS = {"asyncio, h11": ("asyncio", "h11"), "uvloop, httptools": ("uvloop", "httptools")}

OPEN, ITEM, CLOSE, MEMORY = "to open", "per item", "to close", "KiB, idle"
CLOSE_ONLY = "of this, before a collection"

# Bytes that the kernel keeps for a connection, in each direction: it would keep megabytes.
BUFFER = 16 * 1024

# Clients that connect at the same time.
AT_ONCE = 50

# Seconds in which a server starts, and in which it has let go of all clients.
PATIENCE = 60.0

MARK = b"data: "


@dataclass(frozen=True)
class Sizes:
    idle: int
    active: int
    items: int
    rounds: int
    fresh_servers: int


FULL = Sizes(idle=2_000, active=500, items=20, rounds=7, fresh_servers=3)
QUICK = Sizes(idle=20, active=10, items=2, rounds=2, fresh_servers=2)

#: By what is measured and by peer, one number for each round.
Costs = dict[str, dict[str, list[float]]]


class Server:
    """A server that runs, and how it is told what to do."""

    def __init__(self, port: int, control: socket.socket) -> None:
        self.port = port
        self._control = control

    async def command(self, line: str) -> dict[str, Any]:
        await asyncio.get_running_loop().sock_sendall(self._control, line.encode())
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            answer = await loop.sock_recv(self._control, 1000)
        if not answer:
            raise RuntimeError("a server has ended")
        form: dict[str, Any] = json.loads(answer)
        return form

    async def cpu(self) -> float:
        """Return the microseconds of processor time that it has taken so far."""
        # For what it has begun.
        await asyncio.sleep(0.05)
        taken: float = (await self.command("look"))["cpu"]
        return taken * 1e6

    async def collect(self) -> float:
        """Collect its garbage, and return the microseconds that this has taken."""
        taken: float = (await self.command("collect"))["cpu"]
        return taken * 1e6

    async def memory(self) -> float:
        """Return its KiB, without what is garbage."""
        taken: float = (await self.command("weigh"))["memory"]
        return taken / 1024

    async def wait_until_empty(self) -> None:
        """Wait until no source is open."""
        await self.command("empty")


@contextmanager
def serving(peer: str, kind: str) -> Iterator[Server]:
    """Run the server of a peer while the block lasts. It says when it has started."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket() as listener:
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            # A connection inherits them.
            listener.setsockopt(socket.SOL_SOCKET, direction, BUFFER)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2_048)
        port = listener.getsockname()[1]
        inherited = (listener.fileno(), theirs.fileno())
        arguments = [peer, *map(str, inherited), *KINDS[kind]]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.socket_server", *arguments],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        listener.close()
        ours.setblocking(False)
        try:
            yield Server(port, ours)
        finally:
            process.terminate()
            process.wait()


class Reader(asyncio.Protocol):
    """A client: it asks, and counts what arrives."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._tail = b""
        self.items = 0
        self.has_first = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        count = data.count(MARK)
        # Too short for a whole one, which would be counted twice.
        self._tail = data[-len(MARK) + 1 :]
        self.items += count
        self._crowd.items += count
        if self.items:
            self.has_first.set()
        if self._crowd.items >= self._crowd.expected:
            self._crowd.has_all.set()


class Crowd:
    """All clients of one server."""

    def __init__(self, server: Server) -> None:
        self.items = self.expected = 0
        self.has_all = asyncio.Event()
        self._server = server
        self._readers: list[Reader] = []

    async def arrive(self, count: int) -> None:
        """Connect this many clients. Returns when each has its first item."""
        loop = asyncio.get_running_loop()
        places = asyncio.Semaphore(AT_ONCE)
        self.expected = count

        async def one() -> None:
            async with places:
                _, reader = await loop.create_connection(
                    lambda: Reader(self), "127.0.0.1", self._server.port
                )
                self._readers.append(reader)
                await reader.has_first.wait()

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    async def receive(self, count: int) -> None:
        """Receive this many more items, each of them."""
        self.has_all.clear()
        self.expected += count * len(self._readers)
        await self._server.command(f"go {count}")
        async with asyncio.timeout(PATIENCE):
            await self.has_all.wait()

    async def leave(self) -> None:
        """Close all connections. Returns when the server has noticed each."""
        for reader in self._readers:
            reader.transport.close()
            await asyncio.sleep(0)
        await self._server.wait_until_empty()

    def check(self, peer: str, items: int) -> None:
        """Refuse a server that has lost an item, or made one up."""
        if any(reader.items != items for reader in self._readers):
            raise RuntimeError(f"{peer!r} did not send what it was given")


async def visit(peer: str, server: Server, count: int, items: int) -> dict[str, float]:
    """Open some connections, receive some items on each, and leave. Returns what it took."""
    crowd = Crowd(server)
    # So that none has the garbage of the round before.
    await server.collect()
    without_garbage = await server.collect()
    start = await server.cpu()
    await crowd.arrive(count)
    opened = await server.cpu()
    await crowd.receive(items)
    received = await server.cpu()
    crowd.check(peer, 1 + items)
    await crowd.leave()
    left = await server.cpu()
    garbage = await server.collect() - without_garbage
    return {
        OPEN: (opened - start) / count,
        ITEM: (received - opened) / count / items,
        CLOSE: (left - received + garbage) / count,
        CLOSE_ONLY: (left - received) / count,
    }


@asynccontextmanager
async def all_serving(kind: str) -> AsyncIterator[dict[str, Server]]:
    """Run a server of each peer while the block lasts."""
    async with AsyncExitStack() as stack:
        # They start at the same time.
        servers = {peer: stack.enter_context(serving(peer, kind)) for peer in PEERS}
        for server in servers.values():
            await server.answer()
        yield servers


async def time_all(kind: str, sizes: Sizes) -> Costs:
    """Measure every peer in every round, in an order that moves on from round to round."""
    peers = list(PEERS)
    costs: Costs = {what: {peer: [] for peer in peers} for what in (OPEN, ITEM, CLOSE, CLOSE_ONLY)}
    async with all_serving(kind) as servers:
        for peer, server in servers.items():
            # What the first one loads and caches is not measured.
            await visit(peer, server, sizes.active, 2)
        for turn in range(sizes.rounds):
            first = turn % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                taken = await visit(peer, servers[peer], sizes.active, sizes.items)
                for what, cost in taken.items():
                    costs[what][peer].append(cost)
    return costs


async def weigh_all(kind: str, sizes: Sizes) -> dict[str, list[float]]:
    """Return the KiB of an idle connection of each peer, one number for each fresh server."""
    weights: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for _ in range(sizes.fresh_servers):
        async with all_serving(kind) as servers:
            for peer, server in servers.items():
                await visit(peer, server, 10, 2)
                before = await server.memory()
                crowd = Crowd(server)
                await crowd.arrive(sizes.idle)
                after = await server.memory()
                crowd.check(peer, 1)
                await crowd.leave()
                # A few may find room in what there was.
                weights[peer].append(max(after - before, 1) / sizes.idle)
    return weights


def allow_files(count: int) -> None:
    """Let this process and its children open this many files, or fail early."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise RuntimeError(f"{count} connections are opened: 'ulimit -Hn' allows {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def measure(*, quick: bool = False) -> Result:
    sizes = QUICK if quick else FULL
    allow_files(sizes.idle + 100)
    result = Result("B6", TITLE)
    for kind, needed in KINDS.items():
        if any(find_spec(name) is None for name in needed):
            continue
        costs = asyncio.run(time_all(kind, sizes))
        costs[MEMORY] = asyncio.run(weigh_all(kind, sizes))
        result.tables.append(_table(kind, sizes, costs))
        result.ratios += _ratios(kind, costs)
        result.data[kind] = {
            what: {peer: median(numbers) for peer, numbers in by_peer.items()}
            for what, by_peer in costs.items()
        }
    return result


def _table(kind: str, sizes: Sizes, costs: Costs) -> Table:
    title = f"uvicorn with {kind}: {sizes.active} active connections, {sizes.idle:,} idle ones"
    columns = ["µs", OPEN, ITEM, CLOSE, CLOSE_ONLY, MEMORY]
    rows = [[peer, *(number(median(costs[what][peer])) for what in columns[1:])] for peer in PEERS]
    return Table(title, columns, rows)


def _ratios(kind: str, costs: Costs) -> list[Ratio]:
    ratios = []
    for what, aim in ((OPEN, None), (ITEM, 0.9), (CLOSE, None), (MEMORY, None)):
        subject, other = costs[what][SUBJECT], costs[what][SSE_STARLETTE]
        ratios.append(
            Ratio.of(f"{kind}, {what}: {SUBJECT} / {SSE_STARLETTE}", subject, other, 1, aim)
        )
    for what, by_peer in costs.items():
        for peer in PEERS:
            if peer != SUBJECT and (peer != SSE_STARLETTE or what == CLOSE_ONLY):
                what_by_what = f"{kind}, {what}: {SUBJECT} / {peer}"
                ratios.append(Ratio.of(what_by_what, by_peer[SUBJECT], by_peer[peer]))
    return ratios
