"""Runs behind FastAPI: what ``test_run_answers.py`` asks. One process, one ``MemoryLog``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import FastAPI, Request

from streamkit import StreamCancelled
from streamkit.asgi import StreamHost
from streamkit.runs import RunInfo, Runs
from streamkit.starlette import RunEvents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from streamkit import Outcome

TEXTS = [f"text {number}, é" for number in range(30)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
    async with StreamHost(grace=5) as host, Runs(host=host) as runs:
        yield {"host": host, "runs": runs}


app = FastAPI(lifespan=lifespan)


async def texts(pause: float) -> AsyncGenerator[str, None]:
    for text in TEXTS:
        yield text
        await anyio.sleep(pause)


async def forever() -> AsyncGenerator[Any, None]:
    number = 0
    try:
        while True:
            yield number
            number += 1
            await anyio.sleep(0.05)
    except StreamCancelled:
        yield "told"


async def saved(outcome: Outcome, info: RunInfo) -> None:
    await anyio.sleep(0.2)
    print(f"saved {info.id}: {outcome.kind}, {info.last} items", flush=True)


@app.post("/start/{kind}")
async def start(kind: str, request: Request) -> dict[str, str]:
    source = forever() if kind == "forever" else texts(0.02 if kind == "slow" else 0)
    run = await request.state.runs.start(source, on_end=saved)
    return {"id": run.id, "epoch": run.epoch}


@app.get("/runs/{run_id}")
async def read(run_id: str, request: Request, max_age: float | None = None) -> RunEvents:
    return RunEvents(request.state.runs, run_id, max_age=max_age)
