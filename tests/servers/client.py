"""A client over a bare socket: it reads when told to, and leaves as it likes."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Self

import h11

if TYPE_CHECKING:
    from types import TracebackType

# Real seconds for anything that a server is to send.
PATIENCE = 5.0


class Client:
    """
    One request on a connection of its own.

    :param buffer: bytes that the system keeps for it; ``None`` for what is usual

    """

    def __init__(
        self, port: int, target: str, *, method: str = "GET", buffer: int | None = None
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        self._http = h11.Connection(h11.CLIENT)
        headers = [("Host", f"127.0.0.1:{port}"), ("Connection", "close")]
        for event in (
            h11.Request(method=method, target=target, headers=headers),
            h11.EndOfMessage(),
        ):
            self.socket.sendall(self._http.send(event) or b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

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

    def leave(self, *, reset: bool = False) -> float:
        """Close the connection, politely or not. Returns when that was."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        return time.monotonic()

    def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(self.socket.recv(65536))
        return event
