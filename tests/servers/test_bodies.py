"""Bodies: answers that have none, requests that have one, and who reads that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from checks import assert_cancelled, assert_closed
from client import CLOSE, Client
from transports import HTTP1, HTTP1_0, HTTP2, NGINX

if TYPE_CHECKING:
    from serving import Server
    from transports import Link

# More than any buffer on the way.
MUCH = b"x" * 300_000


@pytest.mark.parametrize(
    ("link", "status"),
    [(HTTP1, 204), (HTTP1, 205), (HTTP1, 304), (HTTP1_0, 204), (HTTP2, 204)],
    indirect=["link"],
    ids=str,
)
def test_no_body(link: Link, status: int) -> None:
    """WS50: an answer whose status has no body has none, and no last item either."""
    client, key = link.request("status", status=status, final=True)
    with client:
        response = client.head()
        assert response.status_code == status
        assert b"content-type" not in dict(response.headers)
        assert client.rest() == (b"", True)
        assert_closed(link.server, key)
        if link.transport.is_closed is False:
            target, _ = link.server.target("three")
            client.again(target)
            assert client.head().status_code == 200
            assert client.rest() == (b"item 0\nitem 1\nitem 2\n", True)
    assert link.server.record(key, "ended")["kind"] == "completed"


@pytest.mark.parametrize("link", [HTTP1, NGINX, HTTP2], indirect=True, ids=str)
def test_source_reads_its_request(link: Link, under: str) -> None:
    """WS51: a source that reads its own request gets all of it, and learns that its client goes."""
    client, key = link.request("reader", under=under, method="POST", body=MUCH)
    assert client.head().status_code == 200
    assert client.read(b"\n") == b"%d bytes\n" % len(MUCH)
    assert_cancelled(link.server, key, client.leave())


def test_expectation_not_met(server: Server, under: str) -> None:
    """WS52: a client that waits with its body is told at once that nobody wants it."""
    target, key = server.target("status", under=under, status=413)
    with Client(server.port, target, method="POST", headers=CLOSE, body=MUCH, expects=True) as it:
        assert it.head().status_code == 413
        assert it.rest() == (b"", True)
    assert_closed(server, key)


def test_expectation_met(server: Server, under: str) -> None:
    """WS52: a client that waits with its body is asked for it when the source reads it."""
    target, key = server.target("reader", under=under)
    client = Client(server.port, target, method="POST", headers=CLOSE, body=MUCH, expects=True)
    client.wait_for_hint()
    client.send_body()
    assert client.head().status_code == 200
    assert client.read(b"\n") == b"%d bytes\n" % len(MUCH)
    assert_cancelled(server, key, client.leave())
