"""
The client of ``streamkit.client`` as a rig: of an application in the same process, in virtual time
if that is what there is, and of real servers. Its connections are cut when a test says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup

from streamkit.client import Event, connect

#: Asked for each answer: how many bytes of its body arrive.
Limit = Callable[[], float]


async def read(client: httpx2.AsyncClient, path: str, **options: Any) -> list[Event]:
    """Read an endpoint to its last word."""
    async with connect(client, path, **options) as stream:
        return [event async for event in stream]


class Cutting(httpx2.AsyncBaseTransport):
    """
    Cuts the body of each answer.

    :param transport: what asks
    :param limit: after how many bytes

    """

    def __init__(self, transport: httpx2.AsyncBaseTransport, limit: Limit) -> None:
        self._transport = transport
        self._limit = limit
        #: what was asked
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = await self._transport.handle_async_request(request)
        assert isinstance(answer.stream, httpx2.AsyncByteStream)
        body = _Cut(answer.stream, self._limit())
        return httpx2.Response(
            answer.status_code, headers=answer.headers, stream=body, extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Cut(httpx2.AsyncByteStream):
    def __init__(self, body: httpx2.AsyncByteStream, left: float) -> None:
        self._body = body
        self._left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._left <= 0:
            raise httpx2.ReadError("cut")
        async for piece in self._body:
            yield piece[: int(min(self._left, len(piece)))]
            self._left -= len(piece)
            if self._left <= 0:
                raise httpx2.ReadError("cut")

    async def aclose(self) -> None:
        await self._body.aclose()


@asynccontextmanager
async def asking(
    app: Any, limit: Limit = lambda: float("inf")
) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a client of an application that is called in this process."""
    async with anyio.create_task_group() as tasks:
        transport = Cutting(InProcess(app, tasks), limit)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@asynccontextmanager
async def asking_at(
    port: int, limit: Limit = lambda: float("inf"), **options: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a client of a server. Each request has a connection of its own, which is what is cut."""
    transport = Cutting(httpx2.AsyncHTTPTransport(verify=False, trust_env=False), limit)
    async with httpx2.AsyncClient(
        transport=transport,
        base_url=f"http://127.0.0.1:{port}",
        headers={"connection": "close"},
        **options,
    ) as client:
        yield client


class InProcess(httpx2.AsyncBaseTransport):
    """
    Calls an application for each request, in a task of its own, and sends its answer as it comes.

    :param app: of ASGI
    :param tasks: where it runs

    """

    def __init__(self, app: Any, tasks: TaskGroup) -> None:
        self._app = app
        self._tasks = tasks

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(request, await request.aread())
        self._tasks.start_soon(exchange.call, self._app)
        try:
            start = await exchange.next()
        except BaseException:
            exchange.leave()
            raise
        assert start is not None, "no answer"
        return httpx2.Response(start["status"], headers=start["headers"], stream=exchange)


class _Exchange(httpx2.AsyncByteStream):
    """One request and its answer."""

    def __init__(self, request: httpx2.Request, body: bytes) -> None:
        self._scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        self._body: list[bytes] = [body]
        self._patience = request.extensions["timeout"]["read"]
        self._gone = anyio.Event()
        self._to_client, self._messages = anyio.create_memory_object_stream[Any](0)

    async def call(self, app: Any) -> None:
        with self._to_client:
            try:
                await app(self._scope, self._receive, self._send)
            except Exception as exc:
                with suppress(anyio.BrokenResourceError):
                    await self._to_client.send(exc)

    async def _receive(self) -> Any:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        # As on most servers, it does nothing when the client has gone.
        with suppress(anyio.BrokenResourceError):
            await self._to_client.send(message)
        if not message.get("more_body", True):
            self._gone.set()

    async def next(self) -> Any:
        """Return the next message, or ``None`` after the last."""
        with anyio.move_on_after(self._patience):
            try:
                message = await self._messages.receive()
            except anyio.EndOfStream:
                return None
            if isinstance(message, Exception):
                raise httpx2.RemoteProtocolError("cut") from message
            return message
        raise httpx2.ReadTimeout("silent")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.next()) is not None:
            yield message["body"]
            if not message.get("more_body", False):
                return

    def leave(self) -> None:
        self._gone.set()
        self._messages.close()

    async def aclose(self) -> None:
        self.leave()
