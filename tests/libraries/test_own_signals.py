"""Signals of one's own: ``examples/own_signals.py``, over a socket, PostgreSQL and Valkey."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
from coredis import Redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from streamkit import with_cancellation
from support import Socket, live_tasks
from support.socket import STOP, Told
from support.valkey import admin_url, start_server, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from libraries.postgres import Postgres


@pytest.fixture(scope="module")
def signals() -> Iterator[Any]:
    examples = str(Path(__file__).resolve().parents[2] / "examples")
    sys.path.insert(0, examples)
    yield importlib.import_module("own_signals")
    sys.path.remove(examples)


async def read(signal: Any) -> tuple[list[object], object]:
    """Read a stream until its signal fires. Returns what the source was told, and the reason."""
    told = Told(every=60, last="last")
    before = live_tasks()
    async with with_cancellation(told.source(), signal) as stream:
        items = [item async for item in stream]
    assert items == ["last"]
    assert live_tasks() == before
    return told.log.events, stream.outcome.reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"says": {1.0: '{"type":"other"}', 2.0: STOP}}, "enough"),
        ({"goes_after": 2.0}, "the client has gone"),
    ],
    ids=["stop", "goes"],
)
async def test_told_by_a_socket(signals: Any, options: Any, reason: str) -> None:
    """C21: the client of a socket that an endpoint serves by itself says stop, or goes."""
    seen: list[object] = []

    async def endpoint(websocket: Any) -> None:
        await websocket.accept()
        seen.append(await read(signals.told_by(websocket)))
        if "says" in options:
            await websocket.close()

    await Socket(is_strict=False, **options).open(Starlette(routes=[WebSocketRoute("/", endpoint)]))
    assert seen == [([reason, "closed"], reason)]


async def test_an_error(signals: Any) -> None:
    """C21: a signal that cannot hear any more ends the stream with its error as the reason."""
    error = LookupError()

    async def listen() -> object:
        await anyio.sleep(1)
        raise error

    told, reason = await read(signals.heard(listen))
    assert told == [error, "closed"]
    assert reason is error


async def test_left(signals: Any) -> None:
    """L1: who leaves the stream leaves what listens."""
    before = live_tasks()
    async with with_cancellation(Told().source(), signals.heard(anyio.sleep_forever)) as stream:
        async for _ in stream:
            break
    assert live_tasks() == before


@pytest.mark.real_time
@pytest.mark.asyncio_only
@pytest.mark.one_of_each
async def test_notified(signals: Any, postgres: Postgres) -> None:
    """C21: somebody notifies a channel of PostgreSQL."""
    async with await psycopg.AsyncConnection.connect(postgres.conninfo, autocommit=True) as other:

        async def notify() -> None:
            found = "select 1 from pg_stat_activity where query like 'LISTEN%run-7%'"
            while await (await other.execute(found)).fetchone() is None:
                await anyio.sleep(0.05)
            await other.execute("notify \"run-7\", 'by an admin'")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notify)
            with anyio.fail_after(10):
                told, _ = await read_beside(signals.notified(postgres.conninfo, "run-7"))
    assert told == ["by an admin", "closed"]


@pytest.mark.real_time
@pytest.mark.one_of_each
async def test_published(signals: Any) -> None:
    """C21: somebody publishes on a channel of Valkey."""
    server = start_server()
    try:
        url = admin_url(url_of(server))
        async with (
            Redis.from_url(url, decode_responses=True) as client,
            Redis.from_url(url, decode_responses=True) as other,
        ):

            async def publish() -> None:
                while not await other.publish("run-7", "by an admin"):
                    await anyio.sleep(0.05)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish)
                with anyio.fail_after(10):
                    told, _ = await read_beside(signals.published(client, "run-7"))
        assert told == ["by an admin", "closed"]
    finally:
        server.stop()


async def read_beside(signal: Any) -> tuple[list[object], object]:
    """Read as :func:`read` does, where other tasks come and go."""
    told = Told(every=60, last="last")
    async with with_cancellation(told.source(), signal) as stream:
        assert [item async for item in stream] == ["last"]
    return told.log.events, stream.outcome.reason
