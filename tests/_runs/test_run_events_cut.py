"""``RunEvents``: a body that is cut anywhere, and what its client has when it has come back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit.client import (
    Event,
    anthropic_end,
    browser_end,
    connect,
    openai_chat_end,
    openai_responses_end,
)
from streamkit.runs import Runs
from streamkit.sse import (
    ANTHROPIC,
    BROWSER,
    MAX_RETRY,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    RAW,
    Profile,
    RunEvents,
)
from support import Probe, aiter_of
from support.cut_bodies import BROWSER_ITEMS, RAW_ITEMS, TYPED_ITEMS
from support.event_stream import EventStreamParser, parse
from support.reading import asking, read

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = pytest.mark.parametrize(
    ("profile", "items", "last_word"),
    [
        (BROWSER, BROWSER_ITEMS, browser_end),
        (OPENAI_CHAT, TYPED_ITEMS, openai_chat_end),
        (OPENAI_RESPONSES, [*TYPED_ITEMS, {"type": "response.completed"}], openai_responses_end),
        (ANTHROPIC, [*TYPED_ITEMS, {"type": "message_stop"}], anthropic_end),
        (RAW, RAW_ITEMS, lambda event: event.event == "b"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)


def serving(runs: Runs, run_id: str, profile: Profile, **options: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = RunEvents(runs, run_id, profile=profile, keepalive=None, **options)
        await response(scope, receive, send)

    return app


async def body_of(app: Any, seen: str = "") -> tuple[int, bytes]:
    """Return the answer to who has seen something."""
    async with asking(app) as client:
        headers = {"last-event-id": seen} if seen else {}
        answer = await client.get("/", headers=headers)
        return answer.status_code, answer.content


def as_read(parser: EventStreamParser) -> list[Event]:
    return [Event(each.data, event=each.type, id=each.last_event_id) for each in parser.events]


@CASES
@pytest.mark.one_of_each
async def test_at_every_byte(profile: Profile, items: list[Any], last_word: Any) -> None:
    """Runs: cut after any byte, the client comes back with the last id that it has seen, and has
    everything then, the end included, and nothing twice.
    """
    async with Runs() as runs:
        run = await runs.start(aiter_of(*items))
        await anyio.sleep(1)
        app = serving(runs, run.id, profile)
        _, whole = await body_of(app)
        wanted = as_read(parse(whole))
        statuses: dict[str, int] = {}
        limits: Iterator[float] = iter(())
        async with asking(app, lambda: next(limits, float("inf"))) as client:
            for cut in range(len(whole) + 1):
                limits = iter([cut])
                assert await read(client, "/", last_word=last_word) == wanted, whole[:cut]
                before = parse(whole[:cut])
                seen = before.last_event_id
                if seen not in statuses:
                    statuses[seen], _ = await body_of(app, seen)
                assert statuses[seen] == (204 if seen.endswith(".end") else 200)
                if MAX_RETRY in before.retries:
                    # Nobody is told to stay away before the end was seen.
                    assert seen.endswith(".end")


@CASES
@pytest.mark.one_of_each
async def test_again_and_again(profile: Profile, items: list[Any], last_word: Any) -> None:
    """Runs: a client that is cut off after each event, while the run goes on, gets all of it."""
    async with Runs() as runs:
        run = await runs.start(Probe(*items, every=1.0).source())
        app = serving(runs, run.id, profile)
        longest = 220
        async with asking(app, lambda: longest) as client:
            events = await read(client, "/", last_word=last_word)
        _, whole = await body_of(app)
        assert events == as_read(parse(whole))
        assert runs.stats().readers == 0


@pytest.mark.one_of_each
async def test_after_each_so_many() -> None:
    """Runs: cut after each n bytes, for all n: it is the whole where an event gets through, and
    else a beginning of it, however often it was asked for.
    """
    async with Runs() as runs:
        run = await runs.start(aiter_of("a", "b\nc", "d"))
        await anyio.sleep(1)
        app = serving(runs, run.id, BROWSER)
        _, whole = await body_of(app)
        wanted = as_read(parse(whole))
        longest = max(map(len, whole.split(b"\n\n"))) + 2
        for size in range(1, len(whole) + 1):
            seen: list[Event] = []
            async with asking(app, lambda size=size: size) as client:  # type: ignore[misc]
                with anyio.move_on_after(None if size >= longest else 10):
                    async with connect(client, "/") as stream:
                        async for event in stream:
                            seen.append(event)
            assert seen == wanted[: len(seen)]
            assert len(seen) == len(wanted) or size < longest


async def test_numbers() -> None:
    """Runs: a client that counts goes on after the number that it has seen."""
    async with Runs() as runs:
        run = await runs.start(aiter_of(*TYPED_ITEMS, {"type": "response.completed"}))
        await anyio.sleep(1)
        app = serving(runs, run.id, OPENAI_RESPONSES)
        for count in range(3):
            async with asking(app) as client:
                events = await read(
                    client,
                    "/",
                    params={"stream": "true", "starting_after": count},
                    last_word=openai_responses_end,
                )
            numbers = [json.loads(event.data)["sequence_number"] for event in events]
            assert numbers == list(range(count + 1, 5))
