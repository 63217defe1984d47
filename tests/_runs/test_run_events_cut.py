"""``RunEvents``: a body that is cut anywhere, and what its client has when it has come back."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from streamkit.runs import Runs
from streamkit.sse import OPENAI_RESPONSES, Profile, RunEvents
from support import Client, Probe, aiter_of
from support.cut_bodies import CUTS, TYPED_ITEMS, body_of, check_each_cut, events_in
from support.event_stream import Event, EventStreamParser


@CUTS
@pytest.mark.one_of_each
async def test_at_every_byte(profile: Profile, items: list[Any]) -> None:
    """Runs: cut after any byte, the client comes back with the last id that it has seen, and has
    everything then, the end included, and nothing twice.
    """
    async with Runs() as runs:
        await check_each_cut(runs, profile, items)


@CUTS
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
