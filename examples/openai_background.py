"""
Background responses of OpenAI's API: a client that is cut off goes on, with OpenAI's own SDK.

Needs ``fastapi``, ``uvicorn`` and ``anyio-streamkit[starlette]``. Start it with
``uvicorn --app-dir examples openai_background:app``. Then, with the SDK as it is::

    client = OpenAI(base_url="http://localhost:8000/v1", api_key="...")
    for event in client.responses.create(model="m", input="Hi", background=True, stream=True):
        ...                                         # event.response.id, event.sequence_number
    client.responses.retrieve(response_id, stream=True, starting_after=sequence_number)
    client.responses.retrieve(response_id)          # its status, and when it is complete, all of it
    client.responses.cancel(response_id)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from streamkit.asgi import StreamHost
from streamkit.runs import RunInfo, RunNotFound, Runs
from streamkit.sse import OPENAI_RESPONSES
from streamkit.starlette import RunEvents

# What stays yours: the model


async def answer(prompt: str) -> AsyncGenerator[str, None]:
    """Yield an answer, piece by piece."""
    for word in f"You said: {prompt}".split():
        yield f"{word} "
        await anyio.sleep(0.2)


async def owner(authorization: Annotated[str, Header()]) -> str:
    """Look up whose key it is."""
    return authorization


# OpenAI's side of it


class Asked(BaseModel):
    model: str
    input: str
    background: bool = False
    stream: bool = False


Owner = Annotated[str, Depends(owner)]


async def events(response: dict[str, Any], prompt: str) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of a response. Each gets its ``sequence_number`` when it is read."""
    yield {"type": "response.created", "response": response}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    pieces: list[str] = []
    async for piece in answer(prompt):
        pieces.append(piece)
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    text = {"type": "output_text", "text": "".join(pieces), "annotations": list[object]()}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    output = [{**message, "content": [text]}]
    yield {
        "type": "response.completed",
        "response": {**response, "status": "completed", "output": output},
    }


def new_response(asked: Asked) -> dict[str, Any]:
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "model": asked.model,
        "background": True,
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [],
    }


async def response_of(runs: Runs, run: RunInfo) -> dict[str, Any]:
    """Return a response as it is: that of its last event if it is complete, else of its first."""
    kind = "in_progress" if run.outcome is None else run.outcome.kind
    after = run.last - 1 if kind == "completed" else 0
    status = kind if kind in ("in_progress", "completed", "cancelled") else "failed"
    response: dict[str, Any] = {}
    async with runs.attach(run.id, owner=run.owner, after=after) as entries:
        response = (await anext(entries)).item["response"]
    return {**response, "status": status}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, object], None]:
    async with StreamHost() as host, Runs(host=host) as runs:
        yield {"host": host, "runs": runs}


app = FastAPI(lifespan=lifespan)


@app.post("/v1/responses", response_model=None)
async def create(asked: Asked, owner: Owner, request: Request) -> dict[str, Any] | RunEvents:
    if not asked.background:
        raise HTTPException(400, "Only responses in the background are kept here.")
    runs: Runs = request.state.runs
    response = new_response(asked)
    run = await runs.start(events(response, asked.input), id=response["id"], owner=owner)
    if not asked.stream:
        return response
    return RunEvents(runs, run.id, owner=owner, profile=OPENAI_RESPONSES)


@app.get("/v1/responses/{response_id}", response_model=None)
async def retrieve(
    response_id: str, owner: Owner, request: Request, stream: bool = False
) -> dict[str, Any] | RunEvents:
    runs: Runs = request.state.runs
    if stream:  # it reads ``starting_after`` itself
        return RunEvents(runs, response_id, owner=owner, profile=OPENAI_RESPONSES)
    return await response_of(runs, await runs.get(response_id, owner=owner))


@app.post("/v1/responses/{response_id}/cancel")
async def cancel(response_id: str, owner: Owner, request: Request) -> dict[str, Any]:
    runs: Runs = request.state.runs
    await runs.get(response_id, owner=owner)
    await runs.cancel_and_wait(response_id, "cancelled by the client", owner=owner, timeout=10)
    return await response_of(runs, await runs.get(response_id, owner=owner))


@app.exception_handler(RunNotFound)
async def not_found(request: Request, error: RunNotFound) -> JSONResponse:
    message = "There is no such response, or it is no longer kept."
    error_type = "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": error_type}}, status_code=404)
