"""The chat of ``examples/chat_resume.py`` on uvicorn: clients come back, and not all may read."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from recipes import Events, Program, Upstream, chatting
from serving import eventually
from support.event_stream import Event
from support.reading import asking_at, read

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE = {"authorization": "Bearer alice"}
MALLORY = {"authorization": "Bearer mallory"}
GONE = '{"kind":"gone","message":"There is no such stream, or no longer."}'
SHUTDOWN = '{"kind":"shutdown","message":"The server is shutting down."}'
STOPPED = '{"kind":"cancelled","message":"The stream was cancelled."}'


@pytest.fixture(scope="module")
def shared(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with chatting("chat_resume", upstream, tmp_path_factory.mktemp("chat")) as chat:
        yield chat


@pytest.fixture
def chat(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


def saved(chat: Program, question: str) -> str:
    """Return what the database has of the answer to a question."""
    with closing(sqlite3.connect(chat.directory / "chat.db")) as database:
        rows = database.execute(
            "SELECT answer FROM messages WHERE question = ? AND owner = 'alice'", [question]
        )
        ((answer,),) = rows
    return answer


def begin(events: Events, *pieces: str) -> tuple[str, str]:
    """Receive some pieces. Returns where the answer is, and the id of the last event."""
    received = [events.next() for _ in pieces]
    assert [event.data for event in received] == list(pieces)
    return events.response.headers["location"], received[-1].last_event_id


def test_comes_back(chat: Program, upstream: Upstream) -> None:
    """Recipe: a client that is cut off in the middle comes back, and gets the rest and the end.

    The answer goes on meanwhile, and is saved, although the session of the request is closed.
    """
    asked = {"question": upstream.ask("slow")}
    with chat.events("POST", "/chat", json=asked, headers=ALICE) as events:
        path, seen = begin(events, "a")
    with chat.events("GET", path, headers={**ALICE, "last-event-id": seen}) as events:
        rest = events.rest()
    assert [event.data for event in rest] == ["b", " c", '{"kind":"completed"}']
    assert saved(chat, asked["question"]) == "ab c"
    # Once more from the beginning, and from the end, after which there is nothing.
    with chat.events("GET", path, headers=ALICE) as events:
        assert [event.data for event in events.rest()][:3] == ["a", "b", " c"]
    with chat.events("GET", path, headers={**ALICE, "last-event-id": rest[-1].last_event_id}) as e:
        assert e.response.status_code == 204
    assert (
        len([each for each in upstream.records(asked["question"]) if each["event"] == "asked"]) == 1
    )


@pytest.mark.real_time
@pytest.mark.one_of_each
@pytest.mark.parametrize("cut", [0, 1, 40, 100, 200])
async def test_a_client_of_ours(chat: Program, upstream: Upstream, cut: int) -> None:
    """Recipe: a client that asks once, and is cut, goes on by itself where its answer is, until the
    answer is complete; without a place to go on, it would not ask again.
    """
    asked = {"question": upstream.ask("slow")}
    limits = iter([cut])
    async with asking_at(chat.port, lambda: next(limits, float("inf"))) as client:
        *pieces, end = await read(client, "/chat", method="POST", json=asked, headers=ALICE)
    assert [event.data for event in pieces] == ["a", "b", " c"]
    assert (end.event, end.json()) == ("end", {"kind": "completed"})
    assert saved(chat, asked["question"]) == "ab c"


def test_nobody_is_there(chat: Program, upstream: Upstream) -> None:
    """Recipe: an answer is complete in the database although nobody has waited for it."""
    question = upstream.ask("slow")
    with chat.events("POST", "/chat", json={"question": question}, headers=ALICE) as events:
        begin(events, "a")
    eventually(lambda: saved(chat, question) == "ab c")


def test_two_clients(chat: Program, upstream: Upstream) -> None:
    """Recipe: a second client reads the same answer, while it is given and in the same order."""
    asked = {"question": upstream.ask("slow")}
    with chat.events("POST", "/chat", json=asked, headers=ALICE) as first:
        path, _ = begin(first, "a")
        with chat.events("GET", path, headers=ALICE) as second:
            others = second.rest()
        assert others[1:] == first.rest()


def test_stop(chat: Program, upstream: Upstream) -> None:
    """Recipe: an answer whose client has gone can be stopped, and what there is is saved."""
    question = upstream.ask("silent")
    with chat.events("POST", "/chat", json={"question": question}, headers=ALICE) as events:
        path, seen = begin(events, "a", "b")
    assert chat.post(f"{path}/cancel", headers=ALICE).json() == {"stopped": True}
    assert saved(chat, question) == "ab"
    upstream.wait_for(question, "left")
    with chat.events("GET", path, headers={**ALICE, "last-event-id": seen}) as events:
        assert [(event.data, event.type) for event in events.rest()] == [(STOPPED, "end")]


def test_permission(chat: Program, upstream: Upstream) -> None:
    """Recipe: who knows the address of an answer of somebody else can neither read nor stop it."""
    question = upstream.ask("silent")
    with chat.events("POST", "/chat", json={"question": question}, headers=ALICE) as events:
        path, seen = begin(events, "a", "b")
        for headers in MALLORY, {**MALLORY, "last-event-id": seen}:
            with chat.events("GET", path, headers=headers) as others:
                assert others.rest() == [Event(GONE, "end")]
        assert chat.post(f"{path}/cancel", headers=MALLORY).status_code == 404
        assert chat.post(f"{path}/cancel").status_code == 422
        time.sleep(0.2)
        assert upstream.records(question)[-1]["event"] == "asked"
        assert chat.post(f"{path}/cancel", headers=ALICE).json() == {"stopped": True}
        assert [event.data for event in events.rest()] == [STOPPED]


def test_failure(chat: Program, upstream: Upstream) -> None:
    """Recipe: a model breaks off: every client is told so, and what there was is saved."""
    question = upstream.ask("cut")
    failed = '{"kind":"failed","message":"The stream failed."}'
    with chat.events("POST", "/chat", json={"question": question}, headers=ALICE) as events:
        path, _ = begin(events, "a")
        assert [event.data for event in events.rest()] == [failed]
    with chat.events("GET", path, headers=ALICE) as events:
        assert [event.data for event in events.rest()] == ["a", failed]
    assert saved(chat, question) == "a"
    assert "has failed" in chat.output()
    assert chat.trouble()


# The last test of the file, since it ends the server that all of them share.
def test_sigterm(chat: Program, upstream: Upstream) -> None:
    """Recipe: a server that is asked to end stops its answers, and saves what there is."""
    asked = [upstream.ask("silent") for _ in range(2)]
    with chat.events("POST", "/chat", json={"question": asked[0]}, headers=ALICE) as events:
        begin(events, "a", "b")
    with chat.events("POST", "/chat", json={"question": asked[1]}, headers=ALICE) as events:
        begin(events, "a", "b")
        chat.terminate()
        assert [event.data for event in events.rest()] == [SHUTDOWN]
    chat.end()
    assert [saved(chat, question) for question in asked] == ["ab", "ab"]
