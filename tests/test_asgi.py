"""Responses: their status, their end, clients that go, hosts that shut down."""

from __future__ import annotations

import anyio

from streamkit import Head
from streamkit.asgi import StreamResponse
from support import Client, Probe, aiter_of


class TestAnswer:
    async def test_items(self) -> None:
        """Web: items go out as they come, after the status, and one last message ends them."""
        client, probe = Client(), Probe("a", "b", every=1.0)
        response = StreamResponse(probe.source())
        await client.get(response)
        assert client.log == [(1.0, 200), (1.0, "a"), (2.0, "b"), (2.0, "end")]
        assert response.outcome is not None
        assert (response.outcome.kind, response.outcome.items) == ("completed", 2)
        assert probe.closed == 1

    async def test_head_of_the_source(self) -> None:
        """Web: a Head decides status and headers, before there is an item."""

        async def source():
            yield Head(409, {"Retry-After": "7", "Cache-Control": "no-store"})
            await anyio.sleep(3)
            yield "busy"

        client = Client()
        await client.get(StreamResponse(source(), headers={"x-run": "12"}))
        assert client.log == [(0.0, 409), (3.0, "busy"), (3.0, "end")]
        assert client.headers == {
            "x-accel-buffering": "no",
            "content-type": "text/plain; charset=utf-8",
            "x-run": "12",
            "retry-after": "7",
            "cache-control": "no-store",
        }

    async def test_empty(self) -> None:
        """Web: a stream without items is a complete answer without a body."""
        client = Client()
        await client.get(StreamResponse(aiter_of()))
        assert client.log.events == [200, "end"]
