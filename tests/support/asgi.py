"""The other side of ASGI: a client that asks, takes its time, and goes; and what stands between."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from .sources import Log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

DISCONNECT = {"type": "http.disconnect"}


class Client:
    """One request, with the server that it is made to: refuses what no server would take.

    Both sides of it never suspend where nothing is to be waited for, like real servers.

    :param method: of HTTP
    :param body: the parts of the request's body
    :param goes_after: seconds until it disconnects, which ``receive`` tells
    :param takes: what happens in a call of ``send``, by its number from 0: the seconds that it
        takes, or what it raises. ``math.inf`` is a client that no longer reads.
    :param shields: whether a call of ``send`` that takes time is shielded from cancellation, and
        ends at the latest when the client goes, as on hypercorn with trio
    :param state: the state of the lifespan

    """

    def __init__(
        self,
        method: str = "GET",
        *,
        body: tuple[bytes, ...] = (),
        goes_after: float = math.inf,
        takes: Mapping[int, float | BaseException] | None = None,
        shields: bool = False,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/",
            "query_string": b"",
            "headers": [],
        }
        if state is not None:
            self.scope["state"] = state
        #: what was sent, as the client sees it, and when
        self.log = Log()
        self.headers: dict[str, str] = {}
        #: what was sent after it had gone: nothing but the end of the answer, for who measures that
        self.late: list[Any] = []
        self.complete = False
        self.gone = anyio.Event()
        self._body = list(body)
        self._goes_after = goes_after
        self._goes_at = math.inf
        self._takes = dict(takes or {})
        self._shields = shields
        #: how many messages it was sent
        self.sends = 0
        self._started = False
        self._over = anyio.Event()

    async def get(
        self, app: Callable[..., Awaitable[None]], *, receive: Any = None, send: Any = None
    ) -> None:
        """Make the request. The two arguments take the place of this client's own."""
        self.log.start()
        self._goes_at = anyio.current_time() + self._goes_after
        await app(self.scope, receive or self.receive, send or self.send)

    def go(self) -> None:
        """Disconnect."""
        self.gone.set()
        self._over.set()

    async def receive(self) -> dict[str, Any]:
        if self._body:
            part = self._body.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._body)}
        if not self._over.is_set():
            with anyio.CancelScope(deadline=self._goes_at) as until:
                await self._over.wait()
            if until.cancelled_caught:
                self.go()
        return DISCONNECT

    async def send(self, message: dict[str, Any]) -> None:
        if self.gone.is_set():
            self.late.append(message.get("status") or message["body"])
            return
        number, self.sends = self.sends, self.sends + 1
        takes = self._takes.get(number, 0.0)
        if isinstance(takes, BaseException):
            self.gone.set()
            raise takes
        if takes and self._shields:
            until = min(anyio.current_time() + takes, self._goes_at)
            with anyio.CancelScope(shield=True, deadline=until):
                await self.gone.wait()
            if anyio.current_time() >= self._goes_at:
                self.go()
            if self.gone.is_set():
                raise anyio.BrokenResourceError
        elif takes:
            await anyio.sleep(takes)
        assert not self.complete, f"after the last message: {message}"
        if message["type"] == "http.response.start":
            assert not self._started
            self._started = True
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.log(message["status"])
        else:
            assert message["type"] == "http.response.body"
            assert self._started
            assert type(message["body"]) is bytes
            if message["body"]:
                self.log(message["body"].decode())
            if not message.get("more_body", False):
                self.complete = True
                self._over.set()
                self.log("end")


class Middleware:
    """What stands between server and application, and behaves like Starlette's BaseHTTPMiddleware.

    It runs the application in a task of its own, takes its messages from a stream and sends them
    itself, and takes an application that ends without an answer for a broken one.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        error: Exception | None = None
        sent = anyio.Event()
        to_server, from_app = anyio.create_memory_object_stream[Any]()

        async def receive_unless_sent() -> Any:
            message: Any = DISCONNECT
            async with anyio.create_task_group() as tasks:

                async def until_sent() -> None:
                    await sent.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until_sent)
                message = await receive()
                tasks.cancel_scope.cancel()
            return message

        async def send_on(message: Any) -> None:
            await to_server.send(message)
            if message.get("more_body") is False:
                await sent.wait()

        async def call() -> None:
            nonlocal error
            with to_server:
                try:
                    await self._app(scope, receive_unless_sent, send_on)
                except Exception as exc:
                    error = exc

        async def answer() -> None:
            started = False
            async for message in from_app:
                await send(message)
                started = True
                if message.get("more_body") is False:
                    break
            else:
                if not started:
                    raise error or RuntimeError("No response returned.")
                # It takes any end for a good one.
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            sent.set()

        try:
            with from_app:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    await answer()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if error is not None:
            raise error
