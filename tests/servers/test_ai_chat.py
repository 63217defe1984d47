"""The chat of ``examples/ai_chat.py``, on uvicorn, with a model server behind it.

What the AI SDK makes of such an answer is in ``tests/clients/test_ai_sdk.py``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from recipes import Program, Upstream, chatting
from serving import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from support.event_stream import Event


@pytest.fixture(scope="module")
def shared(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with chatting("ai_chat", upstream, tmp_path_factory.mktemp("ai_chat")) as chat:
        yield chat


@pytest.fixture
def chat(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


def body(chat: str, question: str) -> dict[str, Any]:
    """What the AI SDK sends."""
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": question}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message"}


def text_of(events: Iterable[Event]) -> str:
    chunks = [json.loads(event.data) for event in events if event.data != "[DONE]"]
    return "".join(chunk.get("delta", "") for chunk in chunks)


def test_answer(chat: Program, upstream: Upstream) -> None:
    """Recipe: an answer arrives piece by piece; when it has ended, there is nothing to resume."""
    key, question = str(uuid4()), upstream.ask("three")
    with chat.events("POST", "/api/chat", json=body(key, question)) as events:
        assert events.response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        rest = events.rest()
    assert text_of(rest) == "ab c"
    assert rest[-1].data == "[DONE]"
    assert httpx.get(f"{chat.url}/api/chat/{key}/stream").status_code == 204
    response = httpx.post(f"{chat.url}/api/chat/{key}/cancel")
    assert response.json() == {"stopped": False}


def test_come_back_and_stop(chat: Program, upstream: Upstream) -> None:
    """Recipe: who leaves may come back to the same message, and stop it for all."""
    key, question = str(uuid4()), upstream.ask("silent")
    with chat.events("POST", "/api/chat", json=body(key, question)) as events:
        start = events.next()
    with chat.events("GET", f"/api/chat/{key}/stream") as events:
        assert events.next().data == start.data
        response = httpx.post(f"{chat.url}/api/chat/{key}/cancel")
        assert response.json() == {"stopped": True}
        rest = [event.data for event in events.rest()]
    assert json.loads(rest[-3])["type"] == "data-end"
    assert [json.loads(rest[-2]), rest[-1]] == [{"type": "abort"}, "[DONE]"]
    eventually(lambda: httpx.get(f"{chat.url}/api/chat/{key}/stream").status_code == 204)
