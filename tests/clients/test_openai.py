"""The SDK of OpenAI: chat completions and responses, sync and async, plain and accumulating."""

from __future__ import annotations

import asyncio
from itertools import islice
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

import pytest
from openai import APIConnectionError, APIError, AsyncOpenAI, OpenAI

from clients.scripts import BAD_BEAT, CUT, chat, responses, script, shut_down
from streamkit.sse import OPENAI_CHAT, OPENAI_RESPONSES, RAW, ServerSentEvent, whole_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streamkit import OutcomeKind
    from support.event_server import Answer, EventServer

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


def client_of(answer: Answer, max_retries: int = 0) -> OpenAI:
    return OpenAI(base_url=answer.url, api_key="none", max_retries=max_retries, timeout=10)


def chat_texts(answer: Answer, received: list[Any], max_retries: int = 0) -> None:
    """Receive the texts of a chat, as plain chunks."""
    client = client_of(answer, max_retries)
    with client, client.chat.completions.create(**ASK, stream=True) as stream:
        for chunk in stream:
            received.append(chunk.choices[0].delta.content)


def response_types(answer: Answer, received: list[Any]) -> None:
    """Receive the types of the events of a response."""
    with (
        client_of(answer) as client,
        client.responses.create(model="m", input="?", stream=True) as stream,
    ):
        for event in stream:
            received.append(event.type)


def test_chat(server: EventServer) -> None:
    """Every chunk arrives, and nothing for the beats after an ``id:`` line, or for ``[DONE]``."""
    answer = server.answer(script(OPENAI_CHAT, chat("a", "b", " c")), OPENAI_CHAT)
    received: list[Any] = []
    chat_texts(answer, received)
    assert received == ["a", "b", " c", None]


