"""Sockets in endpoints of Starlette and FastAPI."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from streamkit import Head, asgi
from streamkit.asgi import Disconnected
from streamkit.starlette import WebSocketStream
from support import Probe, Socket, aiter_of
from support.socket import STOP, Told


def app_of(endpoint: Any, kind: str) -> Any:
    if kind == "starlette":
        return Starlette(routes=[WebSocketRoute("/", endpoint)])
    app = FastAPI()
    app.add_api_websocket_route("/", endpoint)
    return app


@pytest.fixture(params=["starlette", "fastapi"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_serve(kind: str) -> None:
    """WS77: the stream makes the handshake, is stopped by the client, and closes the socket."""
    told = Told(last="last")

    async def endpoint(websocket: WebSocket) -> None:
        await WebSocketStream(told.source()).serve(websocket)

    socket = Socket(says={1.5: STOP})
    await socket.open(app_of(endpoint, kind))
    assert socket.log.events == [101, "0", "last", (1000, "cancelled")]
    assert told.log.events == ["enough", "closed"]


async def test_refusal(kind: str) -> None:
    """WS77: a Head and an error of the framework are answers in place of the handshake."""

    async def refused() -> Any:
        yield Head(409)
        yield "busy"

    async def endpoint(websocket: WebSocket) -> None:
        await WebSocketStream(refused()).serve(websocket)

    socket = Socket()
    await socket.open(app_of(endpoint, kind))
    assert socket.log.events == [409, "busy"]

    async def broken(websocket: WebSocket) -> None:
        probe = Probe[str](error=HTTPException(404, "no such run"))
        await WebSocketStream(probe.source()).serve(websocket)

    socket = Socket()
    await socket.open(app_of(broken, kind))
    assert socket.log.events[0] == 404


async def test_accepted(kind: str) -> None:
    """WS77: an endpoint may accept and read first; the stream goes on from there."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        name = await websocket.receive_text()
        await WebSocketStream(Told(last=name).source()).serve(websocket)

    socket = Socket(says={0.5: "name", 2.0: STOP})
    await socket.open(app_of(endpoint, kind))
    assert socket.log.events == [101, "0", "name", (1000, "cancelled")]


async def test_gone_before(kind: str) -> None:
    """WS77: a client may have gone while the endpoint has read."""
    told = Told()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        assert (await websocket.receive())["type"] == "websocket.disconnect"
        await WebSocketStream(told.source()).serve(websocket)

    socket = Socket(goes_after=0.5)
    await socket.open(app_of(endpoint, kind))
    assert told.log.events in (["closed"], [Disconnected(), "closed"], [])
    assert socket.log.events == [101]


async def test_send_tells(kind: str) -> None:
    """WS77: Starlette has an exception of its own for a client that has gone."""
    told = Told()

    async def endpoint(websocket: WebSocket) -> None:
        await WebSocketStream(told.source()).serve(websocket)

    socket = Socket(takes={2: BrokenPipeError()})
    await socket.open(app_of(endpoint, kind))
    assert told.log.events == [Disconnected(), "closed"]


async def test_closed_before(kind: str) -> None:
    """WS77: over a socket that was closed there is nothing to send."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()
        with pytest.raises(RuntimeError, match="is already closed"):
            await WebSocketStream(aiter_of("a")).serve(websocket)

    socket = Socket()
    await socket.open(app_of(endpoint, kind))
    assert socket.log.events == [101, (1000, "")]


async def test_own_subclass() -> None:
    """WS77: the one for any server is given scope, receive and send."""
    socket = Socket()
    stream = asgi.WebSocketStream(aiter_of("a"))

    async def endpoint(websocket: WebSocket) -> None:
        await stream(websocket.scope, websocket.receive, websocket.send)

    with anyio.fail_after(5):
        await socket.open(app_of(endpoint, "starlette"))
    assert socket.log.events == [101, "a", (1000, "completed")]
