"""The chat endpoint of ``examples/chat.py``, on uvicorn, with a model server behind it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from recipes import Program, Upstream, chatting
from serving import PATIENCE, eventually
from support.event_stream import Event, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPPED = '{"kind":"cancelled","message":"The stream was cancelled."}'
SHUTDOWN = '{"kind":"shutdown","message":"The server is shutting down."}'


@pytest.fixture(scope="module")
def shared(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with chatting("chat", upstream, tmp_path_factory.mktemp("chat")) as chat:
        yield chat


@pytest.fixture
def chat(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


def saved(chat: Program, run_id: str) -> dict[str, Any] | None:
    path = chat.directory / f"{run_id}.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_answer(chat: Program, upstream: Upstream) -> None:
    """Recipe: an answer arrives piece by piece, and is saved."""
    run_id, question = str(uuid4()), upstream.ask("three")
    with chat.events("POST", f"/chat/{run_id}", json={"question": question}) as events:
        assert events.response.status_code == 200
        assert "".join(event.data for event in events.rest()) == 'ab c{"kind":"completed"}'
    assert saved(chat, run_id) == {"question": question, "answer": "ab c", "ended": "completed"}


def test_stop(chat: Program, upstream: Upstream) -> None:
    """Recipe: while the model is silent, a second request stops the run.

    When that is answered, the partial answer is saved and the model is left; the client is told.
    """
    run_id, question = str(uuid4()), upstream.ask("silent")
    with chat.events("POST", f"/chat/{run_id}", json={"question": question}) as events:
        assert [events.next().data, events.next().data] == ["a", "b"]
        assert saved(chat, run_id) is None
        assert chat.post(f"/cancel/{run_id}").json() == {"stopped": True}
        assert saved(chat, run_id) == {"question": question, "answer": "ab", "ended": "cancelled"}
        assert events.rest() == [Event(STOPPED, "end")]
    upstream.wait_for(question, "left")


def test_stop_before_the_first_item(chat: Program, upstream: Upstream) -> None:
    """Recipe: a run is stopped while the model has not even begun to answer."""
    run_id, question = str(uuid4()), upstream.ask("never")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(chat.post, f"/chat/{run_id}", json={"question": question})
        upstream.wait_for(question, "asked")
        assert chat.post(f"/cancel/{run_id}").json() == {"stopped": True}
        assert parse(asked.result(PATIENCE).content).events == [Event(STOPPED, "end")]
    upstream.wait_for(question, "left")


def test_stop_before_the_start(chat: Program, upstream: Upstream) -> None:
    """Recipe: a run that is stopped before its request arrives does not ask the model."""
    run_id, question = str(uuid4()), upstream.ask("three")
    assert chat.post(f"/cancel/{run_id}").json() == {"stopped": True}
    answer = chat.post(f"/chat/{run_id}", json={"question": question})
    assert parse(answer.content).events == [Event(STOPPED, "end")]
    assert upstream.records(question) == []


def test_leave(chat: Program, upstream: Upstream) -> None:
    """Recipe: a client that leaves stops the run, too, and what there was is saved."""
    run_id, question = str(uuid4()), upstream.ask("silent")
    with chat.events("POST", f"/chat/{run_id}", json={"question": question}) as events:
        assert [events.next().data, events.next().data] == ["a", "b"]
    left = time.monotonic()
    record = eventually(lambda: saved(chat, run_id))
    assert record == {"question": question, "answer": "ab", "ended": "cancelled"}
    assert upstream.wait_for(question, "left")["time"] - left < 1


def test_failure(chat: Program, upstream: Upstream) -> None:
    """Recipe: a model breaks off. The client is told in general words, the log in detail."""
    run_id, question = str(uuid4()), upstream.ask("cut")
    with chat.events("POST", f"/chat/{run_id}", json={"question": question}) as events:
        assert events.next().data == "a"
        assert events.rest() == [
            Event('{"kind":"failed","message":"The stream failed."}', "end"),
        ]
    record = saved(chat, run_id)
    assert record == {"question": question, "answer": "a", "ended": "failed"}
    assert f"run {run_id} failed" in chat.output()
    assert chat.trouble()


# The last test of the file, since it ends the server that all of them share.
def test_sigterm(chat: Program, upstream: Upstream) -> None:
    """Recipe: a server that is asked to end stops its runs, and saves what there is."""
    run_id, question = str(uuid4()), upstream.ask("silent")
    with chat.events("POST", f"/chat/{run_id}", json={"question": question}) as events:
        assert [events.next().data, events.next().data] == ["a", "b"]
        chat.terminate()
        assert events.rest() == [Event(SHUTDOWN, "end")]
    chat.end()
    record = saved(chat, run_id)
    assert record == {"question": question, "answer": "ab", "ended": "cancelled"}
