"""
Your own signals: a task beside the source waits for a stop, and fires a token.

Each of these goes where a token goes: ``with_cancellation(source, told_by(websocket))``. Each
listens while the stream is open.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import psycopg
from coredis import Redis
from psycopg import sql
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamkit import CancelToken


@asynccontextmanager
async def heard(listen: Callable[[], Awaitable[object]]) -> AsyncGenerator[CancelToken, None]:
    """Fire a token with what a function returns, or with the error that it has ended in."""
    token = CancelToken()

    async def until_said() -> None:
        try:
            token.cancel(await listen())
        except Exception as exc:  # a stream that nobody can stop is worse than one that ends
            token.cancel(exc)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_said)
        yield token
        tasks.cancel_scope.cancel()


def told_by(websocket: WebSocket) -> AbstractAsyncContextManager[CancelToken, Any]:
    """The client of an accepted socket says stop, or goes. Nobody else reads what it says."""
    return heard(partial(_stop_of, websocket))


async def _stop_of(websocket: WebSocket) -> object:
    try:
        while True:
            message = await websocket.receive_json()
            if message["type"] == "stop":
                return message.get("reason")
    except WebSocketDisconnect:
        return "the client has gone"


def notified(url: str, channel: str) -> AbstractAsyncContextManager[CancelToken, Any]:
    """Somebody calls ``NOTIFY channel, 'reason'`` in PostgreSQL. On asyncio, as psycopg is."""
    return heard(partial(_notice_of, url, channel))


async def _notice_of(url: str, channel: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        async with aclosing(connection.notifies()) as notices:
            async for notice in notices:
                return notice.payload
    return "the connection has ended"


def published(client: Redis[str], channel: str) -> AbstractAsyncContextManager[CancelToken, Any]:
    """Somebody publishes a reason on a channel of Redis or Valkey."""
    return heard(partial(_message_of, client, channel))


async def _message_of(client: Redis[str], channel: str) -> object:
    async with client.pubsub(channels=[channel]) as messages:
        async for message in messages:
            if message["type"] == "message":
                return message["data"]
    return "the subscription has ended"
