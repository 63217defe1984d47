"""Notice that the ASGI server of this process begins to shut down, before it reports that."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import anyio

# Seconds between two looks. One look costs some microseconds.
_INTERVAL = 0.1

# How many ports may be watched: a middleware may have changed the address.
_MOST = 16

# Before the first request: an address may be None.
_NO_ADDRESS = object()


class Termination:
    """
    The moment at which the server of this process stops listening.

    A server that is asked to end waits for its open connections first, and runs the shutdown of the
    lifespan after that: too late for whatever keeps a connection open. Signals would tell in time,
    but not everywhere: Hypercorn's workers get none, a server in a thread can have no handler, and
    a limit on requests or a call that stops a server is not a signal. But all servers, for whatever
    reason they end, at once close the sockets on which they listen. So these sockets are looked up
    when a request comes in, among the open files of this process, and checked ten times a second
    from then on. Nothing of the server is changed, and no signal handler is set.

    If the system does not list the open files of a process (Windows), if a server takes its
    connections from another process, or if there is no server, as in most tests, nothing is ever
    noticed. The same holds if a middleware has changed ``scope["server"]`` to another port.

    An object belongs to the event loop in which it is made.
    """

    def __init__(self) -> None:
        self._found = anyio.Event()
        self._ports: set[int | None] = set()
        # The address of the request before.
        self._last: object = _NO_ADDRESS
        self._listening: set[tuple[int, int | None]] = set()

    def note(self, scope: Mapping[str, Any]) -> None:
        """
        Note the address at which a request came in. Does not block.

        :param scope: the scope of the request, of which ``"server"`` is used

        """
        server = scope.get("server")
        if server == self._last:
            return
        self._last = server
        port = _port(server)
        if port in self._ports or len(self._ports) == _MOST:
            return
        self._ports.add(port)
        found = {number for number in _open_files() if _listens(number, port)}
        # A server that is given a socket by its parent may listen on a copy (uvicorn --fd does),
        # and then it never closes the original.
        copies = {number for number in found if not _is_inheritable(number)}
        self._listening.update((number, port) for number in copies or found)
        if self._listening:
            self._found.set()

    async def wait(self) -> None:
        """
        Wait until all sockets at which requests have come in are closed.

        Waits for ever where this cannot be noticed. May be cancelled at any time.
        """
        await self._found.wait()
        while self._listening:
            await anyio.sleep(_INTERVAL)
            self._listening = {entry for entry in self._listening if _listens(*entry)}


def _port(server: Any) -> int | None:
    """Return the port of an address in a scope, or ``None`` for a Unix socket."""
    # The name of a Unix socket is a path.
    if isinstance(server, (str, bytes)):
        return None
    try:
        # A number by the specification, a string on granian. None or 0 if it is a path.
        return int(server[1]) or None
    except (TypeError, ValueError, LookupError):
        return None


def _open_files() -> Iterator[int]:
    """Return the file descriptors of this process."""
    try:
        return map(int, os.listdir("/dev/fd"))
    except OSError:
        return iter(())


def _is_inheritable(number: int) -> bool:
    """Tell whether a child would inherit a file descriptor; those that Python opens are not."""
    with suppress(OSError):
        return os.get_inheritable(number)
    return False


def _listens(number: int, port: int | None) -> bool:
    """
    Tell whether a file descriptor is that of a socket that listens at this port.

    It is not ours, and may be closed by another thread at any time, or be another file by now. So
    nothing is done to it.
    """
    with suppress(OSError):
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        blocking = os.get_blocking(number)
        view = socket.socket(fileno=number)
        try:
            return bool(view.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and (
                _port(view.getsockname()) == port
            )
        finally:
            view.detach()
            if socket.getdefaulttimeout() is not None:
                # With one, the new object has made the file non-blocking.
                os.set_blocking(number, blocking)
    return False
