"""What an ASGI server and an application say to each other over a WebSocket."""

from __future__ import annotations

from .._http.headers import RawHeaders
from .._http.messages import Message, Scope

#: The first message that the application gets.
CONNECT = "websocket.connect"

#: What a client has sent.
RECEIVE = "websocket.receive"

#: The client has gone, or the server has closed the socket.
DISCONNECT = "websocket.disconnect"

# The extension of servers that accept an HTTP answer in place of a handshake.
_DENIAL = "websocket.http.response"


def can_be_denied(scope: Scope) -> bool:
    """Tell whether the server accepts an HTTP answer in place of a handshake."""
    return _DENIAL in (scope.get("extensions") or ())


def accept(subprotocol: str | None, headers: RawHeaders) -> Message:
    """Return the message that ends the handshake."""
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}


def frame(content: str | bytes) -> Message:
    """Return the message with one item."""
    kind = "text" if isinstance(content, str) else "bytes"
    return {"type": "websocket.send", kind: content}


def close(code: int, reason: str) -> Message:
    """Return the message that closes the socket. Before the handshake, it means the status 403."""
    return {"type": "websocket.close", "code": code, "reason": reason}


def denial(message: Message) -> Message:
    """Return a message of an HTTP response as one that answers a handshake."""
    return {**message, "type": f"websocket.{message['type']}"}
