"""Each end of a stream over HTTP/1.0, 1.1 and 2, and behind nginx, on every server.

A server learns in another manner each time that an answer is complete and that a client has gone,
and does something else with its connection. The fixture ``server`` sees that nothing is left.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from checks import assert_cancelled, assert_closed
from client_h2 import H2Client
from nginx import running as running_nginx
from serving import COMMANDS, eventually, running
from transports import HTTP1, HTTP2, NGINX, TRANSPORTS, Link

if TYPE_CHECKING:
    from pathlib import Path

# Seconds. The sources take 0.2, and a server that waits for more waits for long.
WITHIN = 10.0
PATIENT = {
    "hypercorn-asyncio": ["--graceful-timeout", "30"],
    "hypercorn-trio": ["--graceful-timeout", "30"],
}

# When the last stream of a connection ends while they do.
CUTS_HTTP2 = ("hypercorn-asyncio", "hypercorn-trio")


@pytest.mark.parametrize(
    ("kind", "body"), [("three", b"item 0\nitem 1\nitem 2\n"), ("empty", b"")], ids=["", "empty"]
)
def test_complete(link: Link, kind: str, body: bytes) -> None:
    """WS40: the body is complete, and the connection is closed or serves the next request."""
    client, key = link.request(kind)
    with client:
        assert client.head().status_code == 200
        assert client.rest() == (body, True)
        if link.transport.is_closed:
            client.wait_until_closed()
        elif link.transport.is_closed is False:
            target, next_key = link.server.target(kind)
            client.again(target)
            assert client.head().status_code == 200
            assert client.rest() == (body, True)
            assert_closed(link.server, next_key)
    assert_closed(link.server, key)
    assert link.server.record(key, "ended")["kind"] == "completed"


def test_failure_told(link: Link) -> None:
    """WS42: the client reads of a failure to the end, and that it was told so is in the log."""
    client, key = link.request("broken later", final=True)
    with client:
        assert client.head().status_code == 200
        assert client.rest() == (b"item\nthe end: failed NoneType\n", True)
    server = link.server
    assert_closed(server, key)
    eventually(lambda: "secret of a source" in server.output(), what=server.output)
    output = server.output()
    assert output.count("told its client so") == 1
    assert "its client has gone" not in output
    assert server.trouble()


def test_leave(link: Link) -> None:
    """WS43: items arrive as they come, and a client that leaves between two of them is noticed."""
    client, key = link.request("idle")
    client.head()
    client.read(b"item\n")
    assert_cancelled(link.server, key, client.leave())


def test_leave_before_the_first_item(link: Link) -> None:
    """WS43: so is one that leaves before there is a status."""
    client, key = link.request("silent")
    link.server.wait_for(key, "started")
    assert_cancelled(link.server, key, client.leave())


@pytest.mark.parametrize("link", [HTTP2], indirect=True, ids=str)
def test_reset(link: Link) -> None:
    """WS43: so is one that resets its stream, and goes on to use the connection."""
    client, key = link.request("idle")
    assert isinstance(client, H2Client)
    with client:
        client.head()
        client.read(b"item\n")
        client.cancel()
        assert_cancelled(link.server, key, time.monotonic())
        target, next_key = link.server.target("three")
        client.again(target)
        assert client.head().status_code == 200
        assert client.rest() == (b"item 0\nitem 1\nitem 2\n", True)
        assert_closed(link.server, next_key)


@pytest.mark.parametrize("link", [HTTP1], indirect=True, ids=str)
def test_idle_connection(link: Link) -> None:
    """WS45: a connection that is kept for the next request is closed when none comes."""
    if link.server.name == "granian":
        # It has no limit of its own for that.
        return
    client, key = link.request("three")
    with client:
        client.head()
        assert client.rest() == (b"item 0\nitem 1\nitem 2\n", True)
        assert_closed(link.server, key)
        client.wait_until_closed()


@pytest.mark.parametrize("name", COMMANDS)
def test_sigterm(name: str, tmp_path: Path) -> None:
    """WS44: a server is asked to end. Each client gets the last items and a complete body.

    Over HTTP/2, hypercorn may close the connection in place of saying that the body is complete.
    """
    with ExitStack() as stack:
        command = [*COMMANDS[name], *PATIENT.get(name, [])]
        own = stack.enter_context(running(name, tmp_path, command))
        nginx = stack.enter_context(running_nginx(own.port, tmp_path / "nginx"))
        opened = []
        for transport in TRANSPORTS:
            if transport.is_spoken_by(own.name):
                port = nginx.port if transport is NGINX else own.port
                client, key = Link(own, transport, port).request("idle with grace", final=True)
                opened.append((stack.enter_context(client), key, transport))
        for client, _, _ in opened:
            assert client.head().status_code == 200
            client.read(b"item\n")
        asked = time.monotonic()
        own.terminate()
        for client, _, transport in opened:
            body = b"last item\nthe end: cancelled Shutdown\n"
            received, is_complete = client.rest()
            assert received == body
            assert is_complete or (transport is HTTP2 and own.name in CUTS_HTTP2)
        own.wait()
        assert time.monotonic() - asked < WITHIN
        for _, key, _ in opened:
            assert_closed(own, key)
            assert own.record(key, "ended")["reason"] == "Shutdown"
        assert nginx.trouble() == []
        own.end()