def test_chat_accumulated(server: EventServer) -> None:
    """The helper that accumulates a chat has all of it at the end."""
    answer = server.answer(script(OPENAI_CHAT, chat("a", "b", " c")), OPENAI_CHAT)
    with client_of(answer) as client, client.chat.completions.stream(**ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == "ab c"


@pytest.mark.parametrize("kind", CUT)
def test_chat_is_cut(server: EventServer, kind: OutcomeKind) -> None:
    """A chat that is cut raises after its last item, with the kind as the code."""
    answer = server.answer(script(OPENAI_CHAT, islice(chat("a", "b"), 2), kind), OPENAI_CHAT)
    received: list[Any] = []
    with pytest.raises(APIError, match=r"^Sorry\.$") as caught:
        chat_texts(answer, received)
    assert received == ["a", "b"]
    assert caught.value.code == kind


def test_chat_is_shut_down(server: EventServer) -> None:
    """A chat that a shutdown has cut is an error of the server, and the client asks only once.

    No SDK tries a stream again that has begun, whatever it is told: that is for the application.
    """
    answer = server.answer(shut_down(OPENAI_CHAT, islice(chat("a", "b"), 2)), OPENAI_CHAT)
    received: list[Any] = []
    with pytest.raises(APIError, match=r"^Sorry\.$") as caught:
        chat_texts(answer, received, max_retries=2)
    assert received == ["a", "b"]
    assert (caught.value.type, caught.value.code) == ("server_error", "shutdown")
    assert len(answer.requests) == 1


def test_chat_is_cut_at_once(server: EventServer) -> None:
    """The accumulating helper also raises the error if there was no chunk before it."""
    answer = server.answer(script(OPENAI_CHAT, [], "failed"), OPENAI_CHAT)
    with client_of(answer) as client, client.chat.completions.stream(**ASK) as stream:
        with pytest.raises(APIError, match=r"^Sorry\.$"):
            stream.until_done()


def test_an_async_client(server: EventServer) -> None:
    """The async client sees the same: items, no beats, the error of a cancelled chat."""
    answer = server.answer(script(OPENAI_CHAT, islice(chat("a", "b"), 2), "cancelled"), OPENAI_CHAT)
    received: list[Any] = []

    async def main() -> None:
        async with AsyncOpenAI(base_url=answer.url, api_key="none", max_retries=0) as client:
            async for chunk in await client.chat.completions.create(**ASK, stream=True):
                received.append(chunk.choices[0].delta.content)

    with pytest.raises(APIError, match=r"^Sorry\.$") as caught:
        asyncio.run(main())
    assert received == ["a", "b"]
    assert caught.value.code == "cancelled"


@pytest.mark.parametrize("texts", [("a", "b", " c"), ("a",)])
def test_response(server: EventServer, texts: tuple[str, ...]) -> None:
    """Every event of a response arrives once, and nothing for the beats."""
    answer = server.answer(script(OPENAI_RESPONSES, responses(*texts)), OPENAI_RESPONSES)
    received: list[Any] = []
    response_types(answer, received)
    assert received == [event["type"] for event in responses(*texts)]


def test_response_accumulated(server: EventServer) -> None:
    """The helper that accumulates a response has all of it at the end."""
    answer = server.answer(script(OPENAI_RESPONSES, responses("a", "b", " c")), OPENAI_RESPONSES)
    with client_of(answer) as client, client.responses.stream(model="m", input="?") as stream:
        assert stream.get_final_response().output_text == "ab c"


@pytest.mark.parametrize("kind", CUT)
def test_response_is_cut(server: EventServer, kind: OutcomeKind) -> None:
    """A response that is cut raises, where an event ``error`` without ``error`` in it would not."""
    items = list(islice(responses("a", "b"), 4))
    answer = server.answer(script(OPENAI_RESPONSES, items, kind), OPENAI_RESPONSES)
    received: list[Any] = []
    with pytest.raises(APIError, match=r"^Sorry\.$") as caught:
        response_types(answer, received)
    assert received == [event["type"] for event in items]
    assert caught.value.code == kind


def test_response_is_shut_down(server: EventServer) -> None:
    """So does a response, with the code of a shutdown, and the accumulating helper."""
    items = list(islice(responses("a", "b"), 4))
    answer = server.answer(shut_down(OPENAI_RESPONSES, items), OPENAI_RESPONSES)
    received: list[Any] = []
    with pytest.raises(APIError, match=r"^Sorry\.$") as caught:
        response_types(answer, received)
    assert received == [event["type"] for event in items]
    assert (caught.value.type, caught.value.code) == ("server_error", "shutdown")
    with client_of(answer) as client, client.responses.stream(model="m", input="?") as stream:
        with pytest.raises(APIError, match=r"^Sorry\.$"):
            stream.until_done()


@pytest.mark.parametrize("count", [0, 4])
def test_accumulated_response_is_cut(server: EventServer, count: int) -> None:
    """The accumulating helper raises the error too, also as the first event of all."""
    items = islice(responses("a"), count)
    answer = server.answer(script(OPENAI_RESPONSES, items, "cancelled"), OPENAI_RESPONSES)
    with client_of(answer) as client, client.responses.stream(model="m", input="?") as stream:
        with pytest.raises(APIError, match=r"^Sorry\.$"):
            stream.until_done()


def test_what_passes_raw(server: EventServer) -> None:
    """A proxy may pass the bytes of an upstream on, with beats in between."""
    upstream = script(OPENAI_CHAT, chat("a", "b"))
    answer = server.answer(script(RAW, upstream), RAW)
    received: list[Any] = []
    chat_texts(answer, received)
    assert received == ["a", "b", None]


def test_whole_events(server: EventServer) -> None:
    """A proxy whose upstream sends bytes in any pieces makes whole events of them."""
    upstream = b"".join(script(OPENAI_CHAT, chat("a", "b"))).replace(b"\n", b"\r\n")
    frames: list[bytes] = []

    async def main() -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(upstream), 7):
                yield upstream[start : start + 7]

        async for frame in whole_events(pieces()):
            frames.extend((frame, RAW.beat))

    asyncio.run(main())
    received: list[Any] = []
    chat_texts(server.answer(frames, RAW), received)
    assert received == ["a", "b", None]


def test_a_stream_that_aborts(server: EventServer) -> None:
    """Without a last frame, a connection that is cut is an error to the client as well."""
    answer = server.answer(script(RAW, script(OPENAI_CHAT, chat("a"))[:3]), RAW, aborts=True)
    received: list[Any] = []
    with pytest.raises(APIConnectionError):
        chat_texts(answer, received)
    assert received == ["a"]


@pytest.mark.parametrize(
    "frames",
    [
        script(OPENAI_CHAT, chat("a"), beat=BAD_BEAT),
        [ServerSentEvent(id="7").encode()],
        [ServerSentEvent("", event="cancelled").encode()],
    ],
    ids=["beat of two lines", "id alone", "no text"],
)
def test_what_the_profile_keeps_away(server: EventServer, frames: list[bytes]) -> None:
    """The SDK crashes on what it takes for an event without data: why a beat is one line."""
    with pytest.raises(JSONDecodeError):
        chat_texts(server.answer(frames, OPENAI_CHAT), [])


def test_a_name_of_ones_own_is_mistaken(server: EventServer) -> None:
    """An event of another name is taken for a chunk: why a cancelled chat ends in an error."""
    frame = ServerSentEvent('{"reason": "stop"}', event="cancelled").encode()
    answer = server.answer([frame], OPENAI_CHAT)
    with client_of(answer) as client, client.chat.completions.create(**ASK, stream=True) as stream:
        assert [type(chunk).__name__ for chunk in stream] == ["ChatCompletionChunk"]
