"""
A proxy in front of a server that has OpenAI's API, such as vLLM, Ollama or OpenAI itself.

Needs ``httpx``, ``uvicorn`` and ``anyio-streamkit[starlette]``. Start it with
``UPSTREAM=https://api.openai.com uvicorn --app-dir examples proxy:app``, and tell its clients that
the base URL is ``http://localhost:8000/v1``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamkit import Head, Outcome
from streamkit.asgi import StreamHost
from streamkit.sse import OPENAI_CHAT, RAW, Frame, whole_events
from streamkit.starlette import EventStream, StreamResponse

UPSTREAM = os.environ.get("UPSTREAM", "http://localhost:11434")
KEEPALIVE = 15.0  # seconds of silence before a beat
PATIENCE = 600.0  # seconds of silence after which the upstream counts as dead
ASKED = ("accept", "authorization", "content-type", "openai-organization", "openai-project")
ANSWERED = ("content-type", "retry-after", "x-request-id")


async def proxy(request: Request) -> Response:
    client: httpx.AsyncClient = request.state.client
    body = await request.body()
    upstream = client.stream(
        request.method,
        request.url.path,
        params=request.url.query,
        content=body,
        headers=some(ASKED, request.headers) | {"accept-encoding": "identity"},
    )
    if asks_for_events(body):
        return EventStream(
            events(upstream),
            profile=RAW,
            keepalive=KEEPALIVE,
            first_item_within=KEEPALIVE,
            final=last_word,
        )
    return StreamResponse(whole(upstream), first_item_within=PATIENCE)


async def events(
    upstream: AbstractAsyncContextManager[httpx.Response],
) -> AsyncGenerator[Head | bytes, None]:
    """Yield whole events, so that neither a beat nor a last word gets into one."""
    async with upstream as answer:
        if not answer.is_success:
            await answer.aread()
        answer.raise_for_status()
        yield Head(answer.status_code, some(ANSWERED, answer.headers))
        async for event in whole_events(answer.aiter_bytes()):
            yield event


async def whole(
    upstream: AbstractAsyncContextManager[httpx.Response],
) -> AsyncGenerator[Head | bytes, None]:
    """Yield any other answer."""
    async with upstream as answer:
        yield Head(answer.status_code, some(ANSWERED, answer.headers))
        async for chunk in answer.aiter_bytes():
            yield chunk


def last_word(outcome: Outcome) -> list[Frame] | None:
    """Tell of any end but the regular one: that is told by the upstream."""
    return None if outcome.kind == "completed" else OPENAI_CHAT.final(outcome)


async def refused(request: Request, error: Exception) -> Response:
    """Answer as the upstream did. When that is too late, the last word tells of it."""
    assert isinstance(error, httpx.HTTPStatusError)
    answer = error.response
    return Response(answer.content, answer.status_code, some(ANSWERED, answer.headers))


async def unreachable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": {"message": "The upstream does not answer."}}, 502)


def asks_for_events(body: bytes) -> bool:
    try:
        return json.loads(body)["stream"] is True
    except (ValueError, TypeError, KeyError):
        return False


def some(names: Iterable[str], headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, object], None]:
    timeout = httpx.Timeout(PATIENCE, connect=10, pool=10)
    async with (
        httpx.AsyncClient(base_url=UPSTREAM, timeout=timeout) as client,
        StreamHost() as host,
    ):
        yield {"client": client, "host": host}


app = Starlette(
    routes=[Route("/v1/{path:path}", proxy, methods=["GET", "POST", "DELETE"])],
    exception_handlers={httpx.HTTPStatusError: refused, httpx.TransportError: unreachable},
    lifespan=lifespan,
)
