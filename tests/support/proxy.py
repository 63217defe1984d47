"""A way to a server that can be cut: for one process alone, and in one direction only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

#: What is done with what passes: it goes on; it waits; answers are thrown away, and then the
#: connection ends; there is no connection.
State = Literal["open", "stalled", "mute", "cut"]


class Proxy:
    """Passes on what is sent to a port. Threads, so that it goes on whatever the test waits for."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._state: State = "open"
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Bytes that were thrown away.
        self.lost = 0
        self._spawn(self._accept)

    def _spawn(self, target: object, *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()  # type: ignore[arg-type]

    def be(self, state: State) -> None:
        """Change what is done. A connection that is cut stays so."""
        with self._changed:
            self._state = state
            self._changed.notify_all()
        if state == "cut":
            self.break_all()

    def break_all(self) -> None:
        """End all connections."""
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.be("cut")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._state == "cut":
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._connections |= {client, server}
            self._spawn(self._pass_on, client, server, False)
            self._spawn(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                with self._changed:
                    self._changed.wait_for(lambda: self._state != "stalled")
                if is_answer and self._state == "mute":
                    self.lost += len(data)
                    break
                target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            self._connections.discard(connection)
            connection.close()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
