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

    def wait_until_closed(self) -> None:
        """Wait until the server closes the connection, with nothing more to say."""
        try:
            assert self.socket.recv(65536) == b""
        except ConnectionResetError:
            pass


class Client(Connection):
    """
    One request after the other, over HTTP/1.

    :param headers: of the requests, beside ``Host``
    :param version: what the requests say, ``b"1.1"`` or ``b"1.0"``
    :param body: of the first request
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
        buffer: int | None = None,
    ) -> None:
        super().__init__(port, buffer=buffer)
        self._http = h11.Connection(h11.CLIENT)
        self._headers = [("Host", f"127.0.0.1:{port}"), *headers]
        self._version = version
        self._request(target, method, body)

    def again(self, target: str) -> None:
        """Ask for something else on the same connection, when the answer has been read."""
        self._http.start_next_cycle()
        self._request(target, "GET", b"")

    def send_body(self, body: bytes) -> None:
        """Send the rest of a body that was announced by a header."""
        self.socket.sendall(body)

    def _request(self, target: str, method: str, body: bytes) -> None:
        headers = [*self._headers, ("Content-Length", str(len(body)))] if body else self._headers
        sent = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        # It speaks the newest version alone, and reads the answers to the older one, too.
        line, rest = sent.split(b"\r\n", 1)
        line = line.replace(b" HTTP/1.1", b" HTTP/" + self._version)
        self.socket.sendall(line + b"\r\n" + rest)
        if body:
            self._http.send(h11.Data(data=body))
            self.socket.sendall(body)
        self._http.send(h11.EndOfMessage())

    def head(self) -> h11.Response:
        """Wait for the status and the headers."""
        event = self._next()
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
