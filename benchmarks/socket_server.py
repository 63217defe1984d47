"""
The server of B6: uvicorn in a process of its own, with the endpoint of one peer.

``python -m benchmarks.socket_server PEER LISTENER CONTROL LOOP PROTOCOL``, where the second and the
third are the numbers of open sockets: the one to listen on, and one for commands. A command is a
line, and so is its answer, in JSON. ``go N`` lets each source yield that many more items, ``look``
tells the processor time of the process, ``collect`` that of a collection of all garbage, ``weigh``
its memory, and ``empty`` is answered when no source is open.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse as FastAPIResponse, ServerSentEvent as FastAPIEvent
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from streamkit.asgi import StreamHost
from streamkit.starlette import EventStream

from .responses import FASTAPI, SSE_STARLETTE, STARLETTE, SUBJECT, event_of

#: Seconds between two items of a source.
PACE = 0.05


class Sources:
    """All that are open. Each says one item, and more when it is told to."""

    def __init__(self, on_empty: Callable[[], object]) -> None:
        self.open = 0
        self._on_empty = on_empty
        self._go = asyncio.Event()
        self._count = 0

    def go(self, count: int) -> None:
        """Let each yield this many more items."""
        self._count = count
        self._go.set()
        self._go = asyncio.Event()

    async def one(self, form: Callable[[str], Any]) -> AsyncGenerator[Any, None]:
        self.open += 1
        try:
            yield form("token 0")
            while True:
                await self._go.wait()
                for number in range(1, self._count + 1):
                    # A model takes its time, and each has another rhythm.
                    await anyio.sleep(PACE)
                    yield form(f"token {number}")
        finally:
            self.open -= 1
            if not self.open:
                self._on_empty()


class Application:
    """What all peers have in common: the lifespan, which takes commands."""

    def __init__(self, control: socket.socket) -> None:
        self.sources = Sources(self._note_empty)
        self._control = control
        self._is_asked = False

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control, self._obey)
        async with StreamHost() as host:
            self._answer({})
            yield {"host": host}
        loop.remove_reader(self._control)

    def _obey(self) -> None:
        match self._control.recv(100).decode().split():
            case ["go", count]:
                self.sources.go(int(count))
                self._answer({})
            case ["look"]:
                self._answer({"cpu": time.process_time()})
            case ["empty"]:
                self._is_asked = True
                self._note_empty()
            case ["collect"]:
                began = time.process_time()
                gc.collect()
                self._answer({"cpu": time.process_time() - began})
            case ["weigh"]:
                gc.collect()
                self._answer({"memory": memory()})
            case other:
                raise ValueError(f"an unknown command: {other}")

    def _note_empty(self) -> None:
        if self._is_asked and not self.sources.open:
            self._is_asked = False
            self._answer({})

    def _answer(self, form: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(form).encode() + b"\n")

    # The peers

    def event_stream(self) -> Any:
        async def endpoint(request: Request) -> Response:
            return EventStream(self.sources.one(str), final=lambda outcome: None)

        return self._starlette(endpoint)

    def sse_starlette(self) -> Any:
        async def endpoint(request: Request) -> Response:
            return EventSourceResponse(self.sources.one(str), sep="\n")

        return self._starlette(endpoint)

    def starlette(self) -> Any:
        async def endpoint(request: Request) -> Response:
            items = self.sources.one(event_of)
            return StreamingResponse(items, media_type="text/event-stream")

        return self._starlette(endpoint)

    def fastapi(self) -> Any:
        app = FastAPI(openapi_url=None, lifespan=self.lifespan)

        @app.get("/", response_class=FastAPIResponse)
        async def endpoint() -> AsyncGenerator[FastAPIEvent, None]:
            async for event in self.sources.one(lambda text: FastAPIEvent(raw_data=text)):
                yield event

        return app

    def _starlette(self, endpoint: Any) -> Starlette:
        return Starlette(routes=[Route("/", endpoint)], lifespan=self.lifespan)


PEERS: dict[str, Callable[[Application], Any]] = {
    SUBJECT: Application.event_stream,
    SSE_STARLETTE: Application.sse_starlette,
    FASTAPI: Application.fastapi,
    STARLETTE: Application.starlette,
}


def memory() -> int:
    """Return the bytes that the process has in memory."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    # The most that it ever had.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main(peer: str, listener: str, control: str, loop: Any, protocol: Any) -> None:
    application = Application(socket.socket(fileno=int(control)))
    config = uvicorn.Config(
        PEERS[peer](application),
        loop=loop,
        http=protocol,
        log_level="warning",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(listener))])


if __name__ == "__main__":
    main(*sys.argv[1:])
