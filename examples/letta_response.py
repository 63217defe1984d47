"""
The streaming response of letta, in forty lines: pings, cancellation by a row of a database, the
status of the first chunk, last frames, and a run that goes on when its client leaves.

Needs ``uvicorn`` and ``anyio-streamkit[starlette]``. Start it with
``uvicorn --app-dir examples letta_response:app``, and then::

    curl --include --no-buffer --request POST localhost:8000/agents/agent-1/messages
    curl --request POST localhost:8000/runs/.../cancel      # its x-run-id
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamkit import (
    Head,
    Idle,
    Outcome,
    OutcomeKind,
    poll,
    with_cancellation,
    with_keepalive,
    with_timeout,
)
from streamkit.asgi import StreamHost
from streamkit.sse import Profile, ServerSentEvent
from streamkit.starlette import EventStream

logger = logging.getLogger(__name__)

Chunk: TypeAlias = dict[str, Any]
Chunks: TypeAlias = AsyncGenerator[Chunk | tuple[Chunk, int], None]

PING_EVERY, DEAD_AFTER, CHECK_EVERY = 30.0, 600.0, 0.5  # seconds

# In place of letta/server/rest_api/streaming_response.py


def run_response(
    chunks: Chunks,
    run_id: str,
    is_cancelled: Callable[[], Awaitable[object]],
    on_end: Callable[[Outcome], Awaitable[object]],
) -> EventStream:
    def ping(idle: Idle[Any]) -> Chunk:
        last: Chunk = idle.last or {}
        return {"message_type": "ping", "run_id": run_id, "seq_id": last.get("seq_id")}

    stream = with_cancellation(with_heads(chunks), poll(is_cancelled, CHECK_EVERY))
    stream = with_keepalive(with_timeout(stream, idle=DEAD_AFTER), PING_EVERY, ping)
    return EventStream(
        stream,
        profile=LETTA,
        keepalive=None,
        headers={"x-run-id": run_id},
        on_end=on_end,
        # It does so itself, with the run that it was.
        log_failures=False,
        on_disconnect="drain",
    )


async def with_heads(chunks: Chunks) -> AsyncGenerator[Chunk | Head, None]:
    """Make the status of the first chunk that of the response; a bad one is the end."""
    async with aclosing(chunks):
        started = False
        async for each in chunks:
            chunk, status = each if isinstance(each, tuple) else (each, 200)
            if not started:
                yield Head(status)
                started = True
            elif status >= 300:
                raise RuntimeError(f"the run failed with status {status}: {chunk}")
            yield chunk
            if status >= 300:
                return


def tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    if kind == "completed":
        return [ServerSentEvent("[DONE]")]
    name = "cancelled" if kind == "cancelled" else "error"
    return [ServerSentEvent(json.dumps({"message": message, "code": kind}), event=name)]


LETTA = Profile("LETTA", tail=tail)

# What stays yours: the agents, and the table of runs

busy: set[str] = set()
runs: dict[str, str] = {}


async def agent(agent_id: str) -> Chunks:
    if agent_id in busy:
        yield {"message_type": "error", "message": "The agent is busy."}, 409
        return
    busy.add(agent_id)
    try:
        for step in range(1, 61):
            yield {"message_type": "assistant_message", "seq_id": step, "content": f"step {step}"}
            await anyio.sleep(1)
    finally:
        busy.remove(agent_id)


async def messages(request: Request) -> Response:
    run_id = f"run-{uuid4()}"
    runs[run_id] = "running"

    async def is_cancelled() -> bool:
        return runs[run_id] == "cancelling"

    async def ended(outcome: Outcome) -> None:
        runs[run_id] = outcome.kind
        if outcome.kind == "failed":
            logger.error("run %s failed", run_id, exc_info=outcome.error)

    return run_response(agent(request.path_params["agent_id"]), run_id, is_cancelled, ended)


async def run(request: Request) -> Response:
    return JSONResponse({"status": runs[request.path_params["run_id"]]})


async def cancel(request: Request) -> Response:
    run_id = request.path_params["run_id"]
    if runs[run_id] == "running":
        runs[run_id] = "cancelling"
    return JSONResponse({"status": runs[run_id]}, 202)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, StreamHost], None]:
    async with StreamHost() as host:
        yield {"host": host}


app = Starlette(
    routes=[
        Route("/agents/{agent_id}/messages", messages, methods=["POST"]),
        Route("/runs/{run_id}", run),
        Route("/runs/{run_id}/cancel", cancel, methods=["POST"]),
    ],
    lifespan=lifespan,
)
