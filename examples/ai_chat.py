"""
A chat of the AI SDK whose answer goes on when its page is left, and is there when it comes back.

Needs ``fastapi``, ``openai``, ``uvicorn`` and ``anyio-streamkit[starlette]``. Start it with
``OPENAI_API_KEY=... uvicorn --app-dir examples ai_chat:app``; ``OPENAI_BASE_URL`` is for another
model server, and ``MODEL`` for its model. A page needs only this, since ``stop()`` of the
chat would only leave::

    const { messages, sendMessage } = useChat({ id, resume: true });
    const stop = () => fetch(`/api/chat/${id}/cancel`, { method: "POST" });
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Body, FastAPI
from openai import AsyncOpenAI

from streamkit import Outcome
from streamkit.runs import RunInfo, Runs
from streamkit.sse import VERCEL_UI
from streamkit.starlette import RunEvents

MODEL = os.environ.get("MODEL", "gpt-5-mini")
model, runs = AsyncOpenAI(), Runs()

# The current run of each chat. For several workers, use a table, and keep runs in Redis.
active: dict[str, str] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with model, runs:
        yield


app = FastAPI(lifespan=lifespan)


async def answer(messages: list[dict[str, Any]]) -> AsyncGenerator[str, None]:
    asked: Any = [
        {
            "role": message["role"],
            "content": "".join(part.get("text", "") for part in message["parts"]),
        }
        for message in messages
    ]
    async with await model.chat.completions.create(
        model=MODEL, messages=asked, stream=True
    ) as chunks:
        async for chunk in chunks:
            for choice in chunk.choices:
                if text := choice.delta.content:
                    yield text


@app.post("/api/chat")
async def ask(
    chat: Annotated[str, Body(alias="id")], messages: Annotated[list[dict[str, Any]], Body()]
) -> RunEvents:
    async def ended(outcome: Outcome, info: RunInfo) -> None:
        # Save the answer here. A later visitor reads it from there, unless they ask again.
        if active.get(chat) == info.id:
            del active[chat]

    run_id = uuid4().hex
    before, active[chat] = active.get(chat), run_id
    if before is not None:
        await runs.cancel_and_wait(before, "asked again")
    await runs.start(answer(messages), id=run_id, on_end=ended)
    return RunEvents(runs, run_id, profile=VERCEL_UI)


@app.get("/api/chat/{chat}/stream")
async def come_back(chat: str) -> RunEvents:
    # 204 where there is no run.
    return RunEvents(runs, active.get(chat, "none"), profile=VERCEL_UI)


@app.post("/api/chat/{chat}/cancel")
async def cancel(chat: str) -> dict[str, bool]:
    """Stop the answer, and return when that is done."""
    run_id = active.get(chat)
    if run_id is None:
        return {"stopped": False}
    return {"stopped": await runs.cancel_and_wait(run_id, "stopped by the user", timeout=10)}
