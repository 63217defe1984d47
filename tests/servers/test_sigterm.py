"""A server is asked to end while two hundred streams are open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from serving import Server

# At the top of the application, and as many below a ``BaseHTTPMiddleware``.
STREAMS = 100

# Seconds. The grace of each stream, of which the source takes 0.2. Hypercorn itself cuts after 3.
WITHIN = 5.0

# Seconds in which a source is closed that does nothing when it is told.
SOON = 1.0


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_sigterm(own: Server, how: str) -> None:
    """WS20: each source is told that the server shuts down, each client receives the last items.

    So is a source that runs on without its client. The server ends soon, without an error, and
    with its lifespan.
    """
    opened = [
        own.request("idle with grace", under=under, final=True)
        for under in ("plain", "wrapped")
        for _ in range(STREAMS)
    ]
    for client, _ in opened:
        assert client.head().status_code == 200
        client.read(b"item\n")
    gone, drained = own.request("idle with grace", on="drain")
    gone.head()
    gone.read(b"item\n")
    gone.leave()
    own.wait_for(drained, "dependency closed")
    asked = time.monotonic()
    if how == "SIGTERM":
        own.terminate()
    else:
        own.interrupt()
    for client, _ in opened:
        assert client.rest() == (b"last item\nthe end: cancelled Shutdown\n", True)
        client.leave()
    own.wait()
    assert time.monotonic() - asked < WITHIN
    for _, key in opened:
        events = own.events(key)
        assert events[-3:] == ["closed", "ended", "dependency closed"]
        assert len({own.record(key, event)["task"] for event in ("started", "closed")}) == 1
        assert own.record(key, "ended")["reason"] == "Shutdown"
    alone = own.events(drained)[-4:]
    assert alone == ["dependency closed", "saved", "closed", "ended"]
    assert own.record(drained, "ended")["reason"] == "Shutdown"
    assert own.record(drained, "ended")["time"] < own.record("host", "left")["time"]
    assert own.events("host") == ["entered", "leaving", "left"]
    assert own.trouble() == []


def test_clients_that_do_not_read(own: Server) -> None:
    """WS21: each source is told and closed at once, also where its ``send`` waits for the client.

    That is all that is in the hands of an application. Unless it has an option that limits this,
    the server then waits for as long as the client does.
    """
    opened = [
        own.request("fast", under=under, buffer=4096)
        for under in ("plain", "wrapped")
        for _ in range(5)
    ]
    for client, key in opened:
        client.head()
        own.wait_until_blocked(key)
    asked = time.monotonic()
    own.terminate()
    for _, key in opened:
        own.wait_for(key, "ended")
        assert own.record(key, "closed")["time"] - asked < SOON
        assert own.record(key, "ended")["reason"] == "Shutdown"
    for client, _ in opened:
        client.leave()
    own.wait()
