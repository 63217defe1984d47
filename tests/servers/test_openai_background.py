"""OpenAI's own SDK, as it is, against ``examples/openai_background.py`` on uvicorn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from recipes import UVICORN, Program, running
from serving import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = [f"word{number} " for number in range(30)]
PROMPT = "".join(WORDS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(Program([*UVICORN, "echoes:app"], tmp_path_factory.mktemp("openai"))) as server:
        yield server
        server.terminate()
        server.end()


@pytest.fixture
def server(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


@pytest.fixture
def client(server: Program) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="alice", max_retries=0) as client:
        yield client


def create(client: OpenAI, prompt: str, most: int = 10_000) -> list[Any]:
    """Ask in the background, and receive so many events at most. The connection is then closed."""
    return some(
        client.responses.create(model="m", input=prompt, background=True, stream=True), most
    )


def some(stream: Any, most: int = 10_000) -> list[Any]:
    events = []
    with stream:
        for event in stream:
            events.append(event)
            if len(events) == most:
                break
    return events


def text_of(events: list[Any]) -> str:
    return "".join(each.delta for each in events if each.type == "response.output_text.delta")


def test_goes_on(client: OpenAI) -> None:
    """Recipe: a response that is cut again and again is received as a whole, each event once."""
    events = create(client, PROMPT, most=5)
    response_id = events[0].response.id
    while events[-1].type != "response.completed":
        after = events[-1].sequence_number
        again = client.responses.retrieve(response_id, stream=True, starting_after=after)
        events += some(again, most=7)
    assert [event.sequence_number for event in events] == list(range(1, len(WORDS) + 3))
    assert text_of(events) == PROMPT
    assert events[-1].response.output_text == PROMPT
    # After its end there is nothing, at once; and without a place, all of it.
    last = events[-1].sequence_number
    assert some(client.responses.retrieve(response_id, stream=True, starting_after=last)) == []
    assert some(client.responses.retrieve(response_id, stream=True)) == events


def test_an_async_client(server: Program) -> None:
    """Recipe: the async client goes on as well."""

    async def main() -> list[Any]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="alice") as client:
            events = []
            async with await client.responses.create(
                model="m", input=PROMPT, background=True, stream=True
            ) as stream:
                async for event in stream:
                    events.append(event)
                    if len(events) == 5:
                        break
            async with await client.responses.retrieve(
                events[0].response.id, stream=True, starting_after=5
            ) as stream:
                events += [event async for event in stream]
            return events

    events = asyncio.run(main())
    assert text_of(events) == PROMPT
    assert [event.sequence_number for event in events] == list(range(1, len(WORDS) + 3))


def test_polled(client: OpenAI) -> None:
    """Recipe: a response without a stream is asked for until it is complete."""
    response = client.responses.create(model="m", input=PROMPT, background=True)
    assert response.status == "in_progress"
    eventually(lambda: client.responses.retrieve(response.id).status == "completed")
    assert client.responses.retrieve(response.id).output_text == PROMPT
    assert text_of(some(client.responses.retrieve(response.id, stream=True))) == PROMPT


def test_cancel(client: OpenAI) -> None:
    """Recipe: a response is cancelled, and every reader is told so after what there was."""
    events = create(client, "one two WAIT", most=3)
    response_id = events[0].response.id
    assert client.responses.cancel(response_id).status == "cancelled"
    assert client.responses.retrieve(response_id).status == "cancelled"
    for after, texts in (0, "one two "), (3, ""):
        received = []
        with pytest.raises(APIError) as caught:
            with client.responses.retrieve(response_id, stream=True, starting_after=after) as again:
                received.extend(again)
        assert caught.value.code == "cancelled"
        assert text_of(received) == texts
    assert client.responses.cancel(response_id).status == "cancelled"


def test_failure(server: Program, client: OpenAI) -> None:
    """Recipe: a response that breaks is an error to its readers, without its details."""
    with pytest.raises(APIError, match=r"^The stream failed\.$"):
        create(client, "one BREAK")
    assert "secret" in server.output()
    assert server.trouble()


def test_permission(server: Program, client: OpenAI) -> None:
    """Recipe: with another key there is no such response."""
    response_id = create(client, "one WAIT", most=1)[0].response.id
    with OpenAI(base_url=f"{server.url}/v1", api_key="mallory", max_retries=0) as other:
        with pytest.raises(NotFoundError):
            other.responses.retrieve(response_id, stream=True)
        with pytest.raises(NotFoundError, match="There is no such response"):
            other.responses.retrieve(response_id)
        with pytest.raises(NotFoundError):
            other.responses.cancel(response_id)
    assert client.responses.retrieve(response_id).status == "in_progress"
    assert client.responses.cancel(response_id).status == "cancelled"


def test_not_in_the_background(client: OpenAI) -> None:
    """Recipe: what is not kept is refused."""
    with pytest.raises(BadRequestError):
        client.responses.create(model="m", input="one")


# The last test of the file, since it ends the server that all of them share.
def test_sigterm(server: Program, client: OpenAI) -> None:
    """Recipe: a server that is asked to end tells its readers so."""
    received = []
    with pytest.raises(APIError) as caught:
        stream = client.responses.create(model="m", input="one WAIT", background=True, stream=True)
        with stream:
            for event in stream:
                received.append(event)
                if len(received) == 2:
                    server.terminate()
    assert caught.value.code == "shutdown"
    server.end()
