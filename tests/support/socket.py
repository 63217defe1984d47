"""The other side of a WebSocket over ASGI: a client, and the server that it has connected to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from streamkit import StreamCancelled

from .sources import Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

# What a client says that wants its stream to stop.
STOP = '{"type": "stop", "reason": "enough"}'


class Socket:
    """One socket, with the server that it is opened at: refuses what no server would take.

    Both sides of it never suspend where nothing is to be waited for, like real servers.

    :param says: what the client sends, by the seconds until then
    :param goes_after: seconds until the client goes, without a close of the server's
    :param code: what the server says of it then
    :param takes: what happens in a call of ``send``, by its number from 0: the seconds that it
        takes, or what it raises. ``math.inf`` is a client that no longer reads.
    :param shields: whether a call of ``send`` that takes time is shielded from cancellation, and
        ends at the latest when the client goes, as on hypercorn with trio
    :param keeps: whether ``receive`` is shielded, and ends only when the client goes
    :param is_strict: whether nothing is closed while somebody is in ``receive``, as on granian
    :param deniable: whether the server takes an answer of HTTP in place of the handshake
    :param state: the state of the lifespan
    :param subprotocols: what the client offers

    """

    def __init__(
        self,
        *,
        says: Mapping[float, str | bytes] | None = None,
        goes_after: float = math.inf,
        code: int = 1006,
        takes: Mapping[int, float | BaseException] | None = None,
        shields: bool = False,
        keeps: bool = False,
        is_strict: bool = True,
        deniable: bool = True,
        state: Mapping[str, Any] | None = None,
        subprotocols: tuple[str, ...] = (),
        query: str = "",
        is_accepted: bool = False,
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "query_string": query.encode(),
            "headers": [],
            "subprotocols": list(subprotocols),
        }
        if deniable:
            self.scope["extensions"] = {"websocket.http.response": {}}
        if state is not None:
            self.scope["state"] = state
        #: what was sent, as the client sees it, and when
        self.log = Log()
        self.headers: dict[str, str] = {}
        self.subprotocol: str | None = None
        #: what was sent after it had gone
        self.late: list[Any] = []
        self.gone = anyio.Event()
        #: how many messages of the client were read
        self.read = 0
        self._says = dict(says or {})
        self._goes_after = goes_after
        self._code = code
        self._takes = dict(takes or {})
        self._shields = shields
        self._keeps = keeps
        self._is_strict = is_strict
        self._state = "open" if is_accepted else "new"
        self._is_connected = is_accepted
        self._readers = 0
        self.sends = 0
        self._started_at = 0.0
        self._more = anyio.Event()
        self._body = b""

    async def open(self, app: Callable[..., Awaitable[None]]) -> None:
        """Open the socket, and let it be answered."""
        self.log.start()
        self._started_at = anyio.current_time()
        await app(self.scope, self.receive, self.send)

    def go(self, code: int = 1006) -> None:
        """Go, without a close of the server's."""
        self._code = code
        self.gone.set()
        self._more.set()

    async def receive(self) -> dict[str, Any]:
        assert not self._readers, "two readers at once"
        self._readers += 1
        try:
            with anyio.CancelScope(shield=self._keeps):
                return await self._receive()
        finally:
            self._readers -= 1

    async def _receive(self) -> dict[str, Any]:
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        while not self.gone.is_set():
            now = anyio.current_time()
            due = self._started_at + min(self._says, default=math.inf)
            if due <= now and self._state == "open":
                self.read += 1
                said = self._says.pop(min(self._says))
                kind, other = ("text", "bytes") if isinstance(said, str) else ("bytes", "text")
                return {"type": "websocket.receive", kind: said, other: None}
            if self._started_at + self._goes_after <= now:
                self.go(self._code)
                break
            until = self._started_at + self._goes_after
            if self._state == "open":
                until = min(due, until)
            self._more = anyio.Event()
            with anyio.CancelScope(deadline=until):
                await self._more.wait()
        return {"type": "websocket.disconnect", "code": self._code}

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if self.gone.is_set():
            self.late.append(kind)
            return
        number, self.sends = self.sends, self.sends + 1
        takes = self._takes.get(number, 0.0)
        if isinstance(takes, BaseException):
            if isinstance(takes, OSError):
                self.gone.set()
            raise takes
        if takes and self._shields:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + takes):
                await self.gone.wait()
                raise anyio.BrokenResourceError
        elif takes:
            await anyio.sleep(takes)
        assert self._is_connected, "nobody has asked for the message that asks for a socket"
        assert (self._state, kind) in ALLOWED, (self._state, kind)
        self._state = ALLOWED[self._state, kind]
        if kind == "websocket.accept":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.subprotocol = message["subprotocol"]
            self.log(101)
            self._more.set()
        elif kind == "websocket.send":
            [(_, content)] = [(k, v) for k, v in message.items() if k != "type"]
            assert type(content) in (str, bytes)
            if type(content) is str:
                content.encode()
            self.log(content)
        elif kind == "websocket.http.response.start":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            assert len(self.headers) == len(message["headers"]), message["headers"]
            self.log(message["status"])
        elif kind == "websocket.http.response.body":
            assert type(message["body"]) is bytes
            assert not message.get("more_body"), "granian takes one part"
            assert len(message["body"]) == int(self.headers["content-length"])
            self.log(message["body"].decode())
        else:
            assert not (self._readers and self._is_strict), "somebody is in receive()"
            assert len(message["reason"].encode()) < 124
            if self._state == "denied":
                self.log(403)
            else:
                self.log((message["code"], message["reason"]))


# What may be sent in which state, and the state after it.
ALLOWED = {
    ("new", "websocket.accept"): "open",
    ("new", "websocket.close"): "denied",
    ("new", "websocket.http.response.start"): "denying",
    ("denying", "websocket.http.response.body"): "denied",
    ("open", "websocket.send"): "open",
    ("open", "websocket.close"): "closed",
}


class Told:
    """A source that notes what it is told, and takes its time over it."""

    def __init__(self, *, every: float = 1.0, reaction: float = 0.0, last: object = None) -> None:
        self.log = Log()
        self.every = every
        self.reaction = reaction
        self.last = last

    async def source(self) -> AsyncGenerator[Any, None]:
        self.log.start()
        number = 0
        try:
            while True:
                await anyio.sleep(self.every)
                yield number
                number += 1
        except StreamCancelled as stop:
            self.log(stop.reason)
            await anyio.sleep(self.reaction)
            if self.last is None:
                raise
            yield self.last
        finally:
            self.log("closed")
