"""``telemetry=`` of a stream over a WebSocket: what is told is that of any response."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from streamkit.asgi import StreamHost, WebSocketStream
from support import Probe, Socket, aiter_of
from support.socket import STOP
from support.telemetry import Told


class OwnError(Exception):
    """What a source may raise."""


@pytest.mark.parametrize(
    ("options", "source", "end"),
    [
        ({}, {}, ("completed", None)),
        ({}, {"error": OwnError()}, ("failed", f"{__name__}.OwnError")),
        ({"says": {1.0: STOP}}, {"block": True}, ("cancelled", None)),
        ({"goes_after": 1.0}, {"block": True}, ("cancelled", None)),
    ],
    ids=["completed", "failed", "stopped", "gone"],
)
async def test_ends(options: Any, source: Any, end: Any) -> None:
    """Telemetry: each kind of end of a socket; nothing of HTTP is sent for who measures."""
    told, socket = Told(), Socket(**options)
    with told.span():
        stream = WebSocketStream(Probe("a", **source).source(), telemetry=told.telemetry("chat"))
        with pytest.raises(OwnError) if end[0] == "failed" else nullcontext():
            await socket.open(stream)
    assert told.ends == [end]
    assert told.said[0][0] == ("ERROR" if end[0] == "failed" else "UNSET")
    assert told.active == 0


async def test_host() -> None:
    """Telemetry: a host tells of its sockets; one that is refused is cancelled."""
    told = Told()
    async with StreamHost(telemetry=told.telemetry()) as host:
        await Socket().open(WebSocketStream(aiter_of("a"), host=host))
        host.shut_down()
        await Socket().open(WebSocketStream(aiter_of("a"), host=host))
    assert sorted(told.ends) == [("cancelled", None), ("completed", None)]
