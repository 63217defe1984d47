"""
A client of an ASGI application, in the same event loop: it can be slow, and can leave at any time.

The block of a response is the connection. Leaving it before the end disconnects, like a browser
whose tab is closed. A client that does not read holds up the application, once that has sent more
than a server would buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self, TypeAlias
from urllib.parse import unquote

import anyio
from anyio.lowlevel import checkpoint

from .._core.exceptions import both
from .asgi_lifespan import Lifespan

App: TypeAlias = Callable[[Any, Any, Any], Awaitable[object]]
Body: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]

_DISCONNECT = {"type": "http.disconnect"}


class _Cut(ConnectionError):
    """Raised in the block when the application has raised. The application's error replaces it."""


class AsgiClient:
    """
    A client of an application, on asyncio and on Trio.

    Enter it for the application's lifespan. Without the block, there is no lifespan.

    :param app: the application
    :param buffer: how many bytes of a response are buffered before it is read
    :param raises_when_gone: whether sending to a client that has gone raises an :exc:`OSError`, as
        on some servers. On others, nothing happens
    """

    def __init__(self, app: App, *, buffer: int = 65536, raises_when_gone: bool = False) -> None:
        self._app = app
        self._buffer = buffer
        self._raises_when_gone = raises_when_gone
        self._lifespan: Lifespan | None = None

    async def __aenter__(self) -> Self:
        """
        Start the application.

        :raises RuntimeError: if it reports a failure, or if it was started before
        """
        if self._lifespan is not None:
            raise RuntimeError("the application runs already: make another AsgiClient")
        self._lifespan = Lifespan(self._app)
        await self._lifespan.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """
        Shut the application down, and wait until that is done.

        :raises RuntimeError: if it reports a failure
        """
        assert self._lifespan is not None
        await self._lifespan.stop()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
    ) -> AsyncGenerator[AsgiResponse, None]:
        """
        Make a request, and wait for the beginning of its response.

        If the block is left before the response is complete, the client disconnects. Then it waits
        for the application to end.

        :param method: the HTTP method
        :param url: the path, and the query after a ``?``
        :param headers: headers of the request
        :param body: the body of the request: at once, or in pieces, which are taken as the
            application asks for them
        :raises RuntimeError: if the application ends without a response
        :raises BaseException: what the application raises, bare; if the block raises as well, a
            group of both
        """
        response = AsgiResponse(self._buffer, self._raises_when_gone)
        scope = self._scope(method, url, headers or {})
        error: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(response.run, self._app, scope)
            tasks.start_soon(response.feed, body)
            try:
                await response.begin()
                yield response
            except anyio.get_cancelled_exc_class():
                response.leave()
                raise
            except _Cut:
                # The application's own error says more.
                pass
            except BaseException as exc:
                error = exc
            response.leave()
        error = both(error, response.error)
        if error is not None:
            try:
                raise error
            finally:
                del error

    def get(
        self, url: str, *, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[AsgiResponse]:
        """Make a GET request: see :meth:`request`."""
        return self.request("GET", url, headers=headers)

    def _scope(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        path, _, query = url.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method.upper(),
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
        }
        if self._lifespan is not None:
            scope["state"] = dict(self._lifespan.state)
        return scope


class AsgiResponse:
    """
    A response that is being received: iterate over it for its pieces, as they were sent.

    It is made by :meth:`AsgiClient.request`.
    """

    def __init__(self, buffer: int, raises_when_gone: bool) -> None:
        #: The status, known inside the block.
        self.status: int = 0
        #: The headers, with names in lower case.
        self.headers: dict[str, str] = {}
        #: Whether the application has sent the last message of the response.
        self.is_complete: bool = False
        #: What the application sent after the client had gone.
        self.late: list[bytes] = []
        #: What the application has raised.
        self.error: BaseException | None = None
        self._incoming: deque[dict[str, Any]] = deque()
        self._feeding = anyio.CancelScope()
        self._buffer = buffer
        self._raises_when_gone = raises_when_gone
        self._waiting: deque[bytes] = deque()
        self._is_gone = False
        self._is_over = False
        self._changed = anyio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """
        Wait for the next piece.

        :raises StopAsyncIteration: at the end of a complete response
        :raises ConnectionError: if the application ends before that
        """
        while not self._waiting:
            if self.is_complete:
                raise StopAsyncIteration
            if self._is_over:
                # Whatever cancelled the application also cancels this task, perhaps just now.
                await checkpoint()
                text = "the application has ended in the middle of its response"
                raise ConnectionError(text) if self.error is None else _Cut(text)
            await self._changed.wait()
        piece = self._waiting.popleft()
        self._change()
        return piece

    async def read(self) -> bytes:
        """Wait for the rest of the response, and return it."""
        return b"".join([piece async for piece in self])

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        """Call the application. What it raises is kept."""
        try:
            await app(scope, self._receive, self._send)
        except Exception as exc:
            self.error = exc
        finally:
            self._is_over = True
            self._feeding.cancel()
            self._change()

    async def begin(self) -> None:
        """Wait until the response begins."""
        while not self.status:
            if self._is_over:
                await checkpoint()
                text = "the application has ended without a response"
                raise RuntimeError(text) if self.error is None else _Cut(text)
            await self._changed.wait()

    def leave(self) -> None:
        """Disconnect."""
        self._is_gone = True
        self._change()

    async def feed(self, body: Body) -> None:
        """Give the application the body of the request, always one piece ahead."""
        with self._feeding:
            if isinstance(body, AsyncIterable):
                pieces = body.__aiter__()
                try:
                    async for piece in pieces:
                        await self._put(piece)
                finally:
                    if isinstance(pieces, AsyncGenerator):
                        with anyio.CancelScope(shield=True):
                            await pieces.aclose()
            elif not isinstance(body, bytes):
                for piece in body:
                    await self._put(piece)
            last = body if isinstance(body, bytes) else b""
            await self._put(last, more=False)

    async def _put(self, piece: bytes, *, more: bool = True) -> None:
        self._incoming.append({"type": "http.request", "body": piece, "more_body": more})
        self._change()
        while self._incoming:
            await self._changed.wait()

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _receive(self) -> dict[str, Any]:
        while not (self._is_gone or self.is_complete or self._incoming):
            await self._changed.wait()
        if self._incoming and not self._is_gone:
            message = self._incoming.popleft()
            self._change()
            return message
        return _DISCONNECT

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if self.is_complete or (kind == "http.response.start") == bool(self.status):
            raise RuntimeError(f"no server takes {kind!r} here")
        if kind == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode("latin-1") for k, v in message["headers"]}
        else:
            piece = bytes(message.get("body", b""))
            if self._is_gone:
                self.late.append(piece)
                if self._raises_when_gone:
                    raise OSError("the client has gone")
                return
            if piece:
                self._waiting.append(piece)
            self.is_complete = not message.get("more_body", False)
        self._change()
        while sum(map(len, self._waiting)) > self._buffer and not self._is_gone:
            await self._changed.wait()
