"""A body that is cut anywhere, and what its client has when it has come back, over any log."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from streamkit.runs import Runs
from streamkit.sse import (
    ANTHROPIC,
    BROWSER,
    MAX_RETRY,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    RAW,
    Frame,
    Profile,
    RunEvents,
    ServerSentEvent,
)

from .asgi import Client
from .event_stream import Event, EventStreamParser
from .sources import aiter_of

BROWSER_ITEMS = ["a", "b\nc", {"d": 1}, ServerSentEvent("é", event="e", retry=5), Frame(b": c\n")]
TYPED_ITEMS = [{"type": "a", "n": 1}, {"type": "b", "n": 2}, {"type": "c", "n": 3}]
RAW_ITEMS = [Frame(b"data: a\n\n"), Frame(b"event: b\r\ndata: b\r\ndata: c\r\n\r\n: d\r\n")]

#: What runs say, and to whom.
CUTS = pytest.mark.parametrize(
    ("profile", "items"),
    [
        (BROWSER, BROWSER_ITEMS),
        (OPENAI_CHAT, TYPED_ITEMS),
        (OPENAI_RESPONSES, TYPED_ITEMS),
        (ANTHROPIC, TYPED_ITEMS),
        (RAW, RAW_ITEMS),
    ],
    ids=lambda value: getattr(value, "name", ""),
)


async def body_of(runs: Runs, run_id: str, seen: str, profile: Profile) -> tuple[int, bytes]:
    """Return the answer to who has seen something."""
    client = Client()
    if seen:
        client.scope["headers"] = [(b"last-event-id", seen.encode())]
    await client.get(RunEvents(runs, run_id, profile=profile, keepalive=None))
    status, *parts, _ = client.log.events
    return status, "".join(parts).encode()


def events_in(body: bytes) -> tuple[list[Event], EventStreamParser]:
    parser = EventStreamParser()
    parser.feed(body)
    return parser.events, parser


async def check_each_cut(runs: Runs, profile: Profile, items: list[Any]) -> None:
    """
    See that whoever is cut off after any byte comes back with the last id that it has seen, and has
    everything then, the end included, and nothing twice.
    """
    run = await runs.start(aiter_of(*items))
    while runs.stats().running:
        await anyio.sleep(0.01)
    _, whole = await body_of(runs, run.id, "", profile)
    wanted, _ = events_in(whole)
    rest: dict[str, tuple[int, bytes]] = {}
    for cut in range(len(whole) + 1):
        first, parser = events_in(whole[:cut])
        seen = parser.last_event_id
        if seen not in rest:
            rest[seen] = await body_of(runs, run.id, seen, profile)
        status, body = rest[seen]
        assert status == (204 if seen.endswith(".end") else 200)
        assert first + events_in(body)[0] == wanted, whole[:cut]
        if MAX_RETRY in parser.retries:
            # Nobody is told to stay away before the end was seen.
            assert seen.endswith(".end")
    assert len(rest) > len(items)
