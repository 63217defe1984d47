"""Servers of WebSockets, and clients: one on asyncio, one on trio, one over a bare socket."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import trio
import trio_websocket
import websockets
from websockets.asyncio.client import connect

from client import Connection
from serving import UVICORN

if TYPE_CHECKING:
    from collections.abc import Callable

# It closes a connection of which it has heard nothing for as long as it would keep one, and where
# it is busy, it hears late.
HYPERCORN = ["hypercorn", "--keep-alive", "30", "--bind", "127.0.0.1:{port}"]

COMMANDS = {
    "uvicorn-sansio": [*UVICORN, "--ws", "websockets-sansio"],
    "uvicorn-websockets": [*UVICORN, "--ws", "websockets"],
    "uvicorn-wsproto": [*UVICORN, "--ws", "wsproto"],
    "hypercorn-asyncio": [*HYPERCORN, "--worker-class", "asyncio"],
    "hypercorn-trio": [*HYPERCORN, "--worker-class", "trio"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}"],
}

# Real seconds for all that a client does.
LONGEST = 15.0

STOP = '{"type": "stop", "reason": "enough"}'


@dataclass
class Seen:
    """What a client has seen of one socket."""

    messages: list[str | bytes] = field(default_factory=list)
    code: int | None = None
    reason: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def on_asyncio(url: str, then: Callable[[], object] | str | None = None) -> Seen:
    """
    Open a socket, and read it to its end.

    :param then: what is said, or done, after the first message

    """

    async def talk() -> Seen:
        seen = Seen()
        try:
            async with asyncio.timeout(LONGEST), connect(url, proxy=None) as socket:
                try:
                    async for message in socket:
                        seen.messages.append(message)
                        if len(seen.messages) == 1 and isinstance(then, str):
                            await socket.send(then)
                        elif len(seen.messages) == 1 and then is not None:
                            then()
                except websockets.ConnectionClosed:
                    pass
                seen.code, seen.reason = socket.close_code, socket.close_reason
        except websockets.InvalidStatus as exc:
            seen.status, seen.body = exc.response.status_code, bytes(exc.response.body or b"")
            seen.headers = {k.lower(): v for k, v in exc.response.headers.raw_items()}
        return seen

    return asyncio.run(talk())


def on_trio(url: str, then: Callable[[], object] | str | None = None) -> Seen:
    """Do the same on trio."""

    async def talk() -> Seen:
        seen = Seen()
        address = httpx.URL(url)
        # It leaves a connection to the garbage collector where the server has closed or refused it.
        with trio.fail_after(LONGEST):
            stream = await trio.open_tcp_stream(address.host, address.port or 80)
            try:
                async with stream, trio.open_nursery() as nursery:
                    await converse(seen, nursery, stream, address, then)
                    nursery.cancel_scope.cancel()
            except* trio_websocket.ConnectionRejected as group:
                found: BaseException = group
                while isinstance(found, BaseExceptionGroup):
                    found = found.exceptions[0]
                note_rejection(seen, found)
        return seen

    return trio.run(talk)


async def converse(
    seen: Seen,
    nursery: trio.Nursery,
    stream: trio.SocketStream,
    address: httpx.URL,
    then: Callable[[], object] | str | None,
) -> None:
    try:
        socket = await trio_websocket.wrap_client_stream(
            nursery, stream, f"{address.host}:{address.port}", address.raw_path.decode()
        )
        while True:
            seen.messages.append(await socket.get_message())
            if len(seen.messages) == 1 and isinstance(then, str):
                await socket.send_message(then)
            elif len(seen.messages) == 1 and then is not None:
                then()
    except trio_websocket.ConnectionClosed as exc:
        seen.code, seen.reason = exc.reason.code, exc.reason.reason


def note_rejection(seen: Seen, exc: Any) -> None:
    seen.status, seen.body = exc.status_code, exc.body or b""
    seen.headers = {name.decode().lower(): value.decode() for name, value in exc.headers or ()}


CLIENTS: dict[str, Any] = {"websockets": on_asyncio, "trio-websocket": on_trio}


class BareSocket(Connection):
    """A socket whose client reads when told to, says nothing, and leaves as it likes."""

    def __init__(self, port: int, target: str, *, buffer: int | None = None) -> None:
        super().__init__(port, buffer=buffer)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "\r\n".encode()
        )

    def wait_for_handshake(self) -> None:
        """Read the answer, and not a byte more."""
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.receive(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    def receive(self, most: int = 100) -> bytes:
        """Wait for some bytes."""
        received = self.socket.recv(most)
        assert received, "the connection was closed"
        return received
