"""What keeps a client, or too many of them, from holding a server: limits, refusals, a deploy."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from checks import assert_closed
from client import Client
from serving import COMMANDS, Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Seconds.
SEND_TIMEOUT = 0.5
LATE = 3.0


# Of streams, on a server of a test's own, and the seconds that they may go on for.
MOST, FINISH = 3, 2.0


@pytest.fixture(params=list(COMMANDS))
def own_with(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server for this test alone, whose host has bounds."""
    with running(request.param, tmp_path, max_streams=MOST, finish=FINISH) as server:
        yield server


@pytest.mark.parametrize(
    ("under", "reads"),
    [("plain", False), ("plain", True), ("wrapped", False)],
    ids=["never", "slowly", "wrapped-never"],
)
def test_send_timeout(server: Server, under: str, reads: bool) -> None:
    """WS53: a client takes nothing, or next to nothing. At the deadline its source is told.

    What it yields in its grace goes nowhere, and it is closed, though ``send`` may still wait. The
    client sees the end of the connection when it reads on, and not that of the body (but below
    ``BaseHTTPMiddleware``, which ends any body). One warning is logged, and no traceback.
    """
    client, key = server.request(
        "fast with grace", under=under, buffer=4096, send_timeout=SEND_TIMEOUT
    )
    with client:
        client.head()
        server.wait_for(key, "started")
        give_up = time.monotonic() + 15
        while "closed" not in server.events(key):
            assert time.monotonic() < give_up, server.records(key)
            if reads:
                client.socket.recv(1)
            time.sleep(0.1)
        ended = server.wait_for(key, "ended")
        assert (ended["kind"], ended["reason"]) == ("cancelled", "Disconnected")
        took = server.record(key, "saved")["time"] - server.record(key, "started")["time"]
        assert SEND_TIMEOUT < took < SEND_TIMEOUT + LATE
        assert client.drain().endswith(b"\r\n0\r\n\r\n") == (under == "wrapped")
    assert_closed(server, key)
    assert server.output().count("was cut off") == 1
    assert "Traceback" not in server.output()
    server.trouble()


def test_refusal(own_with: Server) -> None:
    """WS54: beyond the most streams, and when the host is shut down, a request is refused.

    Its source does not start. Whoever asks is told to come back soon, on another connection.
    """
    with ExitStack() as stack:
        opened = []
        for _ in range(MOST):
            client, key = own_with.request("idle with grace", final=True)
            stack.enter_context(client)
            client.head()
            client.read(b"item\n")
            opened.append((client, key))
        assert_refused(own_with, "Overloaded")
        first, key = opened.pop()
        first.leave()
        own_with.wait_for(key, "dependency closed")
        client, key = own_with.request("three")
        with client:
            assert client.head().status_code == 200
            assert client.rest() == (b"item 0\nitem 1\nitem 2\n", True)
        own_with.shut_down()
        assert_refused(own_with, "Shutdown")
        for client, _ in opened:
            assert client.rest() == (b"last item\nthe end: cancelled Shutdown\n", True)
    own_with.end()


def assert_refused(server: Server, reason: str) -> None:
    target, key = server.target("three")
    with Client(server.port, target, headers=[]) as client:
        response = client.head()
        headers = dict(response.headers)
        assert response.status_code == 503
        assert 0 < int(headers[b"retry-after"]) < 60
        assert client.rest() == (b"", True)
        client.wait_until_closed()
    server.wait_for(key, "dependency closed")
    assert server.events(key) == ["dependency opened", "ended", "dependency closed"]
    assert server.record(key, "ended")["reason"] == reason


def test_finish(own_with: Server) -> None:
    """WS55: streams may run to their end after SIGTERM, but for those that never end."""
    with ExitStack() as stack:
        ending = [own_with.request("slow", final=True) for _ in range(MOST - 1)]
        endless, key = own_with.request("idle with grace", final=True, finish=0)
        for client in (endless, *(client for client, _ in ending)):
            stack.enter_context(client)
            client.head()
            client.read(b"item\n")
        own_with.terminate()
        assert endless.rest() == (b"last item\nthe end: cancelled Shutdown\n", True)
        for client, _ in ending:
            assert client.rest() == (b"item\n" * 4 + b"the end: completed NoneType\n", True)
    own_with.end()
    assert own_with.record(key, "ended")["reason"] == "Shutdown"
    assert {own_with.record(key, "ended")["kind"] for _, key in ending} == {"completed"}
