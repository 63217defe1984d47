"""What ``examples/letta_response.py`` takes over from letta, and each defect of it, on uvicorn."""

from __future__ import annotations

import json
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from recipes import UVICORN, Events, Program, running
from serving import eventually
from support.event_stream import Event, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

DONE = Event("[DONE]")
CANCELLED = Event('{"message": "The stream was cancelled.", "code": "cancelled"}', "cancelled")
FAILED = Event('{"message": "The stream failed.", "code": "failed"}', "error")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(Program([*UVICORN, "agents:app"], tmp_path_factory.mktemp("letta"))) as server:
        yield server
        server.terminate()
        server.end()


@pytest.fixture
def letta(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


names = count(1)


def messages(kind: str) -> str:
    """Return the path of an agent that nobody has asked before."""
    return f"/agents/{kind}-{next(names)}/messages"


def agent(path: str) -> str:
    return path.split("/")[2]


def numbers(events: list[Event]) -> list[int]:
    """Return the numbers of chunks, without pings."""
    chunks = [json.loads(event.data) for event in events]
    return [chunk["seq_id"] for chunk in chunks if chunk["message_type"] != "ping"]


def begin(events: Events) -> str:
    """Receive the first chunk. Returns the id of the run."""
    while not (seen := numbers([events.next()])):
        pass  # in the background, there is a ping as soon as there is a status
    assert seen == [1]
    return events.response.headers["x-run-id"]


def status(letta: Program, run_id: str) -> str:
    with letta.client() as client:
        return client.get(f"/runs/{run_id}").json()["status"]


def test_pings(letta: Program) -> None:
    """Recipe: pings come in the silence, with the number of the last chunk."""
    with letta.events("POST", messages("short")) as events:
        run_id = begin(events)
        *between, last, done = events.rest()
    ping = {"message_type": "ping", "run_id": run_id, "seq_id": 1}
    assert [json.loads(event.data) for event in between] == [ping] * len(between) != []
    assert (numbers([last]), done) == ([2], DONE)


def test_cancellation(letta: Program) -> None:
    """Recipe: the status of a run in the table stops it where it is blocked, although it is silent.

    The client is told in the last frame, and nothing follows.
    """
    with letta.events("POST", path := messages("silent")) as events:
        run_id = begin(events)
        assert letta.post(f"/runs/{run_id}/cancel").status_code == 202
        *pings, last = events.rest()
        assert events.response.status_code == 200
    assert numbers(pings) == []
    assert last == CANCELLED
    assert f"{agent(path)} was told: None\n" in letta.output()
    assert status(letta, run_id) == "cancelled"


@pytest.mark.parametrize(("kind", "code"), [("accepted", 202), ("busy", 409)])
def test_status(letta: Program, kind: str, code: int) -> None:
    """Recipe: the status of the first chunk is that of the response, although pings are due before.

    If it is a refusal, nothing comes after it.
    """
    with letta.events("POST", messages(kind)) as events:
        assert events.response.status_code == code
        *items, last = events.rest()
    assert numbers(items) == ([1, 2] if code == 202 else [1])
    assert last == DONE


def test_error_first(letta: Program) -> None:
    """Recipe: an error before the first chunk is answered by the handlers of the framework."""
    answer = letta.post(messages("unknown"))
    assert (answer.status_code, answer.text) == (404, "no such agent")
    assert letta.trouble()  # on_end tells of any failure


def test_empty(letta: Program) -> None:
    """Recipe: a run without chunks is no error."""
    answer = letta.post(messages("empty"))
    assert answer.status_code == 200
    assert parse(answer.content).events[-1] == DONE


@pytest.mark.parametrize("kind", ["refused", "broken"])
def test_error_later(letta: Program, kind: str) -> None:
    """Recipe: an error, or a bad status, after the first chunk is a last frame without details."""
    with letta.events("POST", messages(kind)) as events:
        run_id = begin(events)
        assert events.rest() == [FAILED]
    assert b"secret" not in events.bytes
    assert status(letta, run_id) == "failed"
    assert "secret" in letta.output()
    assert letta.trouble()


def test_dead_source(letta: Program) -> None:
    """Recipe: pings do not go on for ever over a source that is dead."""
    with letta.events("POST", messages("silent")) as events:
        run_id = begin(events)
        *pings, last = events.rest()
    assert numbers(pings) == []
    assert last == Event('{"message": "The stream took too long.", "code": "timed_out"}', "error")
    assert status(letta, run_id) == "timed_out"


def test_status_is_written_first(letta: Program) -> None:
    """Recipe: when the client reads ``[DONE]``, the table knows that the run has ended."""
    with letta.events("POST", messages("short")) as events:
        run_id = begin(events)
        assert status(letta, run_id) == "running"
        while events.next() != DONE:
            pass
        assert status(letta, run_id) == "completed"


def test_leave(letta: Program) -> None:
    """Recipe: a run goes on when its client leaves."""
    with letta.events("POST", messages("short")) as events:
        run_id = begin(events)
    assert status(letta, run_id) == "running"
    eventually(lambda: status(letta, run_id) == "completed")


def test_cancellation_after_leaving(letta: Program) -> None:
    """Recipe: a run without a client can be cancelled like any other."""
    with letta.events("POST", path := messages("silent")) as events:
        run_id = begin(events)
    time.sleep(0.2)  # for its request to end
    assert status(letta, run_id) == "running"
    assert letta.post(f"/runs/{run_id}/cancel").status_code == 202
    eventually(lambda: status(letta, run_id) == "cancelled")
    assert f"{agent(path)} was told: None\n" in letta.output()


def in_background(letta: Program, path: str) -> AbstractContextManager[Events]:
    return letta.events("POST", path, json={"background": True})


def again(letta: Program, run_id: str, after: int) -> AbstractContextManager[Events]:
    return letta.events("GET", f"/runs/{run_id}/stream?starting_after={after}")


def test_background(letta: Program) -> None:
    """Recipe: a run in the background is read again from any chunk on, also when it has ended.

    Who has seen the last chunk gets the end, at once.
    """
    with in_background(letta, messages("short")) as events:
        run_id = begin(events)
    assert status(letta, run_id) == "running"
    with again(letta, run_id, 1) as events:
        *between, last, done = events.rest()
    assert {json.loads(event.data)["message_type"] for event in between} == {"ping"}
    assert (numbers([last]), done.data) == ([2], "[DONE]")
    assert json.loads(last.data)["run_id"] == run_id
    asked = time.monotonic()
    for after, rest in (0, [1, 2]), (1, [2]), (2, []):
        with again(letta, run_id, after) as events:
            *chunks, done = events.rest()
        assert (numbers(chunks), done.data) == (rest, "[DONE]")
    assert time.monotonic() - asked < 1


def test_background_cancellation(letta: Program) -> None:
    """Recipe: the table stops a run in the background, and all readers get the same last frame."""
    with in_background(letta, path := messages("silent")) as events:
        run_id = begin(events)
        with again(letta, run_id, 1) as others:
            assert letta.post(f"/runs/{run_id}/cancel").status_code == 202
            last = [events.rest()[-1], others.rest()[-1]]
    with again(letta, run_id, 1) as later:
        last += later.rest()
    assert [(event.data, event.type) for event in last] == [(CANCELLED.data, CANCELLED.type)] * 3
    assert f"{agent(path)} was told: None\n" in letta.output()
    assert status(letta, run_id) == "cancelled"


def test_background_status(letta: Program) -> None:
    """Recipe: the status of the first chunk is the status for all readers of the run."""
    with in_background(letta, messages("busy")) as events:
        assert events.response.status_code == 409
        assert numbers(events.rest()[:-1]) == [1]
        run_id = events.response.headers["x-run-id"]
    with letta.events("GET", f"/runs/{run_id}/stream") as events:
        assert events.response.status_code == 409


def test_background_failure(letta: Program) -> None:
    """Recipe: a run in the background that breaks is an error to its readers, without details."""
    with in_background(letta, messages("broken")) as events:
        run_id = begin(events)
        (failed,) = events.rest()
    assert (failed.data, failed.type) == (FAILED.data, FAILED.type)
    assert status(letta, run_id) == "failed"
    assert "secret" in letta.output()
    assert letta.trouble()


def test_background_is_trimmed(letta: Program) -> None:
    """Recipe: a reader is told if chunks are gone that it has not seen, and which are there."""
    with in_background(letta, messages("long")) as events:
        run_id = begin(events)
    eventually(lambda: status(letta, run_id) == "completed")
    with letta.client() as client:
        answer = client.get(f"/runs/{run_id}/stream?starting_after=1")
        assert (answer.status_code, answer.json()["code"]) == (410, "gap")
        kept = answer.json()["first"], answer.json()["last"]
        assert 1 < kept[0] < kept[1] == 400
        unknown = client.get("/runs/run-0/stream")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "run_not_found")
    with again(letta, run_id, kept[0] - 1) as events:
        assert numbers(events.rest()[:-1]) == list(range(kept[0], 401))


# The last test of the file, since it ends the server that all of them share.
def test_sigterm(letta: Program) -> None:
    """Recipe: a server that is asked to end stops its runs, those without a client, too."""
    with letta.events("POST", left := messages("silent")) as events:
        begin(events)
    with in_background(letta, background := messages("silent")) as events:
        begin(events)
    with letta.events("POST", stayed := messages("silent")) as events:
        begin(events)
        letta.terminate()
        assert events.rest()[-1] == CANCELLED
    for path in left, background, stayed:
        eventually(lambda path=path: f"{agent(path)} was told: Shutdown()\n" in letta.output())
    letta.end()
