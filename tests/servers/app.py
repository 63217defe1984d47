"""The application that the servers run: one endpoint for each scenario.

What happens to a source goes to the file that ``STREAMS_LOG`` names, one JSON object a line, each
with the ``key`` of the request. Every endpoint is there twice: under ``/plain``, and under
``/wrapped`` below a ``BaseHTTPMiddleware``.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import anyio.lowlevel
from fastapi import Depends, FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamkit import Head, Outcome, StreamCancelled, with_buffer
from streamkit.asgi import SharedReceive, StreamHost
from streamkit.starlette import JsonLines, StreamResponse, WebSocketStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

options = json.loads(os.environ["STREAMS_HOST"])
options["signals"] = list(map(signal.Signals, options.pop("signals", [])))
host = StreamHost(**options)
produced: Counter[str] = Counter()
log = os.open(os.environ["STREAMS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(key: str, event: str, **details: object) -> None:
    try:
        task: int | None = anyio.get_current_task().id
    except RuntimeError:
        task = None
    record = {"key": key, "event": event, "task": task, "time": time.monotonic(), **details}
    os.write(log, json.dumps(record).encode() + b"\n")


class ConflictError(Exception):
    """What a source may raise that a handler of the framework answers."""


async def source(
    key: str, kind: str, status: int, request: Request | None
) -> AsyncGenerator[bytes | Head, None]:
    note(key, "started")
    try:
        match kind:
            case "status":
                yield Head(status)
                await anyio.sleep(0.05)
            case "reader":
                received = 0
                assert request is not None
                async for part in request.stream():
                    received += len(part)
                    # It does something with it.
                    await anyio.lowlevel.checkpoint()
                yield b"%d bytes\n" % received
                await anyio.sleep_forever()
            case "conflict":
                raise ConflictError
            case "broken":
                raise RuntimeError("secret of a source")
            case "empty":
                return
            case "teapot":
                yield Head(418, headers={"x-kind": "teapot"})
                yield b"short and stout"
            case "three":
                for number in range(3):
                    yield b"item %d\n" % number
            case "slow":
                for _ in range(5):
                    yield b"item\n"
                    await anyio.sleep(0.1)
            case "broken later":
                yield b"item\n"
                await anyio.sleep(0.05)
                raise RuntimeError("secret of a source")
            case "silent":
                await anyio.sleep_forever()
            case "idle":
                yield b"item\n"
                await anyio.sleep_forever()
            case "idle with grace":
                yield b"item\n"
                try:
                    await anyio.sleep_forever()
                except StreamCancelled:
                    await anyio.sleep(0.2)
                    note(key, "saved")
                    yield b"last item\n"
            case "fast" | "fast with grace":
                try:
                    while True:
                        await anyio.lowlevel.checkpoint()
                        produced[key] += 1
                        # 64 KiB, new ones each time: what is kept of them is seen in the memory.
                        yield b"%08d" % produced[key] * 8192
                except StreamCancelled:
                    if kind == "fast":
                        raise
                    yield b"last item\n"
                    note(key, "saved")
            case "random":
                while True:
                    await anyio.lowlevel.checkpoint()
                    produced[key] += 1
                    # 64 KiB that nobody can compress.
                    yield os.urandom(65536)
            case "hot":
                while True:
                    produced[key] += 1
                    yield b"item\n"
    except BaseException as exc:
        reason = type(exc.reason).__name__ if isinstance(exc, StreamCancelled) else None
        note(key, "raised", type=type(exc).__name__, reason=reason)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        note(key, "closed")


async def dependency(key: str) -> AsyncIterator[str]:
    """What a source may use until it is closed: a session with a database, say."""
    note(key, "dependency opened")
    try:
        yield key
    finally:
        note(key, "dependency closed")


async def stream(
    request: Request,
    key: Annotated[str, Depends(dependency)],
    kind: str,
    status: int = 200,
    final: bool = False,
    on: Literal["cancel", "drain", "close"] = "cancel",
    ahead: int = 0,
    send_timeout: float | None = None,
    finish: float | None = None,
) -> StreamResponse:
    async def ended(outcome: Outcome) -> None:
        note(key, "ended", kind=outcome.kind, reason=type(outcome.reason).__name__)

    def last(outcome: Outcome) -> bytes:
        return f"the end: {outcome.kind} {type(outcome.reason).__name__}\n".encode()

    body = SharedReceive(request.receive) if kind == "reader" else None
    items = source(key, kind, status, Request(request.scope, body or request.receive))
    return StreamResponse(
        with_buffer(items, ahead) if ahead else items,
        final=last if final else None,
        on_end=ended,
        on_disconnect=on,
        send_timeout=send_timeout,
        finish=finish,
        receive=body,
        host=host,
    )


async def socket(websocket: WebSocket) -> None:
    query = websocket.query_params
    key, kind = query["key"], query["kind"]

    async def ended(outcome: Outcome) -> None:
        note(key, "ended", kind=outcome.kind, reason=type(outcome.reason).__name__)

    def last(outcome: Outcome) -> str:
        return f"the end: {outcome.kind} {type(outcome.reason).__name__}"

    timeout = query.get("send_timeout")
    stream = WebSocketStream(
        source(key, kind, int(query.get("status", 200)), None),
        final=last if "final" in query else None,
        on_end=ended,
        send_timeout=None if timeout is None else float(timeout),
        errors="close" if "close" in query else "status",
        beat="beat" if "beat" in query else None,
        keepalive=float(query.get("beat", 15)),
        host=host,
    )
    await stream.serve(websocket)
    note(key, "returned")


async def records(request: Request, fails: bool = False, final: bool = True) -> JsonLines:
    async def items() -> AsyncGenerator[object, None]:
        for text in "a\nb", "\x85\u2028\u2029\r", "é":
            yield {"text": text}
            await anyio.sleep(0.05)
        if fails:
            raise RuntimeError("secret of a source")

    options: Any = {} if final else {"final": lambda outcome: None}
    return JsonLines(items(), beat={"type": "ping"}, keepalive=0.02, host=host, **options)


async def conflict(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "conflict"}, 409)


def streams() -> FastAPI:
    app = FastAPI(exception_handlers={ConflictError: conflict})
    app.add_api_route("/stream", stream, methods=["GET", "HEAD", "POST"])
    app.add_api_route("/lines", records)
    return app


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


async def state(request: Request) -> Response:
    """Tell how many items each source has produced, which tasks and files are there, the memory."""
    files = len(os.listdir("/dev/fd"))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[1]) * resource.getpagesize()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return JSONResponse(
        {"produced": produced, "tasks": sorted(tasks()), "files": files, "memory": memory}
    )


async def shut_down(request: Request) -> Response:
    """Do what the host does when it notices that the server is to end."""
    host.shut_down(finish=0)
    return Response()


def tasks() -> list[str]:
    """Return the names of all tasks in this process."""
    try:
        return [getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks()]
    except RuntimeError:
        import trio

        names, todo = [], [trio.lowlevel.current_root_task()]
        while todo:
            task = todo.pop()
            if task is not None:
                names.append(task.name)
                todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        return names


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with host:
        note("host", "entered")
        yield
        note("host", "leaving")
    note("host", "left")


wrapped = streams()
wrapped.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
app = Starlette(
    routes=[
        Route("/state", state),
        Route("/shut-down", shut_down, methods=["POST"]),
        WebSocketRoute("/socket", socket),
        Mount("/plain", streams()),
        Mount("/wrapped", wrapped),
    ],
    lifespan=lifespan,
)
