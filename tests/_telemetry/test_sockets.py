"""``telemetry=`` of a stream over a WebSocket: what is told is that of any response."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.websockets import WebSocket

from streamkit import Head
from streamkit.asgi import StreamHost, WebSocketStream
from streamkit.runs import Runs
from streamkit.starlette import WebSocketStream as StarletteSocket
from streamkit.websocket import RunMessages
from support import Probe, Socket, aiter_of, wait_all_blocked
from support.socket import STOP
from support.telemetry import ITEMS, Told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

NAME = "streamkit.stream.name"
RESUMED = "streamkit.runs.resumed"


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


@pytest.mark.parametrize(
    ("source", "options", "kind", "error"),
    [
        (["a"], {}, "completed", None),
        (["a", OwnError()], {}, "failed", f"{__name__}.OwnError"),
        (None, {"says": {1.0: STOP}}, "cancelled", None),
        (None, {"goes_after": 1.0}, "cancelled", None),
        ([Head(409), "busy"], {}, "completed", None),
    ],
    ids=["completed", "failed", "stopped", "gone", "refused"],
)
async def test_fastapi(source: Any, options: Any, kind: str, error: str | None) -> None:
    """Telemetry: FastAPI has a span for a socket, too. It says how the stream has ended, and the
    failure of which the client was told by the last word."""
    told = Told()
    app = FastAPI(telemetry={"tracer_provider": told.tracers, "meter_provider": told.meters})

    async def items() -> AsyncGenerator[Any, None]:
        for item in source or ["a"]:
            if isinstance(item, Exception):
                raise item
            yield item
        if source is None:
            await anyio.sleep_forever()

    @app.websocket("/chat/{id}")
    async def endpoint(websocket: WebSocket, id: int) -> None:
        telemetry = told.telemetry()
        stream = StarletteSocket(items(), final=lambda outcome: outcome.kind, telemetry=telemetry)
        await stream.serve(websocket)

    socket = Socket(**options)
    socket.scope.update(path="/chat/7", root_path="", scheme="ws")
    await socket.open(app)
    (span,) = [span for span in told.spans if span.kind.name == "SERVER"]
    assert span.attributes is not None
    assert span.attributes["streamkit.outcome"] == kind
    assert span.attributes.get("error.type") == error
    assert span.status.status_code.name == ("UNSET" if error is None else "ERROR")
    assert [attributes["http.route"] for attributes, _ in told.sums(ITEMS)] == ["/chat/{id}"]


class TestRunMessages:
    @pytest.mark.parametrize(
        ("source", "options", "end"),
        [
            ({}, {}, ("completed", None)),
            ({"error": OwnError()}, {}, ("failed", "streamkit.runs.RunFailed")),
            ({"block": True}, {"says": {1.0: STOP}}, ("cancelled", None)),
            ({"block": True}, {"goes_after": 1.0}, ("closed", None)),
        ],
        ids=["completed", "failed", "stopped", "gone"],
    )
    async def test_ends(self, source: Any, options: Any, end: Any) -> None:
        """Telemetry: a socket that reads a run is told of as the run ended, though its client was
        told of that in a message; its span links to that of the run."""
        told, reader = Told(), Told()
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            run = await runs.start(Probe("a", **source).source())
            with reader.span("handshake"):
                socket = Socket(**options)
                await socket.open(RunMessages(runs, run.id, telemetry=reader.telemetry()))
            await runs.cancel_and_wait(run.id)
        assert reader.ends == [end]
        assert [attributes[NAME] for attributes, _ in reader.sums(ITEMS)] == ["RunMessages"]
        (span,) = reader.spans
        assert span.status.status_code.name == ("ERROR" if end[0] == "failed" else "UNSET")
        (of_run,) = told.spans
        assert [link.context.span_id for link in span.links] == [of_run.context.span_id]

    async def test_end_was_seen(self) -> None:
        """Telemetry: a client that has seen the end is told nothing, and so is who measures."""
        told = Told()
        async with Runs() as runs:
            run = await runs.start(Probe("a", error=OwnError()).source())
            await anyio.sleep(1)
            socket = Socket(query=f"starting_after={run.epoch}:1.end")
            await socket.open(RunMessages(runs, run.id, telemetry=told.telemetry()))
        assert socket.log.events == [101, (1011, "failed")]
        assert told.ends == [("completed", None)]

    async def test_resumed(self) -> None:
        """Telemetry: a client that comes back counts: as one that had everything, reads on from the
        log, or has missed what is kept no more."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat"), max_items=2) as runs:
            run = await runs.start(Probe(*"abc", block=True).source())
            await wait_all_blocked()
            for seen in 3, 2, 0, None, 1:
                query = "" if seen is None else f"starting_after={run.epoch}:{seen}"
                with anyio.move_on_after(1):
                    await Socket(query=query).open(RunMessages(runs, run.id))
            await runs.start(aiter_of(*"abcd"), id="trimmed")
            await anyio.sleep(1)
            socket = Socket(query="starting_after=1")
            await socket.open(RunMessages(runs, "trimmed"))
            assert socket.log.events[0] == 410
            await runs.cancel_and_wait(run.id)
        found = {attributes["streamkit.resumed"]: n for attributes, n in told.sums(RESUMED)}
        assert found == {"live": 1, "log": 2, "gap": 1}
