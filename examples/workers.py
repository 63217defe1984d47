"""
Runs that go on while their clients come and go, in any of two workers behind one port. Whichever
worker a request reaches, it starts, shows, resumes or stops any run: the workers share a file, or
Valkey.

Needs ``fastapi``, ``uvicorn`` and ``anyio-streamkit[starlette]``. With ``--redis URL`` it needs the
extra ``redis`` as well, and a Valkey or Redis server. Start it with ``python examples/workers.py``,
and then, as often as you like::

    curl --no-buffer --request POST localhost:8000/runs/run-1
    curl --no-buffer "localhost:8000/runs/run-1?starting_after=3"
    curl --request POST localhost:8000/runs/run-1/cancel
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module

import anyio
import uvicorn
from fastapi import FastAPI, HTTPException

from streamkit.asgi import StreamHost
from streamkit.runs import RunExists, RunLog, Runs
from streamkit.sqlite import SQLiteLog
from streamkit.starlette import RunEvents


def shared_log() -> RunLog:
    """Return the log that all workers share. It is opened in the lifespan of each."""
    url = os.environ.get("WORKERS_REDIS")
    if url:
        # Needed only here.
        log: RunLog = import_module("streamkit.redis").RedisLog(url, prefix="workers")
        return log
    return SQLiteLog(os.environ.get("WORKERS_FILE", "runs.db"))


host = StreamHost()
runs = Runs(shared_log(), host=host)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with host, runs:
        yield


app = FastAPI(lifespan=lifespan)

#: Tells which worker has answered.
WORKER = {"x-worker": str(os.getpid())}


async def work() -> AsyncGenerator[dict[str, int], None]:
    """Yours: whatever takes its time."""
    for step in range(600):
        yield {"step": step, "worker": os.getpid()}
        await anyio.sleep(1)


@app.post("/runs/{run_id}")
async def start(run_id: str) -> RunEvents:
    try:
        await runs.start(work(), id=run_id)
    except RunExists:
        raise HTTPException(409, "there is a run of this name: GET it") from None
    return RunEvents(runs, run_id, headers=WORKER)


@app.get("/runs/{run_id}")
async def watch(run_id: str) -> RunEvents:
    return RunEvents(runs, run_id, headers=WORKER)


@app.post("/runs/{run_id}/cancel")
async def cancel(run_id: str) -> dict[str, int | bool]:
    stopped = await runs.cancel_and_wait(run_id, "stopped by the user", timeout=10)
    return {"stopped": stopped, "worker": os.getpid()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Share runs between workers.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file", default="runs.db", help="where runs are kept")
    parser.add_argument("--redis", metavar="URL", help="keep them in Valkey or Redis instead")
    options = parser.parse_args()
    # The workers are processes of their own.
    os.environ["WORKERS_FILE"] = options.file
    os.environ["WORKERS_REDIS"] = options.redis or ""
    uvicorn.run(
        "workers:app",
        app_dir=os.path.dirname(os.path.abspath(__file__)),
        port=options.port,
        workers=options.workers,
        access_log=False,
        # A busy machine may take its time to start one.
        timeout_worker_healthcheck=60,
    )


if __name__ == "__main__":
    main()
