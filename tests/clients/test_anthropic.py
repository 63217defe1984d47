"""The SDK of Anthropic: messages, sync and async, plain and accumulating."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import Anthropic, APIStatusError, AsyncAnthropic

from clients.scripts import CUT, messages, script, shut_down
from streamkit.sse import ANTHROPIC, ServerSentEvent

if TYPE_CHECKING:
    from streamkit import OutcomeKind
    from support.event_server import Answer, EventServer

ASK: dict[str, Any] = {
    "model": "m",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "?"}],
}


def client_of(answer: Answer, max_retries: int = 0) -> Anthropic:
    return Anthropic(base_url=answer.url, api_key="none", max_retries=max_retries, timeout=10)


def message_types(answer: Answer, received: list[Any], max_retries: int = 0) -> None:
    """Receive the types of the events of a message."""
    with (
        client_of(answer, max_retries) as client,
        client.messages.create(**ASK, stream=True) as stream,
    ):
        for event in stream:
            received.append(event.type)


def test_message(server: EventServer) -> None:
    """Every event of a message arrives once, and nothing for the beats after an ``id:`` line."""
    answer = server.answer(script(ANTHROPIC, messages("a", "b")), ANTHROPIC)
    received: list[Any] = []
    message_types(answer, received)
    assert received == [event["type"] for event in messages("a", "b")]


def test_message_accumulated(server: EventServer) -> None:
    """The helper that accumulates a message has all of it at the end."""
    answer = server.answer(script(ANTHROPIC, messages("a", "b", " c")), ANTHROPIC)
    with client_of(answer) as client, client.messages.stream(**ASK) as stream:
        assert stream.get_final_text() == "ab c"


@pytest.mark.parametrize("kind", CUT)
def test_message_is_cut(server: EventServer, kind: OutcomeKind) -> None:
    """A message that is cut raises after its last event, with the kind as the code."""
    items = list(islice(messages("a", "b"), 4))
    answer = server.answer(script(ANTHROPIC, items, kind), ANTHROPIC)
    received: list[Any] = []
    with pytest.raises(APIStatusError) as caught:
        message_types(answer, received)
    assert received == [event["type"] for event in items]
    assert caught.value.api_message == "Sorry."
    assert caught.value.error_code == kind


def test_message_is_shut_down(server: EventServer) -> None:
    """A message that a shutdown has cut raises as an overloaded server does, and is asked once."""
    items = list(islice(messages("a", "b"), 4))
    answer = server.answer(shut_down(ANTHROPIC, items), ANTHROPIC)
    received: list[Any] = []
    with pytest.raises(APIStatusError) as caught:
        message_types(answer, received, max_retries=2)
    assert received == [event["type"] for event in items]
    assert (caught.value.type, caught.value.error_code) == ("overloaded_error", "shutdown")
    assert caught.value.api_message == "Sorry."
    assert len(answer.requests) == 1


@pytest.mark.parametrize("count", [0, 4])
def test_accumulated_message_is_cut(server: EventServer, count: int) -> None:
    """The accumulating helper raises the error too, also as the first event of all."""
    items = islice(messages("a"), count)
    answer = server.answer(script(ANTHROPIC, items, "cancelled"), ANTHROPIC)
    with client_of(answer) as client, client.messages.stream(**ASK) as stream:
        with pytest.raises(APIStatusError) as caught:
            stream.get_final_message()
    assert caught.value.type == "cancelled"


def test_an_async_client(server: EventServer) -> None:
    """The async client sees the same: items, no beats, the error of a cancelled message."""
    items = list(islice(messages("a"), 3))
    answer = server.answer(script(ANTHROPIC, items, "cancelled"), ANTHROPIC)
    received: list[Any] = []

    async def main() -> None:
        async with AsyncAnthropic(base_url=answer.url, api_key="none", max_retries=0) as client:
            async for event in await client.messages.create(**ASK, stream=True):
                received.append(event.type)

    with pytest.raises(APIStatusError) as caught:
        asyncio.run(main())
    assert received == [event["type"] for event in items]
    assert caught.value.error_code == "cancelled"


def test_what_the_profile_keeps_away(server: EventServer) -> None:
    """The SDK drops what has no name, an error too: why the profile asks for one."""
    frames = [ServerSentEvent('{"error": {"message": "x"}}').encode()]
    received: list[Any] = []
    message_types(server.answer(frames, ANTHROPIC), received)
    assert received == []
