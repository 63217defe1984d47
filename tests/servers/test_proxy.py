"""The proxy of ``examples/proxy.py``, on uvicorn, between the SDK of OpenAI and a model server."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest

from recipes import UVICORN, Program, Upstream, running
from serving import PATIENCE, eventually
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def shared(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    command, directory = [*UVICORN, "proxy:app"], tmp_path_factory.mktemp("proxy")
    with running(Program(command, directory, UPSTREAM=upstream.url)) as proxy:
        yield proxy
        proxy.terminate()
        proxy.end()


@pytest.fixture(scope="module")
def shared_hasty(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    command, directory = [*UVICORN, "hasty_proxy:app"], tmp_path_factory.mktemp("hasty")
    with running(Program(command, directory, UPSTREAM=upstream.url)) as proxy:
        yield proxy
        proxy.terminate()
        proxy.end()


@pytest.fixture
def proxy(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


@pytest.fixture
def hasty(shared_hasty: Program) -> Iterator[Program]:
    """A proxy that sends its status and a beat after 0.05 seconds."""
    yield shared_hasty
    assert shared_hasty.trouble() == []


def sdk(proxy: Program, timeout: float = PATIENCE) -> openai.OpenAI:
    url = f"{proxy.url}/v1"
    return openai.OpenAI(base_url=url, api_key="mine", max_retries=0, timeout=timeout)


def body(question: str, **options: Any) -> Any:
    return {"model": "m", "messages": [{"role": "user", "content": question}], **options}


def texts(proxy: Program, question: str, received: list[str | None]) -> None:
    """Receive the texts of a chat."""
    asked = body(question, stream=True)
    with sdk(proxy) as client, client.chat.completions.create(**asked) as stream:
        for chunk in stream:
            received.append(chunk.choices[0].delta.content)


def told_the_log(proxy: Program) -> list[str]:
    """Wait until the log has a failure of which the client was told."""
    eventually(lambda: "told its client so" in proxy.output(), what=proxy.output)
    return proxy.trouble()


def test_chat(proxy: Program, upstream: Upstream) -> None:
    """Recipe: what the model says arrives, and the model knows who asks."""
    question = upstream.ask("three")
    received: list[str | None] = []
    texts(proxy, question, received)
    assert received == ["a", "b", " c", None]
    assert upstream.wait_for(question, "asked")["authorization"] == "Bearer mine"


def test_no_stream(proxy: Program, upstream: Upstream) -> None:
    """Recipe: an answer that is no stream passes as it is."""
    with sdk(proxy) as client:
        answer = client.chat.completions.with_raw_response.create(**body(upstream.ask("three")))
    assert answer.parse().choices[0].message.content == "ab c"
    assert answer.headers["content-type"] == "application/json"


def test_other_paths(proxy: Program) -> None:
    """Recipe: so does what is no chat: here, an error page of the upstream."""
    with proxy.client() as client:
        answer = client.get("/v1/models", params={"limit": 3})
    assert answer.status_code == 501
    assert "Unsupported method" in answer.text


@pytest.mark.parametrize("stream", [True, False])
def test_refusal(proxy: Program, upstream: Upstream, stream: bool) -> None:
    """Recipe: a refusal of the upstream is that of the proxy: status, headers and message."""
    question = upstream.ask("busy")
    with sdk(proxy) as client, pytest.raises(openai.RateLimitError, match="Slow down") as caught:
        client.chat.completions.create(**body(question, stream=stream))
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-request-id"]) == ("7", question)
    assert caught.value.code == "slow"


def test_head(proxy: Program, upstream: Upstream) -> None:
    """Recipe: the headers of a stream pass, and are there before its first event."""
    question = upstream.ask("mute")
    with proxy.events("POST", CHAT, json=body(question, stream=True)) as events:
        headers = events.response.headers
        assert headers["x-request-id"] == question
        assert headers["content-type"] == "text/event-stream"
        assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("kind", ["late three", "silent"])
def test_beats(hasty: Program, upstream: Upstream, kind: str) -> None:
    """Recipe: while the upstream thinks, before its status or after, the client receives beats."""
    asked = body(upstream.ask(kind), stream=True)
    with hasty.events("POST", CHAT, json=asked) as events:
        events.wait_for_beats(3)


def test_pieces(hasty: Program, upstream: Upstream) -> None:
    """Recipe: the upstream sends events in pieces, with silence in between: beats do not get in.

    Line ends in two bytes are torn apart as well, and what is a line end to Python only is none.
    """
    received: list[str | None] = []
    texts(hasty, upstream.ask("torn"), received)
    assert received == ["a", "\u2028\u2029\x85", None]
    asked = body(upstream.ask("torn"), stream=True)
    with hasty.events("POST", CHAT, json=asked) as events:
        assert events.rest()[-1].data == "[DONE]"
    assert re.fullmatch(rb"((: ping\n)*data: .+\n\n){4}(: ping\n)*", events.bytes)
    assert b"\n\n: ping\n" in events.bytes


def test_refusal_too_late(hasty: Program, upstream: Upstream) -> None:
    """Recipe: a refusal that comes when the client has had beats is told in the stream."""
    received: list[str | None] = []
    with pytest.raises(openai.APIError, match="The stream failed") as caught:
        texts(hasty, upstream.ask("late busy"), received)
    assert received == []
    assert caught.value.code == "failed"
    assert told_the_log(hasty)


@pytest.mark.parametrize(("kind", "there"), [("cut", ["a"]), ("short", ["a", "b"])])
def test_cut(proxy: Program, upstream: Upstream, kind: str, there: list[str]) -> None:
    """Recipe: an upstream that breaks off in the middle of an event is an error of the stream, and
    so is one whose body ends well without a last word.
    """
    received: list[str | None] = []
    with pytest.raises(openai.APIError, match="The stream failed") as caught:
        texts(proxy, upstream.ask(kind), received)
    assert received == there
    assert caught.value.code == "failed"
    assert told_the_log(proxy)


def test_responses(proxy: Program, upstream: Upstream) -> None:
    """Recipe: so it is with the other API, whose last word is another one."""
    with sdk(proxy) as client:
        *_, last = client.responses.create(model="m", input=upstream.ask("respond"), stream=True)
        assert last.type == "response.completed"
        assert proxy.trouble() == []
        question = upstream.ask("respond shortly")
        with pytest.raises(openai.APIError, match="The stream failed"):
            list(client.responses.create(model="m", input=question, stream=True))
    assert told_the_log(proxy)


def test_leave(proxy: Program, upstream: Upstream) -> None:
    """Recipe: a client that leaves while the upstream is silent takes the request to it along."""
    question = upstream.ask("silent")
    asked = body(question, stream=True)
    with sdk(proxy) as client, client.chat.completions.create(**asked) as stream:
        assert [next(stream).choices[0].delta.content for _ in range(2)] == ["a", "b"]
    left = time.monotonic()
    assert upstream.wait_for(question, "left")["time"] - left < 1


@pytest.mark.parametrize("stream", [True, False])
def test_leave_early(proxy: Program, upstream: Upstream, stream: bool) -> None:
    """Recipe: so does one that leaves before there is a status."""
    question = upstream.ask("never")
    with sdk(proxy, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**body(question, stream=stream))
    left = time.monotonic()
    assert upstream.wait_for(question, "left")["time"] - left < 1


def test_no_upstream(tmp_path: Path) -> None:
    """Recipe: an upstream that is not there is told by a status."""
    url = f"http://127.0.0.1:{free_port()}"
    with running(Program([*UVICORN, "proxy:app"], tmp_path, UPSTREAM=url)) as proxy:
        with sdk(proxy) as client, pytest.raises(openai.APIStatusError, match="does not answer"):
            client.chat.completions.create(**body("?", stream=True))
        assert proxy.trouble() == []


# The last test of the file, since it ends the server that most of them share.
def test_sigterm(proxy: Program, upstream: Upstream) -> None:
    """Recipe: a proxy that is asked to end does so, and tells its clients and the upstream."""
    question = upstream.ask("silent")
    asked = body(question, stream=True)
    with sdk(proxy) as client, client.chat.completions.create(**asked) as stream:
        assert [next(stream).choices[0].delta.content for _ in range(2)] == ["a", "b"]
        proxy.terminate()
        with pytest.raises(openai.APIError, match="The server is shutting down") as caught:
            next(stream)
        assert caught.value.code == "shutdown"
    upstream.wait_for(question, "left")
    proxy.end()
