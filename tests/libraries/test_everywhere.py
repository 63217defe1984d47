"""Sources over real libraries, interrupted everywhere, in real time: what they hold comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg
import httpx
import pytest
from anyio.streams.text import TextReceiveStream
from openai import AsyncOpenAI
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from libraries.upstream import CHAT
from streamkit.testing import Report, Run, interrupt_everywhere

if TYPE_CHECKING:
    from libraries.postgres import Postgres

KINDS: Any = ("stop", "cancel", "native", "leave", "close")
# Enough for each point and kind, on a machine that does other things as well.
ENOUGH = 300.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer([f"{number}\n" for number in range(3)])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer([f"data: {json.dumps(chunk)}\n\n" for chunk in CHAT] + ["data: [DONE]\n\n"])

    def _answer(self, pieces: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for piece in [*pieces, ""]:
                data = piece.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
                # The client waits for each of them.
                time.sleep(0.01)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """Say nothing: clients go, which is what they are here for."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server whose answers come to an end."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def interrupt(make: Any, check: Any = None, **options: Any) -> Report:
    options = {"kinds": KINDS, **options}
    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH, **options)
    assert report.points
    assert not report.unresolved
    assert not any("beyond" in line for line in report.left_out)
    return report


def test_httpx(url: str) -> None:
    """L7, Y8: the lines of a response of httpx; its points are the same each time."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        async with httpx.AsyncClient() as client:

            async def lines() -> AsyncGenerator[str, None]:
                async with client.stream("GET", url) as response:
                    async for line in response.aiter_lines():
                        yield line

            yield lines(), client

    def check(run: Run, client: Any) -> None:
        pool = client._transport._pool
        assert all(connection.is_idle() for connection in pool.connections)

    interrupt(make, check, kinds=["stop", "leave"])
    # How often the client waits for a piece is the network's affair: the lines are not.
    reports = [interrupt(make, check, kinds=[]).points for _ in range(20)]
    lines = [{point.partition("#")[0] for point in points} for points in reports]
    assert lines == [lines[0]] * 20


def test_openai(url: str) -> None:
    """L7, Y8: a chat of the SDK of OpenAI."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def texts() -> AsyncGenerator[str | None, None]:
                chat = await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "?"}], stream=True
                )
                async with chat:
                    async for chunk in chat:
                        yield chunk.choices[0].delta.content

            yield texts()

    interrupt(make, kinds=["stop", "leave"])


def test_process() -> None:
    """L7: the lines of a child process, which has ended and was waited for."""
    command = [sys.executable, "-S", "-E", "-c", "print('one')"]

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        started: list[anyio.abc.Process] = []

        async def texts() -> AsyncGenerator[str, None]:
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(command, stderr=None, stdin=subprocess.DEVNULL)
            started.append(process)
            async with process:
                assert process.stdout is not None
                async for piece in TextReceiveStream(process.stdout):
                    yield piece

        yield texts(), started

    def check(run: Run, started: list[Any]) -> None:
        assert all(process.returncode is not None for process in started)

    interrupt(make, check)


# The order of what a server sends and what a driver does is not always the same.
QUERY = "select n from generate_series(1, 3) n"


def test_sqlalchemy(postgres: Postgres) -> None:
    """L7, Y8: rows of SQLAlchemy over asyncpg; the connection is back."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        engine = create_async_engine(postgres.url("asyncpg"), pool_size=1, max_overflow=0)

        async def rows() -> AsyncGenerator[Any, None]:
            async with AsyncSession(engine) as session:
                async for row in await session.stream(text(QUERY)):
                    yield row[0]

        yield rows(), engine
        await engine.dispose()

    def check(run: Run, engine: Any) -> None:
        assert engine.pool.checkedout() == 0

    interrupt(make, check, backends=["asyncio"])


def test_psycopg(postgres: Postgres) -> None:
    """L7, Y8: rows of psycopg; the connection is back."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        async with AsyncConnectionPool(postgres.conninfo, min_size=1, max_size=1) as pool:
            await pool.wait()

            async def rows() -> AsyncGenerator[Any, None]:
                async with pool.connection() as connection:
                    async for row in connection.cursor().stream(QUERY):
                        yield row[0]

            yield rows(), pool

    def check(run: Run, pool: Any) -> None:
        stats = pool.get_stats()
        assert stats["pool_size"] == stats["pool_available"]

    interrupt(make, check, backends=["asyncio"])


def test_asyncpg(postgres: Postgres) -> None:
    """L7, Y8: rows of asyncpg; the connection is back."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        async with asyncpg.create_pool(
            host=str(postgres.directory),
            user="postgres",
            database="postgres",
            min_size=1,
            max_size=1,
        ) as pool:

            async def rows() -> AsyncGenerator[Any, None]:
                async with pool.acquire() as connection, connection.transaction():
                    async for row in connection.cursor(QUERY, prefetch=1):
                        yield row[0]

            yield rows(), pool

    async def check(run: Run, pool: Any) -> None:
        # Who interrupts it while it gives a connection back has that done in another task.
        with anyio.fail_after(5):
            while pool.get_size() != pool.get_idle_size():
                await anyio.sleep(0.01)

    interrupt(make, check, backends=["asyncio"], ignore=["PoolConnectionHolder.release"])
