"""Runs in a file, for ``test_client.py``: several processes, of which some are killed."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from streamkit.runs import Runs
from streamkit.sqlite import SQLiteLog
from streamkit.sse import BROWSER, OPENAI_CHAT
from streamkit.starlette import JsonLines, RunEvents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

runs = Runs(SQLiteLog(os.environ["RUNS"], lease=1.0))
busy = 0
sent_on = set[str]()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    async with runs:
        yield


async def texts(count: int, pause: float) -> AsyncGenerator[Any, None]:
    for number in range(count):
        yield {"text": f"{number} é\u2028\r\n"}
        await anyio.sleep(pause)


async def start(request: Request) -> Response:
    query = request.query_params
    source = texts(int(query["count"]), float(query["pause"]))
    run = await runs.start(source, id=query["id"])
    if query.get("only"):
        return JSONResponse({"id": run.id})
    return RunEvents(runs, run.id, location="/runs/{run_id}", keepalive=0.05)


async def read(request: Request) -> Response:
    global busy
    if busy:
        busy -= 1
        return Response(status_code=503, headers={"retry-after": "0"})
    profile = OPENAI_CHAT if request.query_params.get("chat") else BROWSER
    max_age = request.query_params.get("max_age")
    return RunEvents(
        runs,
        request.path_params["run_id"],
        profile=profile,
        keepalive=0.05,
        max_age=None if max_age is None else float(max_age),
    )


async def moved(request: Request) -> Response:
    """Redirect, and have no time twice."""
    global busy
    run_id = request.path_params["run_id"]
    if run_id not in sent_on:
        sent_on.add(run_id)
        busy = 2
    return RedirectResponse(f"/runs/{run_id}", 307)


async def lines(request: Request) -> Response:
    return JsonLines(texts(3, 0.01), beat={"type": "ping"}, keepalive=0.005)


app = Starlette(
    routes=[
        Route("/start", start, methods=["POST"]),
        Route("/runs/{run_id}", read),
        Route("/moved/{run_id}", moved),
        Route("/lines", lines),
    ],
    lifespan=lifespan,
)
