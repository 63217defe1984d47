"""How a program notices that its server stops to listen. Real servers are in ``servers/``."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from observing import call_later
from streamkit._http import termination
from streamkit._http.termination import Termination
from streamkit.asgi import StreamHost, StreamResponse
from support import Client, Log, Probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# No test is about the loop, and the sockets are never waited for.
pytestmark = pytest.mark.one_of_each


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def request(server: object) -> dict[str, Any]:
    return {"type": "http", "server": server}


async def noticed(
    termination: Termination, *, within: float = 60.0, after: Callable[[], object]
) -> list[tuple[float, object]]:
    """Return the log of a wait in which ``after`` is called when a second has passed."""
    log = Log()
    log.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_later, 1.05, after)
        with anyio.move_on_after(within):
            await termination.wait()
            log("stopped to listen")
    return log


async def test_closed() -> None:
    """W1: a server that is asked to end closes its socket, and that is seen a moment later."""
    with listening() as server:
        termination = Termination()
        termination.note(request(server.getsockname()))
        assert await noticed(termination, after=server.close) == [(1.1, "stopped to listen")]


async def test_noted_while_waiting() -> None:
    """W2: the first request comes in when somebody waits already."""
    with listening() as server:
        termination = Termination()
        log = Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.0, termination.note, request(server.getsockname()))
            tasks.start_soon(call_later, 2.05, server.close)
            await termination.wait()
            log("stopped to listen")
        assert log == [(2.1, "stopped to listen")]


async def test_port_is_a_string() -> None:
    """W3: granian gives the port as a string."""
    with listening() as server:
        host, port = server.getsockname()
        termination = Termination()
        termination.note(request((host, str(port))))
        assert await noticed(termination, after=server.close) == [(1.1, "stopped to listen")]


@pytest.mark.parametrize("given", [("a7", None), ("a7", "0"), None])
async def test_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: object) -> None:
    """W4: a server that listens at a path: what uvicorn, granian and hypercorn make of that."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server, listening():
        server.bind("a7")  # in which no number is looked for
        server.listen()
        termination = Termination()
        termination.note(request(given))
        assert await noticed(termination, after=server.close) == [(1.1, "stopped to listen")]


async def test_all_of_them() -> None:
    """W5: a server at two ports has stopped when it listens at neither."""
    with listening() as first, listening() as second:
        termination = Termination()
        termination.note(request(first.getsockname()))
        termination.note(request(second.getsockname()))
        assert await noticed(termination, within=5.0, after=first.close) == []
        second.close()
        with anyio.fail_after(1):
            await termination.wait()


async def test_before_the_wait() -> None:
    """W6: it has stopped before anybody waits."""
    with listening() as server:
        termination = Termination()
        termination.note(request(server.getsockname()))
    with anyio.fail_after(1):
        await termination.wait()


async def test_other_sockets() -> None:
    """W7: connections at the port, and sockets that listen at another, say nothing."""
    with listening() as server, listening() as other:
        with socket.create_connection(server.getsockname()) as client, closing(server.accept()[0]):
            termination = Termination()
            termination.note(request(server.getsockname()))
            other.close()
            client.close()
            log = await noticed(termination, after=server.close)
            assert log == [(1.1, "stopped to listen")]


async def test_number_is_taken_again() -> None:
    """W8: what was the server's file descriptor is another file a moment later."""
    with listening() as server, listening() as other, open(os.devnull) as file:
        termination = Termination()
        termination.note(request(server.getsockname()))
        number = server.fileno()
        os.dup2(other.fileno(), number)
        with anyio.fail_after(1):
            await termination.wait()
        termination.note(request(other.getsockname()))
        os.dup2(file.fileno(), number)
        assert await noticed(termination, after=other.close) == [(1.1, "stopped to listen")]


