"""What an ASGI server and an application say to each other: the types, and the messages sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from .headers import RawHeaders

#: The arguments with which an ASGI server calls an application.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


def start(status: int, headers: RawHeaders) -> Message:
    """Return the message that begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, *, more_body: bool) -> Message:
    """Return the message with a part of an answer."""
    return {"type": "http.response.body", "body": content, "more_body": more_body}
