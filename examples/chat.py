"""
A chat endpoint with a stop button. The answer so far is saved, however it ends.

Needs ``fastapi``, ``openai``, ``uvicorn`` and ``anyio-streamkit[starlette]``. Start it with
``OPENAI_API_KEY=... uvicorn --app-dir examples chat:app``; ``OPENAI_BASE_URL`` is for another model
server, and ``MODEL`` for its model. Then, with an id of your own for each run::

    run=$(uuidgen)
    curl --no-buffer --json '{"question": "Tell me a long story."}' localhost:8000/chat/$run
    curl --request POST localhost:8000/cancel/$run      # in another terminal
"""

import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from anyio import Path
from fastapi import Body, FastAPI
from openai import AsyncOpenAI

from streamkit import CancelRegistry, Outcome, with_cancellation
from streamkit.asgi import StreamHost
from streamkit.starlette import EventStream

logger = logging.getLogger(__name__)
MODEL = os.environ.get("MODEL", "gpt-5-mini")
model, runs = AsyncOpenAI(), CancelRegistry()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, StreamHost], None]:
    async with model, StreamHost() as host:
        yield {"host": host}


app = FastAPI(lifespan=lifespan)


@app.post("/chat/{run_id}")
async def chat(run_id: UUID, question: Annotated[str, Body(embed=True)]) -> EventStream:
    said: list[str] = []

    async def answer() -> AsyncGenerator[str, None]:
        async with await model.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], stream=True
        ) as chunks:
            async for chunk in chunks:
                for choice in chunk.choices:
                    if text := choice.delta.content:
                        said.append(text)
                        yield text

    async def save(outcome: Outcome) -> None:
        record = {"question": question, "answer": "".join(said), "ended": outcome.kind}
        await Path(f"{run_id}.json").write_text(json.dumps(record))
        if outcome.kind == "failed":
            logger.error("run %s failed", run_id, exc_info=outcome.error)

    stream = with_cancellation(answer(), runs.open(run_id))
    # save() logs failures, with the id of the run.
    return EventStream(stream, on_end=save, log_failures=False)


@app.post("/cancel/{run_id}")
async def cancel(run_id: UUID) -> dict[str, bool]:
    """Stop a run, and return when what there is of its answer is saved."""
    stopped = await runs.cancel_and_wait(run_id, "stopped by the user", timeout=10)
    return {"stopped": bool(stopped)}