async def test_inherited() -> None:
    """W17: a server that listens on a copy of the socket that its parent has opened for it."""
    with listening() as inherited:
        inherited.set_inheritable(True)
        with inherited.dup() as server:
            termination = Termination()
            termination.note(request(server.getsockname()))
            assert await noticed(termination, after=server.close) == [(1.1, "stopped to listen")]
        termination = Termination()
        termination.note(request(inherited.getsockname()))
        assert await noticed(termination, after=inherited.close) == [(1.1, "stopped to listen")]


@pytest.mark.parametrize("server", [("testserver", 80), ("testserver", "http"), None, (), "ab"])
async def test_no_server(server: object) -> None:
    """W9: a request that no socket of this process took, as in a test: it waits for ever."""
    termination = Termination()
    termination.note(request(server))
    assert await noticed(termination, after=lambda: None) == []


async def test_no_list_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """W10: a system that does not say which files a process has: it waits for ever."""

    def refuse(path: str) -> list[str]:
        raise FileNotFoundError(path)

    with listening() as server:
        termination = Termination()
        monkeypatch.setattr(os, "listdir", refuse)
        termination.note(request(server.getsockname()))
        assert await noticed(termination, after=server.close) == []


async def test_looks_once_for_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """W11: of many requests at one port the first looks; of many ports, no more than a few do."""
    looks = []
    monkeypatch.setattr(os, "listdir", lambda path: looks.append(path) or [])
    termination = Termination()
    for _ in range(10):
        termination.note(request(("127.0.0.1", 1)))
    assert looks == ["/dev/fd"]
    for port in range(1000):
        termination.note(request(("127.0.0.1", port)))
    assert len(looks) == 16


@pytest.mark.parametrize("default", [None, 3.0])
async def test_leaves_the_files_alone(default: float | None) -> None:
    """W12: a blocking socket of somebody else stays one, also with a default timeout."""
    with listening() as server, listening() as quick, socket.socket() as other:
        quick.setblocking(False)
        before = [os.get_blocking(each.fileno()) for each in (server, quick, other)]
        files = os.listdir("/dev/fd")
        socket.setdefaulttimeout(default)
        try:
            Termination().note(request(server.getsockname()))
            Termination().note(request(quick.getsockname()))
        finally:
            socket.setdefaulttimeout(None)
        assert before == [os.get_blocking(each.fileno()) for each in (server, quick, other)]
        assert before == [True, False, True]
        assert os.listdir("/dev/fd") == files


async def test_waits_for_nothing_twice() -> None:
    """W13: once it has stopped, every wait is over at once."""
    with listening() as server:
        termination = Termination()
        termination.note(request(server.getsockname()))
        server.close()
        await termination.wait()
        with anyio.fail_after(0.01):
            await termination.wait()


async def test_host() -> None:
    """W15: a host ends its streams at that moment, long before its block ends."""
    with listening() as server:
        client, probe = Client(), Probe("item", block=True)
        client.scope["server"] = server.getsockname()
        async with StreamHost() as host, anyio.create_task_group() as tasks:
            response = StreamResponse(
                probe.source(), final=lambda outcome: repr(outcome.reason), host=host
            )
            tasks.start_soon(client.get, response)
            await anyio.sleep(1.05)
            assert not host.is_shut_down
            server.close()
            await anyio.sleep(0.05 + 1e-6)
            assert host.is_shut_down
            await anyio.sleep(1.0)
        assert client.log[-1][0] == 1.1
        assert "Shutdown()" in client.log.events
        assert client.complete


async def test_host_without_a_server() -> None:
    """W16: where nothing is noticed, a host waits for the end of its block, and is left at once."""
    client, probe = Client(), Probe("item")
    client.scope["server"] = ("testserver", 80)
    async with StreamHost() as host:
        await client.get(StreamResponse(probe.source(), host=host))
        await anyio.sleep(100)
        assert not host.is_shut_down
    assert client.complete


def test_closed_while_it_looks() -> None:
    """W14: a socket that is closed while it is looked at is no error."""
    assert not termination._listens(10**6, 80)
    assert not termination._is_inheritable(10**6)
