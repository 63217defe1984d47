"""A client over a bare socket: it reads when told to, and leaves as it likes."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Self

import h11

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

# Real seconds for anything that a server is to send.
PATIENCE = 5.0

CLOSE = [("Connection", "close")]


class Connection:
    """A connection, and how it is left."""

    def __init__(self, port: int, *, buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def leave(self, *, reset: bool = False) -> float:
        """Close the connection, politely or not. Returns when that was."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        return time.monotonic()

    def drain(self) -> bytes:
        """Take all that comes until the server closes the connection, as it is."""
        received = bytearray()
        try:
            while data := self.socket.recv(1 << 20):
                received += data
        except ConnectionResetError:
            pass
        return bytes(received)

    def wait_until_closed(self) -> None:
        """Wait until the server closes the connection, with nothing more to say."""
        assert self.drain() == b""


class Client(Connection):
    """
    One request after the other, over HTTP/1.

    :param headers: of the requests, beside ``Host``
    :param version: what the requests say, ``b"1.1"`` or ``b"1.0"``
    :param body: of the first request
    :param expects: whether the client announces the body, and waits with it
    :param buffer: bytes that the system keeps for it; ``None`` for what is usual

    """

    def __init__(
        self,
        port: int,
        target: str,
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = CLOSE,
        version: bytes = b"1.1",
        body: bytes = b"",
        expects: bool = False,
        buffer: int | None = None,
    ) -> None:
        super().__init__(port, buffer=buffer)
        self._http = h11.Connection(h11.CLIENT)
        self._headers = [("Host", f"127.0.0.1:{port}"), *headers]
        self._version = version
        self._body = body
        about = [("Content-Length", str(len(body)))] if body else []
        if expects:
            about.append(("Expect", "100-continue"))
        self._request(target, method, about)
        if not expects:
            self.send_body()

    def again(self, target: str) -> None:
        """Ask for something else on the same connection, when the answer has been read."""
        self._http.start_next_cycle()
        self._request(target, "GET", [])
        self._http.send(h11.EndOfMessage())

    def send_body(self) -> None:
        """Send what was announced, and end the request."""
        if self._body:
            self.socket.sendall(self._http.send(h11.Data(data=self._body)) or b"")
        self._http.send(h11.EndOfMessage())

    def _request(self, target: str, method: str, about: list[tuple[str, str]]) -> None:
        headers = [*self._headers, *about]
        sent = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        # It speaks the newest version alone, and reads the answers to the older one, too.
        line, rest = sent.split(b"\r\n", 1)
        line = line.replace(b" HTTP/1.1", b" HTTP/" + self._version)
        self.socket.sendall(line + b"\r\n" + rest)

    def wait_for_hint(self) -> int:
        """Wait for an informational response, and return its number."""
        event = self._next()
        assert isinstance(event, h11.InformationalResponse), event
        return event.status_code

    def head(self) -> h11.Response:
        """Wait for the status and the headers. Hints before it are passed over."""
        while isinstance(event := self._next(), h11.InformationalResponse):
            pass
        assert isinstance(event, h11.Response), event
        return event

    def read(self, until: bytes) -> bytes:
        """Wait until the body contains this."""
        body = b""
        while until not in body:
            event = self._next()
            assert isinstance(event, h11.Data), (event, body)
            body += event.data
        return body

    def rest(self) -> tuple[bytes, bool]:
        """Wait for the end. Returns the rest of the body, and whether it is complete."""
        body = b""
        try:
            while True:
                event = self._next()
                if isinstance(event, h11.EndOfMessage):
                    return body, True
                assert isinstance(event, h11.Data), (event, body)
                body += event.data
        except (h11.RemoteProtocolError, ConnectionError):
            return body, False

    def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(self.socket.recv(65536))
        return event
