"""Events of FastAPI and sse-starlette that a source yields."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import fastapi.sse
import pytest
import sse_starlette

from streamkit.sse import (
    ANTHROPIC,
    BROWSER,
    OPENAI_CHAT,
    RAW,
    EventStream,
    Profile,
    ServerSentEvent,
)
from support import Client, aiter_of
from support.event_stream import Event, parse


class Mine(sse_starlette.ServerSentEvent):
    """An event that a user has derived from one."""


FOREIGN: list[tuple[Any, ServerSentEvent]] = [
    (
        fastapi.sse.ServerSentEvent(
            data={"a": UUID(int=1)}, event="e", id="7", retry=5, comment="c"
        ),
        ServerSentEvent(
            '{"a":"00000000-0000-0000-0000-000000000001"}',
            event="e",
            id="7",
            retry=5,
            comment="c",
        ),
    ),
    (fastapi.sse.ServerSentEvent(data="a"), ServerSentEvent('"a"')),
    (fastapi.sse.ServerSentEvent(raw_data="a\nb", event="e"), ServerSentEvent("a\nb", event="e")),
    (fastapi.sse.ServerSentEvent(comment="c"), ServerSentEvent(comment="c")),
    (
        sse_starlette.ServerSentEvent("a", event="e", id="7", retry=5, comment="c"),
        ServerSentEvent("a", event="e", id="7", retry=5, comment="c"),
    ),
    (sse_starlette.ServerSentEvent(7, event="e"), ServerSentEvent("7", event="e")),
    (sse_starlette.ServerSentEvent(b"a", event="e"), ServerSentEvent("a", event="e")),
    (sse_starlette.ServerSentEvent(comment="c"), ServerSentEvent(comment="c")),
    (sse_starlette.JSONServerSentEvent({"a": 1}, id="7"), ServerSentEvent('{"a":1}', id="7")),
    (Mine("a", event="e"), ServerSentEvent("a", event="e")),
]


@pytest.mark.parametrize(
    "profile",
    [BROWSER, OPENAI_CHAT, RAW, Profile("mine", event_of=lambda item: 1 / 0)],
    ids=lambda profile: profile.name,
)
@pytest.mark.parametrize(("foreign", "same"), FOREIGN)
def test_taken_for_what_it_is(profile: Profile, foreign: object, same: ServerSentEvent) -> None:
    """Foreign: an event of another library is the event that it is there, under every profile."""
    assert profile.encode(foreign) == same.encode()


def test_encoder() -> None:
    """Foreign: the data of an event of FastAPI is JSON as the profile makes it."""
    mine = replace(BROWSER, encoder=lambda value: f"{type(value).__name__}!")
    event = fastapi.sse.ServerSentEvent(data=[timedelta(1)], event="e")
    assert mine.encode(event) == b'event: e\ndata: ["timedelta!"]\n\n'


def test_checked_as_any_event() -> None:
    """Foreign: what a client would drop, or crash on, is refused as in an event of one's own."""
    with pytest.raises(ValueError, match=r"write ServerSentEvent\('', event='done'\)"):
        BROWSER.encode(fastapi.sse.ServerSentEvent(event="done"))
    with pytest.raises(ValueError, match="id must be one line"):
        BROWSER.encode(sse_starlette.ServerSentEvent("a", id="a\nb"))
    with pytest.raises(ValueError, match="need event in every event"):
        ANTHROPIC.encode(sse_starlette.ServerSentEvent("a"))


async def test_in_a_stream() -> None:
    """Foreign: names and ids arrive, also of a last word."""
    client = Client()
    last = sse_starlette.ServerSentEvent("c", event="end")
    source = aiter_of(fastapi.sse.ServerSentEvent(raw_data="a", event="e", id="7"), "b")
    await client.get(EventStream(source, final=lambda outcome: last))
    assert parse(*(str(event).encode() for event in client.log.events[1:-1])).events == [
        Event("a", "e", "7"),
        Event("b", "message", "7"),
        Event("c", "end", "7"),
    ]


@pytest.mark.parametrize("profile", [BROWSER, OPENAI_CHAT], ids=lambda profile: profile.name)
@pytest.mark.parametrize(
    ("item", "advice"),
    [
        ({"data": "a", "event": "e", "id": "7"}, "event=..., id=..."),
        ({"id": "7", "data": "a"}, "id=..."),
        ({"data": "a", "retry": 5, "comment": "c"}, "retry=..., comment=..."),
    ],
)
def test_dict(profile: Profile, item: object, advice: str) -> None:
    """Foreign: a dict that is an event to sse-starlette would lose its name and id: refused."""
    with pytest.raises(TypeError, match=f"to sse-starlette, .* ServerSentEvent\\(..., {advice}\\)"):
        profile.encode(item)


@pytest.mark.parametrize(
    "item", [{"data": "a"}, {"id": "7"}, {"data": "a", "other": 1}, {"event": "e", "id": 1}, {}]
)
def test_other_dicts(item: dict[str, Any]) -> None:
    """Foreign: any other dict is JSON, as ever."""
    [event] = parse(BROWSER.encode(item)).events
    assert (event.type, event.last_event_id) == ("message", "")


def test_dict_of_a_profile_of_ones_own() -> None:
    """Foreign: whoever makes events of dicts is given them."""
    mine = Profile("mine", event_of=lambda item: ServerSentEvent(item["data"], event=item["event"]))
    assert mine.encode({"data": "a", "event": "e"}) == b"event: e\ndata: a\n\n"
