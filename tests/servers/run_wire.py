"""Runs as servers may send them: what ``test_client_wire.py`` reads. One process."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from streamkit import Head
from streamkit.runs import MemoryLog, Runs
from streamkit.starlette import RunEvents, StreamResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.requests import Request

LARGE = 512 * 2**20
runs = Runs(MemoryLog(max_bytes=LARGE), max_bytes=LARGE)
ENDS = {"lf": b"\n", "cr": b"\r", "crlf": b"\r\n"}
EVENTS = {"content-type": "text/event-stream"}

#: How often each address was asked for, and how many bytes of a long line there were.
asked = Counter[str]()
sent = 0


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    async with runs:
        yield


async def texts(count: int, pause: float, size: int) -> AsyncGenerator[Any, None]:
    for number in range(count):
        yield f"{number} é\u2028\n" + "x" * size
        await anyio.sleep(pause)


async def start(request: Request) -> Response:
    query = request.query_params
    source = texts(int(query["count"]), float(query["pause"]), int(query["size"]))
    await runs.start(source, id=query["id"])
    return JSONResponse({})


class Framed:
    """A run whose lines end otherwise, after a byte order mark."""

    def __init__(self, run_id: str, end: bytes, bom: bytes, keepalive: float | None) -> None:
        self._answer = RunEvents(runs, run_id, keepalive=keepalive)
        self._end = end
        self._bom = bom

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def other(message: Any) -> None:
            if message.get("body"):
                body = self._bom + message["body"].replace(b"\n", self._end)
                message, self._bom = {**message, "body": body}, b""
            await send(message)

        await self._answer(scope, receive, other)


async def framed(scope: Any, receive: Any, send: Any) -> None:
    end, bom, run_id = scope["path"].split("/")[-3:]
    keepalive = None if bom == "quiet" else 0.05
    answer = Framed(run_id, ENDS[end], b"\xef\xbb\xbf" if bom == "bom" else b"", keepalive)
    await answer(scope, receive, send)


async def run(request: Request) -> Response:
    if request.path_params["run_id"] == "seen":
        name = request.headers.get("authorization", "none")
        return Response(f"event: end\ndata: {name}\n\n", headers=EVENTS)
    return RunEvents(runs, request.path_params["run_id"], keepalive=0.05)


async def only_beats(request: Request) -> Response:
    """Send nothing but beats, three times, and then something."""
    asked[request.url.path] += 1
    if asked[request.url.path] % 4:

        async def beats() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b": ping\n"
                await anyio.sleep(0.02)

        return StreamingResponse(beats(), headers=EVENTS)
    return RunEvents(runs, request.path_params["run_id"], max_age=0.2)


async def moved(request: Request) -> Response:
    status, host = request.path_params["status"], request.path_params["host"]
    port = request.url.port
    place = f"/runs/{request.path_params['run_id']}"
    return RedirectResponse(place if host == "here" else f"http://{host}:{port}{place}", status)


async def busy(request: Request) -> Response:
    """Have no time once, and then end each answer early."""
    asked[request.url.path] += 1
    if asked[request.url.path] % 2:
        at = time.time() + 2
        after = {"date": formatdate(at, usegmt=True), "seconds": "1"}[request.path_params["how"]]
        return Response("later", 503, {"retry-after": after})
    return RunEvents(runs, request.path_params["run_id"], max_age=0.3)


async def other(request: Request) -> Response:
    """Be a stream, cut, and then something else."""
    asked[request.url.path] += 1
    if asked[request.url.path] == 1:
        return Response("id: 1\ndata: a\n\n", headers=EVENTS)
    kind = request.path_params["kind"]
    headers = {"content-type": kind.replace("-", "/", 1)} if kind != "none" else {}
    return Response(b"id: 2\ndata: b\n\n", headers=headers)


async def no_end(request: Request) -> Response:
    """Send an event, and then a line without an end."""

    async def line() -> AsyncIterator[Head | bytes]:
        global sent
        sent = 0
        yield Head(200, EVENTS)
        yield b"id: 1\ndata: a\n\ndata: "
        piece = b"x" * 2**16
        for _ in range(100 * 2**20 // len(piece)):
            yield piece
            sent += len(piece)

    # Which notices that its client has left.
    return StreamResponse(line())


async def how_much(request: Request) -> Response:
    return JSONResponse({"sent": sent})


app = Starlette(
    routes=[
        Route("/start", start, methods=["POST"]),
        Mount("/framed", framed),
        Route("/runs/{run_id}", run),
        Route("/beats/{run_id}", only_beats),
        Route("/moved/{status:int}/{host}/{run_id}", moved),
        Route("/busy/{how}/{run_id}", busy),
        Route("/other/{kind}", other),
        Route("/no_end", no_end),
        Route("/how_much", how_much),
    ],
    lifespan=lifespan,
)
