"""A proxy that cuts every connection from time to time, at any byte, as some do."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class CuttingProxy(ThreadingTCPServer):
    """
    In front of a server on this computer.

    :param port: that of the server

    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = port
        self.port: int = self.server_address[1]
        #: Whether there is no way through.
        self.is_closed = False
        #: What is said then, before the connection is cut.
        self.says = b""
        #: How many connections were cut on which something had come back.
        self.cuts = 0
        self._open: dict[socket.socket, bool] = {}
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Cut all connections that are open."""
        with self._lock:
            sockets, self._open = self._open, {}
        self.cuts += sum(sockets.values())
        for each in sockets:
            _shut(each)

    def keep(self, ours: socket.socket, *, has_answered: bool) -> None:
        with self._lock:
            self._open[ours] = has_answered

    def forget(self, ours: socket.socket) -> None:
        with self._lock:
            self._open.pop(ours, None)


class _Passing(BaseRequestHandler):
    server: CuttingProxy
    request: socket.socket

    def handle(self) -> None:
        if self.server.is_closed:
            with suppress(OSError):
                # What is not read would turn the end into a reset, before the answer.
                self.request.recv(65536)
                self.request.sendall(self.server.says)
            return
        self.server.keep(self.request, has_answered=False)
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            back = threading.Thread(target=self._answer, args=(upstream,), daemon=True)
            back.start()
            with suppress(OSError):
                while data := self.request.recv(65536):
                    upstream.sendall(data)
            _shut(upstream)
            back.join()
        self.server.forget(self.request)

    def _answer(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                self.server.keep(self.request, has_answered=True)
                self.request.sendall(data)
        _shut(self.request)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting_proxy(port: int, every: float | None = None) -> Iterator[CuttingProxy]:
    """Run a proxy in front of a port, which cuts all connections every so many seconds."""
    with CuttingProxy(port) as proxy:
        over = threading.Event()

        def cut() -> None:
            while not over.wait(every):
                proxy.cut()

        threads = [threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})]
        threads += [threading.Thread(target=cut)]
        for thread in threads:
            thread.start()
        try:
            yield proxy
        finally:
            over.set()
            proxy.cut()
            proxy.shutdown()
            for thread in threads:
                thread.join()
