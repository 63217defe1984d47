"""Runs over WebSockets, on any server: what ``test_run_sockets.py`` asks. One process."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from streamkit import StreamCancelled
from streamkit.asgi import StreamHost
from streamkit.runs import Runs
from streamkit.starlette import RunMessages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

host = StreamHost(grace=3, signals=[signal.SIGTERM])
runs = Runs(host=host, grace=3)
# Of the runs that wait: what lets them go on.
gates: dict[str, anyio.Event] = {}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    async with host, runs:
        yield


async def gated(run_id: str) -> AsyncGenerator[dict[str, int], None]:
    """Say three things, wait to be let go on, and say seven more."""
    gates[run_id] = anyio.Event()
    for number in range(10):
        if number == 3:
            await gates[run_id].wait()
        yield {"number": number}


async def idle(run_id: str) -> AsyncGenerator[str, None]:
    try:
        yield "item"
        await anyio.sleep_forever()
    except StreamCancelled as stop:
        await anyio.sleep(0.1)
        yield f"told: {stop.reason if isinstance(stop.reason, str) else type(stop.reason).__name__}"


async def short(run_id: str) -> AsyncGenerator[str, None]:
    for letter in "abcde":
        yield letter


async def broken(run_id: str) -> AsyncGenerator[str, None]:
    yield "item"
    raise RuntimeError("secret of a source")


async def start(request: Request) -> JSONResponse:
    kind, run_id = request.path_params["kind"], request.path_params["run_id"]
    sources: dict[str, Any] = {"gated": gated, "idle": idle, "short": short, "broken": broken}
    most = request.query_params.get("max_items")
    options: dict[str, Any] = {} if most is None else {"max_items": int(most)}
    run = await runs.start(sources[kind](run_id), id=run_id, **options)
    return JSONResponse({"epoch": run.epoch})


async def go_on(request: Request) -> Response:
    gates[request.path_params["run_id"]].set()
    return Response()


async def read(websocket: WebSocket) -> None:
    options: dict[str, Any] = {}
    if "watch" in websocket.query_params:
        options["stop"] = None
    if "close" in websocket.query_params:
        options["errors"] = "close"
    await RunMessages(runs, websocket.path_params["run_id"], **options).serve(websocket)


async def shut_down(request: Request) -> Response:
    """Do what the host does when it notices that the server is to end."""
    host.shut_down()
    return Response()


async def state(request: Request) -> JSONResponse:
    stats = runs.stats()
    return JSONResponse(
        {"readers": stats.readers, "running": stats.running, "open": host.stats().open}
    )


app = Starlette(
    routes=[
        Route("/start/{kind}/{run_id}", start, methods=["POST"]),
        Route("/go-on/{run_id}", go_on, methods=["POST"]),
        WebSocketRoute("/runs/{run_id}", read),
        Route("/shut-down", shut_down, methods=["POST"]),
        Route("/state", state),
    ],
    lifespan=lifespan,
)
