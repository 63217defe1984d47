"""
Cancel a run whichever worker has it: the workers share a registry over Valkey or Redis.

Needs ``fastapi``, ``uvicorn``, ``anyio-streamkit[redis,starlette]`` and a Valkey or Redis server,
of which ``VALKEY_URL`` is the address. Start it with
``uvicorn --app-dir examples --workers 2 workers:app``, and then, as often as you like::

    curl --no-buffer --request POST localhost:8000/runs/run-1 &
    curl --request POST localhost:8000/runs/run-1/cancel
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, Request

from streamkit import with_cancellation
from streamkit.asgi import StreamHost
from streamkit.redis import RedisCancelRegistry
from streamkit.starlette import EventStream

VALKEY_URL = os.environ.get("VALKEY_URL", "redis://localhost:6379")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, object], None]:
    async with RedisCancelRegistry(VALKEY_URL) as runs, StreamHost() as host:
        yield {"runs": runs, "host": host}


app = FastAPI(lifespan=lifespan)


async def work() -> AsyncGenerator[dict[str, int], None]:
    """Yours: whatever takes its time."""
    for step in range(600):
        yield {"step": step, "worker": os.getpid()}
        await anyio.sleep(1)


@app.post("/runs/{run_id}")
async def run(run_id: str, request: Request) -> EventStream:
    runs: RedisCancelRegistry = request.state.runs
    return EventStream(with_cancellation(work(), runs.open(run_id)))


@app.post("/runs/{run_id}/cancel")
async def cancel(run_id: str, request: Request) -> dict[str, int | bool]:
    runs: RedisCancelRegistry = request.state.runs
    stopped = await runs.cancel_and_wait(run_id, "stopped by the user", timeout=10)
    return {"stopped": bool(stopped), "worker": os.getpid()}
