"""JSON lines of real servers, as the line readers of httpx and httpx2 have them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from serving import eventually

if TYPE_CHECKING:
    from serving import Server

TEXTS = ["a\nb", "\x85\u2028\u2029\r", "é"]


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def records(library: Any, server: Server, under: str, **options: Any) -> tuple[list[Any], bool]:
    """Return what a client reads, without the beats, and whether the body was complete."""
    url = f"http://127.0.0.1:{server.port}/{under}/lines"
    found: list[Any] = []
    with library.Client(trust_env=False, headers={"connection": "close"}) as client:
        try:
            with client.stream("GET", url, params=options) as response:
                assert response.headers["content-type"] == "application/x-ndjson; charset=utf-8"
                found.extend(map(json.loads, response.iter_lines()))
        except library.RemoteProtocolError:
            return without_beats(found), False
    return without_beats(found), True


def without_beats(found: list[Any]) -> list[Any]:
    beat = {"type": "ping"}
    assert beat in found
    return [record for record in found if record != beat]


def test_lines(server: Server, under: str, library: Any) -> None:
    """WS1: each record is one line, whatever is in it, and the last says that it is complete."""
    *items, last = records(library, server, under)[0]
    assert items == [{"text": text} for text in TEXTS]
    assert last == {"end": {"kind": "completed", "message": "The stream is complete."}}


def test_failed(server: Server, under: str, library: Any) -> None:
    """WS8: an error is told in the last record."""
    found, is_complete = records(library, server, under, fails=True)
    assert found[-1]["end"]["kind"] == "failed"
    assert is_complete
    eventually(lambda: "secret of a source" in server.output())
    assert server.trouble()


def test_cut(server: Server, under: str, library: Any) -> None:
    """WS7: a cut has no last record, also where it looks complete."""
    found, is_complete = records(library, server, under, fails=True, final=False)
    assert found == [{"text": text} for text in TEXTS]
    assert is_complete == (under == "wrapped")
    eventually(lambda: "secret of a source" in server.output())
    assert server.trouble()
