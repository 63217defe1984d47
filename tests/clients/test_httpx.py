"""httpx with httpx-sse, and httpx2, which reads event streams itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import httpx_sse
import pytest

from clients.scripts import BAD_BEAT, CUT, script
from streamkit.sse import BROWSER, MAX_RETRY, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamkit import OutcomeKind
    from support.event_server import EventServer

ITEMS = ({"text": "a"}, "b\nc", {"text": " é\u2028"})
DATA = ['{"text": "a"}', "b\nc", '{"text": " \\u00e9\\u2028"}']


def with_httpx_sse(url: str) -> list[Any]:
    with httpx.Client(timeout=10) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        return list(source.iter_sse())


def with_httpx_sse_async(url: str) -> list[Any]:
    async def main() -> list[Any]:
        async with httpx.AsyncClient(timeout=10) as client:
            async with httpx_sse.aconnect_sse(client, "GET", url) as source:
                return [event async for event in source.aiter_sse()]

    return asyncio.run(main())


def with_httpx2(url: str) -> list[Any]:
    with httpx2.Client(timeout=10) as client, client.sse(url) as source:
        return list(source)


def with_httpx2_async(url: str) -> list[Any]:
    async def main() -> list[Any]:
        async with httpx2.AsyncClient(timeout=10) as client:
            async with client.sse(url) as source:
                return [event async for event in source]

    return asyncio.run(main())


each_client = pytest.mark.parametrize(
    "receive", [with_httpx_sse, with_httpx_sse_async, with_httpx2, with_httpx2_async]
)


@pytest.mark.parametrize("kind", ["completed", *CUT])
@each_client
def test_events(server: EventServer, receive: Callable[..., Any], kind: OutcomeKind) -> None:
    """Every item arrives with its id, nothing for the beats, and the kind of the end last."""
    *items, end = receive(server.answer(script(BROWSER, ITEMS, kind), BROWSER).url)
    assert [(event.event, event.data) for event in items] == [("message", data) for data in DATA]
    # The text item had no id of its own.
    assert [event.id for event in items] == ["evt-0", "evt-0", "evt-2"]
    assert (end.event, end.json()["kind"], end.retry) == ("end", kind, MAX_RETRY)


ODD = "a\u2028b\x85c\x0bd\0e\ufeff\U0001d11e"


@each_client
def test_odd_text(server: EventServer, receive: Callable[..., Any]) -> None:
    """What other encoders take for the end of a line is text, also in a name and an id."""
    event = ServerSentEvent(f" {ODD}\ud800\r\n", event=ODD.replace("\0", ""), id="é\u2028")
    frames = [event.encode(), ServerSentEvent("z" * 300_000).encode()]
    odd, huge = receive(server.answer(frames, BROWSER).url)
    assert odd.data == f" {ODD}\ufffd\n"
    assert (odd.event, odd.id) == (ODD.replace("\0", ""), "é\u2028")
    assert huge.data == "z" * 300_000


def test_what_the_profile_keeps_away(server: EventServer) -> None:
    """httpx-sse sees an event in a beat of two lines after an ``id:``: why a beat is one line."""
    url = server.answer([ServerSentEvent("a", id="7").encode(), BAD_BEAT], BROWSER).url
    assert [event.data for event in with_httpx_sse(url)] == ["a", ""]
