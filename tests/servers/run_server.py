"""
Runs on any server: what ``test_many_readers.py`` and ``test_deploy.py`` ask.

It is one process, and there may be others with the log that ``LOG`` names: a file, or an address.
"""

from __future__ import annotations

import os
import resource
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamkit import StreamCancelled
from streamkit._runs import codec
from streamkit.asgi import StreamHost
from streamkit.redis import RedisLog
from streamkit.runs import MemoryLog, RunInfo, RunLog, Runs
from streamkit.sqlite import SQLiteLog
from streamkit.starlette import RunEvents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from streamkit import Outcome


def chosen_log() -> RunLog:
    """Return the log, which is that of this process alone unless it has a name."""
    where = os.environ.get("LOG", "")
    if where.startswith("redis:"):
        return RedisLog(where, prefix="servers")
    return SQLiteLog(where) if where else MemoryLog()


#: What is written by a later release, whose form of a text nobody knows yet.
if "LATER" in os.environ:
    codec._TEXT = bytes([codec._VERSION + 1]) + codec._TEXT[1:]

host = StreamHost(grace=3, finish=float(os.environ.get("FINISH", "0")))
runs = Runs(chosen_log(), host=host, grace=3, max_bytes=2**20)
made = 0


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    async with host, runs:
        yield


async def steady() -> AsyncGenerator[Any, None]:
    """Go on until it is told, and then say so."""
    try:
        for number in count():
            yield number
            await anyio.sleep(0.5)
    except StreamCancelled:
        await anyio.sleep(0.2)
        yield "told"


async def hot() -> AsyncGenerator[bytes, None]:
    """Never suspend."""
    global made
    while True:
        yield b"x" * 10_000
        made += 1


async def some(ending: str) -> AsyncGenerator[str, None]:
    """Go on for a while, and end in a certain way."""
    for number in range(60):
        yield f"text {number}, \u00e9"
        await anyio.sleep(0.02)
    if ending == "fails":
        raise LookupError("secret")
    if ending == "is cancelled":
        await anyio.sleep_forever()


async def saved(outcome: Outcome, info: RunInfo) -> None:
    await anyio.sleep(0.1)
    with Path(os.environ["SAVED"]).open("a", encoding="ascii") as file:
        file.write(f"{info.id} {outcome.kind} {type(outcome.reason).__name__} {info.last}\n")


async def start(request: Request) -> JSONResponse:
    kind = request.path_params["kind"]
    sources = {"steady": steady, "hot": hot}
    source = sources[kind]() if kind in sources else some(kind)
    run = await runs.start(source, on_end=saved)
    return JSONResponse({"id": run.id, "epoch": run.epoch})


async def read(request: Request) -> RunEvents:
    return RunEvents(runs, request.path_params["run_id"])


async def cancel(request: Request) -> JSONResponse:
    return JSONResponse(await runs.cancel_and_wait(request.path_params["run_id"], "enough"))


async def state(request: Request) -> JSONResponse:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    stats = runs.stats()
    return JSONResponse(
        {
            "memory": pages * resource.getpagesize(),
            "made": made,
            "readers": stats.readers,
            "running": stats.running,
        }
    )


app = Starlette(
    routes=[
        Route("/start/{kind}", start, methods=["POST"]),
        Route("/runs/{run_id}", read),
        Route("/cancel/{run_id}", cancel, methods=["POST"]),
        Route("/state", state),
    ],
    lifespan=lifespan,
)
