"""What a type checker says of sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.websockets import WebSocket

from streamkit import Head, Outcome, asgi, starlette, websocket, with_cancellation, with_keepalive
from streamkit.runs import Runs


async def items() -> AsyncIterator[str | bytes | dict[str, int] | Head]:
    yield Head(409)
    yield {"a": 1}


def stop(message: str | bytes) -> bool:
    return message == "stop"


def word(outcome: Outcome) -> dict[str, str] | None:
    return {"end": outcome.kind}


async def endpoint(socket: WebSocket) -> None:
    await starlette.WebSocketStream(items(), stop=stop, final=word, grace=1).serve(socket)
    await starlette.RunMessages(Runs(), "7", owner="me", stop=None).serve(socket)


asgi.WebSocketStream(with_keepalive(with_cancellation(items()), 15, {"type": "ping"}))
asgi.WebSocketStream(items(), errors="close", subprotocols=["chat"], accepted=True)
websocket.RunMessages(Runs(), "7", beat={"type": "ping"}, keepalive=5)
asgi.WebSocketStream(items(), errors="event")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
asgi.WebSocketStream([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
