"""What becomes of a stream on real servers: its end, its errors, and a client that leaves.

In each case the source is closed in its own task, before what it depends on and soon; no task is
left, and the server has nothing to complain about (the fixture ``server`` looks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from checks import assert_cancelled, assert_closed
from serving import eventually

if TYPE_CHECKING:
    from serving import Server


class TestEnds:
    """The client stays to the end."""

    def test_completed(self, server: Server, under: str) -> None:
        """WS1: all items arrive, and a complete body."""
        client, key = server.request("three", under=under)
        with client:
            assert client.head().status_code == 200
            assert client.rest() == (b"item 0\nitem 1\nitem 2\n", True)
        assert_closed(server, key)
        assert server.record(key, "ended")["kind"] == "completed"

    def test_empty(self, server: Server, under: str) -> None:
        """WS2: a source without items is a complete and empty response."""
        client, key = server.request("empty", under=under)
        with client:
            assert client.head().status_code == 200
            assert client.rest() == (b"", True)
        assert_closed(server, key)
        assert server.record(key, "ended")["kind"] == "completed"

    def test_head(self, server: Server, under: str) -> None:
        """WS3: the source decides the status and a header."""
        client, key = server.request("teapot", under=under)
        with client:
            response = client.head()
            assert response.status_code == 418
            assert (b"x-kind", b"teapot") in response.headers
            assert client.rest() == (b"short and stout", True)
        assert_closed(server, key)

    def test_method_head(self, server: Server, under: str) -> None:
        """WS4: HEAD does not start the source."""
        client, key = server.request("idle", under=under, method="HEAD")
        with client:
            assert client.head().status_code == 200
            assert client.rest() == (b"", True)
        server.wait_for(key, "dependency closed")
        assert server.events(key) == ["dependency opened", "ended", "dependency closed"]

    def test_conflict_first(self, server: Server, under: str) -> None:
        """WS5: an error before the first item is answered by a handler of the framework."""
        client, key = server.request("conflict", under=under)
        with client:
            assert client.head().status_code == 409
            assert client.rest() == (b'{"error":"conflict"}', True)
        assert_closed(server, key)
        assert server.record(key, "ended")["kind"] == "failed"

    def test_error_first(self, server: Server, under: str) -> None:
        """WS6: an error that no handler knows is a 500 and in the server's log, once."""
        client, key = server.request("broken", under=under)
        with client:
            assert client.head().status_code == 500
            body, complete = client.rest()
            assert complete
            assert b"secret" not in body
        assert_closed(server, key)
        eventually(lambda: "secret of a source" in server.output())
        assert sum("RuntimeError: secret" in line for line in server.trouble()) == 1

    def test_error_later(self, server: Server, under: str) -> None:
        """WS7: an error in the middle cuts the connection: the client sees that it is not all.

        Below ``BaseHTTPMiddleware`` it is a clean end all the same: Starlette sends one before it
        looks at the error. Only a last item tells there.
        """
        client, key = server.request("broken later", under=under)
        with client:
            assert client.head().status_code == 200
            assert client.rest() == (b"item\n", under == "wrapped")
        assert_closed(server, key)
        assert server.record(key, "ended")["kind"] == "failed"
        eventually(lambda: "secret of a source" in server.output())
        assert server.trouble()

    def test_error_later_with_final(self, server: Server, under: str) -> None:
        """WS8: the same error where there is a last item: it arrives, and the log has the error."""
        client, key = server.request("broken later", under=under, final=True)
        with client:
            assert client.head().status_code == 200
            assert client.rest() == (b"item\nthe end: failed NoneType\n", True)
        assert_closed(server, key)
        assert server.record(key, "ended")["kind"] == "failed"
        eventually(lambda: "secret of a source" in server.output())
        assert server.trouble()


class TestDisconnect:
    """The client leaves early."""

    @pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
    def test_idle(self, server: Server, under: str, reset: bool) -> None:
        """WS10: while the source waits for its next item."""
        client, key = server.request("idle", under=under)
        client.head()
        client.read(b"item\n")
        assert_cancelled(server, key, client.leave(reset=reset))

    def test_before_the_first_item(self, server: Server, under: str) -> None:
        """WS11: while the source waits for its first item, and no status is sent yet."""
        client, key = server.request("silent", under=under)
        server.wait_for(key, "started")
        assert_cancelled(server, key, client.leave())

    def test_blocked(self, server: Server, under: str) -> None:
        """WS12: a client that has stopped reading, so that the server's ``send`` waits."""
        client, key = server.request("fast", under=under, buffer=4096)
        client.head()
        server.wait_until_blocked(key)
        assert_cancelled(server, key, client.leave())

    @pytest.mark.parametrize("ahead", [0, 100], ids=["", "buffered"])
    def test_hot(self, server: Server, under: str, ahead: int) -> None:
        """WS13: a source that never waits does not keep the server from its other requests."""
        client, key = server.request("hot", under=under, ahead=ahead)
        client.head()
        client.read(b"item\n")
        left = client.leave()
        # It is answered, or the client gives up.
        server.state()
        assert_cancelled(server, key, left)

    def test_drain(self, server: Server, under: str) -> None:
        """WS15: a source that is to run on without its client: it does, and the request ends."""
        client, key = server.request("slow", under=under, on="drain")
        client.head()
        client.read(b"item\n")
        left = client.leave()
        server.wait_for(key, "ended")
        assert server.events(key) == [
            "dependency opened",
            "started",
            "dependency closed",
            "closed",
            "ended",
        ]
        assert server.record(key, "dependency closed")["time"] - left < 0.3
        assert server.record(key, "closed")["time"] - left > 0.3
        assert server.record(key, "ended")["kind"] == "completed"

    def test_close(self, server: Server, under: str) -> None:
        """WS16: a source that is closed without a word."""
        client, key = server.request("idle", under=under, on="close")
        client.head()
        client.read(b"item\n")
        assert_closed(server, key, left=client.leave())
        assert server.record(key, "ended")["kind"] == "closed"

    def test_last_items_have_no_reader(self, server: Server, under: str) -> None:
        """WS14: a source uses its grace, and what it yields then and the last item go nowhere."""
        client, key = server.request("idle with grace", under=under, final=True)
        client.head()
        client.read(b"item\n")
        left = client.leave()
        assert_closed(server, key, left=left)
        assert server.record(key, "ended")["kind"] == "cancelled"
        assert "saved" in server.events(key)
