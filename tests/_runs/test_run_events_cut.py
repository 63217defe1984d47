"""``RunEvents``: a body that is cut anywhere, and what its client has when it has come back."""

from __future__ import annotations

import json
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
from support import Client, Probe, aiter_of
from support.event_stream import Event, EventStreamParser

BROWSER_ITEMS = ["a", "b\nc", {"d": 1}, ServerSentEvent("é", event="e", retry=5), Frame(b": c\n")]
TYPED_ITEMS = [{"type": "a", "n": 1}, {"type": "b", "n": 2}, {"type": "c", "n": 3}]
RAW_ITEMS = [Frame(b"data: a\n\n"), Frame(b"event: b\r\ndata: b\r\ndata: c\r\n\r\n: d\r\n")]

CASES = pytest.mark.parametrize(
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


@CASES
@pytest.mark.one_of_each
async def test_at_every_byte(profile: Profile, items: list[Any]) -> None:
    """Runs: cut after any byte, the client comes back with the last id that it has seen, and has
    everything then, the end included, and nothing twice.
    """
    async with Runs() as runs:
        run = await runs.start(aiter_of(*items))
        await anyio.sleep(1)
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


@CASES
@pytest.mark.one_of_each
async def test_again_and_again(profile: Profile, items: list[Any]) -> None:
    """Runs: a client that is cut off after each event, while the run goes on, gets all of it."""
    async with Runs() as runs:
        run = await runs.start(Probe(*items, every=1.0).source())
        seen, events, asked = "", list[Event](), 0
        while True:
            client = Client()
            if seen:
                client.scope["headers"] = [(b"last-event-id", seen.encode())]
            parser = EventStreamParser()

            async def send(
                message: Any, parser: EventStreamParser = parser, client: Client = client
            ) -> None:
                if client.gone.is_set():
                    raise BrokenPipeError
                parser.feed(message.get("body", b""))
                if parser.events:
                    client.go()

            await client.get(RunEvents(runs, run.id, profile=profile, keepalive=None), send=send)
            asked += 1
            events += parser.events
            seen = parser.last_event_id or seen
            if not parser.events:
                break
        _, whole = await body_of(runs, run.id, "", profile)
        assert events == events_in(whole)[0]
        assert asked == len(events) + 1
        assert runs.stats().readers == 0


async def test_numbers() -> None:
    """Runs: a client that counts goes on after the number that it has seen."""
    async with Runs() as runs:
        run = await runs.start(aiter_of(*TYPED_ITEMS))
        await anyio.sleep(1)
        for count in range(3):
            client = Client()
            client.scope["query_string"] = b"stream=true&starting_after=%d" % count
            await client.get(RunEvents(runs, run.id, profile=OPENAI_RESPONSES))
            events, _ = events_in("".join(client.log.events[1:-1]).encode())
            numbers = [json.loads(event.data)["sequence_number"] for event in events]
            assert numbers == list(range(count + 1, 4))
