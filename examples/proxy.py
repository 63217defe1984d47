"""
A proxy in front of a server with OpenAI's API, such as vLLM, Ollama or OpenAI itself.

Needs ``uvicorn`` and ``anyio-streamkit[client,starlette]``. Start it with
``UPSTREAM=https://api.openai.com uvicorn --app-dir examples proxy:app``, and tell its clients that
the base URL is ``http://localhost:8000/v1``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamkit import Head, Outcome
from streamkit.asgi import StreamHost
from streamkit.client import (
    Refused,
    StreamCut,
    connect,
    openai_chat_end,
    openai_responses_end,
)
from streamkit.sse import OPENAI_CHAT, OPENAI_RESPONSES, RAW, Frame
from streamkit.starlette import EventStream, StreamResponse

UPSTREAM = os.environ.get("UPSTREAM", "http://localhost:11434")
KEEPALIVE = 15.0  # seconds of silence before a beat
PATIENCE = 600.0  # seconds of silence after which the upstream counts as dead
ASKED = ("accept", "authorization", "content-type", "openai-organization", "openai-project")
ANSWERED = ("content-type", "retry-after", "x-request-id")


# The last word of an event stream: that of the upstream, or ours instead.
CHAT = openai_chat_end, OPENAI_CHAT
ENDS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": CHAT,
    "/v1/responses": (openai_responses_end, OPENAI_RESPONSES),
}


async def proxy(request: Request) -> Response:
    client: httpx2.AsyncClient = request.state.client
    path, body = request.url.path, await request.body()
    headers = some(ASKED, request.headers) | {"accept-encoding": "identity"}
    if request.method != "POST" or not asks_for_events(body):
        upstream = client.stream(
            request.method, path, params=request.url.query, content=body, headers=headers
        )
        return StreamResponse(whole(upstream), first_item_within=PATIENCE)
    # Elsewhere, the end of a body has to do.
    is_last, profile = ENDS.get(path, (None, OPENAI_CHAT))

    def last_word(outcome: Outcome) -> list[Frame] | None:
        """Tell of any end but the regular one: that is told by the upstream."""
        return None if outcome.kind == "completed" else profile.final(outcome)

    events = connect(
        client,
        path,
        method=request.method,
        params=request.url.query,
        content=body,
        headers=headers,
        last_word=is_last,
        idle=PATIENCE,
        head=ANSWERED,
    )
    return EventStream(
        events, profile=RAW, keepalive=KEEPALIVE, first_item_within=KEEPALIVE, final=last_word
    )


async def whole(
    upstream: AbstractAsyncContextManager[httpx2.Response],
) -> AsyncGenerator[Head | bytes, None]:
    """Yield any other answer."""
    async with upstream as answer:
        yield Head(answer.status_code, some(ANSWERED, answer.headers))
        async for chunk in answer.aiter_bytes():
            yield chunk


async def refused(request: Request, error: Exception) -> Response:
    """Answer as the upstream did. When that is too late, the last word tells of it."""
    assert isinstance(error, Refused)
    return Response(error.body, error.status, some(ANSWERED, error.headers))


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
    timeout = httpx2.Timeout(PATIENCE, connect=10, pool=10)
    async with (
        httpx2.AsyncClient(base_url=UPSTREAM, timeout=timeout) as client,
        StreamHost() as host,
    ):
        yield {"client": client, "host": host}


app = Starlette(
    routes=[Route("/v1/{path:path}", proxy, methods=["GET", "POST", "DELETE"])],
    exception_handlers={
        Refused: refused,
        StreamCut: unreachable,
        httpx2.TransportError: unreachable,
    },
    lifespan=lifespan,
)
