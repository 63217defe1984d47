"""
The streaming response of letta, in a hundred lines: pings, cancellation by a row of a database, the
status of the first chunk, last frames, a run that goes on when its client leaves, and one in the
background that is read again from any chunk on.

Needs ``uvicorn`` and ``anyio-streamkit[starlette]``. Start it with
``uvicorn --app-dir examples letta_response:app``, and then::

    curl --include --no-buffer --request POST localhost:8000/agents/agent-1/messages
    curl --request POST localhost:8000/runs/.../cancel      # its x-run-id

    curl --include --no-buffer --json '{"background": true}' localhost:8000/agents/agent-1/messages
    curl --no-buffer "localhost:8000/runs/.../stream?starting_after=5"
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
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
    Stream,
    poll,
    with_cancellation,
    with_keepalive,
    with_timeout,
)
from streamkit.asgi import StreamHost
from streamkit.runs import RunInfo, Runs
from streamkit.sse import Profile, ServerSentEvent
from streamkit.starlette import EventStream, RunEvents

logger = logging.getLogger(__name__)

Chunk: TypeAlias = dict[str, Any]
Chunks: TypeAlias = AsyncGenerator[Chunk | tuple[Chunk, int], None]
Check: TypeAlias = Callable[[], Awaitable[object]]
OnEnd: TypeAlias = Callable[[Outcome], Awaitable[object]]

PING_EVERY, DEAD_AFTER, CHECK_EVERY = 30.0, 600.0, 0.5  # seconds

# Instead of letta/server/rest_api/streaming_response.py


def run_response(chunks: Chunks, run_id: str, is_cancelled: Check, on_end: OnEnd) -> EventStream:
    def ping(idle: Idle[Any]) -> Chunk:
        last: Chunk = idle.last or {}
        return {"message_type": "ping", "run_id": run_id, "seq_id": last.get("seq_id")}

    return EventStream(
        with_keepalive(watched(chunks, run_id, is_cancelled), PING_EVERY, ping),
        profile=LETTA,
        keepalive=None,
        headers={"x-run-id": run_id},
        on_end=on_end,
        # It does so itself, with the id of the run.
        log_failures=False,
        on_disconnect="drain",
    )


async def background_response(
    runs: Runs, chunks: Chunks, run_id: str, is_cancelled: Check, on_end: OnEnd
) -> RunEvents:
    async def ended(outcome: Outcome, run: RunInfo) -> None:
        await on_end(outcome)

    await runs.start(watched(chunks, run_id, is_cancelled), id=run_id, on_end=ended)
    return run_again(runs, run_id)


def run_again(runs: Runs, run_id: str) -> RunEvents:
    """Answer one more reader of a run in the background. It reads ``starting_after`` itself."""
    return RunEvents(
        runs,
        run_id,
        profile=BACKGROUND,
        keepalive=PING_EVERY,
        first_item_within=15.0,  # the first ping should not decide the status
        headers={"x-run-id": run_id},
    )


def watched(chunks: Chunks, run_id: str, is_cancelled: Check) -> Stream[Chunk | Head]:
    stream = with_cancellation(with_heads(chunks, run_id), poll(is_cancelled, CHECK_EVERY))
    return with_timeout(stream, idle=DEAD_AFTER)


async def with_heads(chunks: Chunks, run_id: str) -> AsyncGenerator[Chunk | Head, None]:
    """
    Make the status of the first chunk that of the response; a bad one is the end. Each chunk gets
    its position in the run, which is what ``starting_after`` means.
    """
    position = 0
    async with aclosing(chunks):
        async for each in chunks:
            chunk, status = each if isinstance(each, tuple) else (each, 200)
            position += 1
            if position == 1:
                yield Head(status)
            elif status >= 300:
                raise RuntimeError(f"the run failed with status {status}: {chunk}")
            yield {**chunk, "run_id": run_id, "seq_id": position}
            if status >= 300:
                return


def tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    if kind == "completed":
        return [ServerSentEvent("[DONE]")]
    name = "cancelled" if kind == "cancelled" else "error"
    return [ServerSentEvent(json.dumps({"message": message, "code": kind}), event=name)]


LETTA = Profile("LETTA", tail=tail)
# To its readers, a ping is not a chunk of the run, and does not count.
PING = ServerSentEvent(json.dumps({"message_type": "ping"}))
BACKGROUND = replace(LETTA, name="BACKGROUND", beat=PING.encode())

# What stays yours: the agents, and the table of runs

busy: set[str] = set()
states: dict[str, str] = {}


async def agent(agent_id: str) -> Chunks:
    if agent_id in busy:
        yield {"message_type": "error", "message": "The agent is busy."}, 409
        return
    busy.add(agent_id)
    try:
        for step in range(1, 61):
            yield {"message_type": "assistant_message", "content": f"step {step}"}
            await anyio.sleep(1)
    finally:
        busy.remove(agent_id)


async def messages(request: Request) -> Response:
    asked = json.loads(await request.body() or b"{}")
    run_id = f"run-{uuid4()}"
    states[run_id] = "running"

    async def is_cancelled() -> bool:
        return states[run_id] == "cancelling"

    async def ended(outcome: Outcome) -> None:
        states[run_id] = outcome.kind
        if outcome.kind == "failed":
            logger.error("run %s failed", run_id, exc_info=outcome.error)

    chunks = agent(request.path_params["agent_id"])
    if asked.get("background"):
        return await background_response(request.state.runs, chunks, run_id, is_cancelled, ended)
    return run_response(chunks, run_id, is_cancelled, ended)


async def stream(request: Request) -> Response:
    return run_again(request.state.runs, request.path_params["run_id"])


async def run(request: Request) -> Response:
    return JSONResponse({"status": states[request.path_params["run_id"]]})


async def cancel(request: Request) -> Response:
    run_id = request.path_params["run_id"]
    if states[run_id] == "running":
        states[run_id] = "cancelling"
    return JSONResponse({"status": states[run_id]}, 202)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, object], None]:
    async with StreamHost() as host, Runs(host=host) as runs:
        yield {"host": host, "runs": runs}


app = Starlette(
    routes=[
        Route("/agents/{agent_id}/messages", messages, methods=["POST"]),
        Route("/runs/{run_id}", run),
        Route("/runs/{run_id}/stream", stream),
        Route("/runs/{run_id}/cancel", cancel, methods=["POST"]),
    ],
    lifespan=lifespan,
)
