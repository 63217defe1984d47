"""Frameworks that need no adapter of ours: what docs/asgi.md says of Litestar and Quart."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from litestar import Litestar, Request, get
from litestar.exceptions import HTTPException
from litestar.response import Response
from quart import Quart

from observing import blocked
from streamkit import Head, with_keepalive
from streamkit.asgi import Disconnected, StreamResponse
from streamkit.sse import OPENAI_CHAT, EventStream
from support import Client, Log


class ConflictError(Exception):
    pass


async def source(kind: str) -> AsyncGenerator[Any, None]:
    match kind:
        case "missing":
            raise HTTPException(status_code=404, detail="no such run")
        case "conflict":
            raise ConflictError
        case "teapot":
            yield Head(418)
    yield "a"
    await anyio.sleep(1)
    yield "b"


@get("/text")
async def text(request: Request[Any, Any, Any]) -> StreamResponse:
    return StreamResponse(source(request.query_params["kind"]))


@get("/events")
async def events(request: Request[Any, Any, Any]) -> EventStream:
    return EventStream(source(request.query_params["kind"]), profile=OPENAI_CHAT)


def answer_conflict(request: Request[Any, Any, Any], exc: ConflictError) -> Response[Any]:
    return Response({"error": "busy"}, status_code=409)


async def ask(app: Any, path: str, **options: Any) -> Client:
    client = Client(**options)
    client.scope |= {
        "path": path.partition("?")[0],
        "query_string": path.partition("?")[2].encode(),
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("localhost", 80),
        "client": ("localhost", 1),
    }
    await client.get(app)
    return client


@pytest.mark.one_of_each
class TestLitestar:
    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            ("/text?kind=plain", [(0.0, 200), (0.0, "a"), (1.0, "b"), (1.0, "end")]),
            ("/text?kind=teapot", [(0.0, 418), (0.0, "a"), (1.0, "b"), (1.0, "end")]),
            (
                "/events?kind=plain",
                [
                    *((0.0, 200), (0.0, "data: a\n\n"), (1.0, "data: b\n\n")),
                    *((1.0, "data: [DONE]\n\n"), (1.0, "end")),
                ],
            ),
            ("/text?kind=conflict", [(0.0, 409), (0.0, '{"error":"busy"}'), (0.0, "end")]),
            (
                "/events?kind=missing",
                [
                    (0.0, 404),
                    (0.0, '{"status_code":404,"detail":"no such run"}'),
                    (0.0, "end"),
                ],
            ),
        ],
    )
    async def test_answer(self, path: str, answer: list[Any]) -> None:
        """Web: Litestar calls what a handler returns, and answers an error before an item."""
        app = Litestar([text, events], exception_handlers={ConflictError: answer_conflict})
        assert (await ask(app, path)).log == answer

    async def test_client_goes(self) -> None:
        """Web: the source of a client of Litestar that has gone is told."""
        log = Log()
        log.start()

        @get("/")
        async def endless() -> StreamResponse:
            return StreamResponse(blocked(log, "a"))

        await ask(Litestar([endless]), "/", goes_after=2.0)
        assert log == [(2.0, f"source: told to {Disconnected()}"), (2.0, "closed")]


@pytest.mark.asyncio_only
@pytest.mark.one_of_each
class TestQuart:
    async def test_stream(self) -> None:
        """Web: a view of Quart returns a generator that holds a stream, and it gets its beats."""
        app = Quart(__name__)

        @app.get("/")
        async def view() -> Any:
            async def body() -> AsyncGenerator[str, None]:
                async with with_keepalive(source("plain"), 0.4, ": ping\n") as stream:
                    async for item in stream:
                        yield item

            return body()

        client = await ask(app, "/")
        assert client.log == [
            *((0.0, 200), (0.0, "a"), (0.4, ": ping\n"), (0.8, ": ping\n"), (1.0, "b")),
            (1.0, "end"),
        ]

    async def test_client_goes(self) -> None:
        """Web: when the client of Quart goes, the source is cancelled and closed."""
        app, log = Quart(__name__), Log()
        log.start()

        @app.get("/")
        async def view() -> Any:
            async def body() -> AsyncGenerator[Any, None]:
                async with with_keepalive(blocked(log, "a"), 60, ": ping\n") as stream:
                    async for item in stream:
                        yield item

            return body()

        await ask(app, "/", goes_after=2.0)
        assert log == [(2.0, "source: told that the consumer has left"), (2.0, "closed")]
