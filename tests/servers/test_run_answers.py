"""Runs on uvicorn: clients that are cut off and come back, and a shutdown."""

from __future__ import annotations

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from recipes import UVICORN, Program, running
from run_answers import TEXTS
from support.event_stream import Event, EventStreamParser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READERS = 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(Program([*UVICORN, "run_answers:app"], tmp_path_factory.mktemp("runs"))) as server:
        yield server
        server.terminate()
        server.end()


@pytest.fixture
def program(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


def begin(program: Program, kind: str) -> str:
    return str(program.post(f"/start/{kind}").json()["id"])


def read(program: Program, run_id: str, seen: str, limit: float) -> tuple[int, EventStreamParser]:
    """Read so many bytes of a run, then cut the connection."""
    headers = {"last-event-id": seen} if seen else {}
    parser = EventStreamParser()
    with (
        program.client() as client,
        client.stream("GET", f"/runs/{run_id}", headers=headers) as response,
    ):
        for chunk in response.iter_raw():
            parser.feed(chunk[: int(min(limit, len(chunk)))])
            limit -= len(chunk)
            if limit <= 0:
                break
    return response.status_code, parser


def whole(program: Program, run_id: str, next_limit: Any) -> list[Event]:
    """Read a run with a client that is cut off, until it is told that there is nothing more."""
    seen, events = "", list[Event]()
    for _ in range(10_000):
        status, parser = read(program, run_id, seen, next_limit())
        events += parser.events
        seen = parser.last_event_id or seen
        if status == 204:
            return events
    raise AssertionError(events[-3:])


def test_cut_anywhere(program: Program) -> None:
    """Runs: cut after any number of bytes, what the client has seen is the whole, and the end."""
    run_id = begin(program, "fast")
    wanted = whole(program, run_id, lambda: float("inf"))
    assert [event.data for event in wanted[:-1]] == TEXTS
    size = 70
    for cut in range(0, size * 4, 7):
        limits = iter([cut])
        assert whole(program, run_id, lambda limits=limits: next(limits, 10**6)) == wanted


def test_many_that_come_and_go(program: Program) -> None:
    """Runs: while a run goes on, clients that are cut off at random see the same."""
    run_id = begin(program, "slow")

    def one(seed: int) -> list[Event]:
        numbers = random.Random(seed)
        return whole(program, run_id, lambda: numbers.randrange(80, 700))

    with ThreadPoolExecutor(READERS) as threads:
        seen = list(threads.map(one, range(READERS)))
    assert [event.data for event in seen[0][:-1]] == TEXTS
    assert all(events == seen[0] for events in seen)


def test_max_age(program: Program) -> None:
    """Runs: a body that has come of age ends as a whole, without an end."""
    run_id = begin(program, "slow")
    response = httpx.get(f"{program.url}/runs/{run_id}?max_age=0.2", trust_env=False)
    parser = EventStreamParser()
    parser.feed(response.content)
    assert 1 <= len(parser.events) < len(TEXTS)
    assert all(event.type == "message" for event in parser.events)


def test_sigterm(tmp_path: Path) -> None:
    """Runs: at the end of the server, all runs are told and saved, and all readers get the end."""
    with running(Program([*UVICORN, "run_answers:app"], tmp_path)) as program:
        ids = [begin(program, "forever") for _ in range(10)]

        def one(number: int) -> list[Event]:
            with program.events("GET", f"/runs/{ids[number % 10]}") as events:
                first = events.next()
                return [first, *events.rest()]

        with ThreadPoolExecutor(READERS + 1) as threads:
            readers = [threads.submit(one, number) for number in range(READERS)]
            with program.events("GET", f"/runs/{ids[0]}") as events:
                for _ in range(20):
                    events.next()
                program.terminate()
                events.rest()
            seen = [reader.result() for reader in readers]
        for events_of in seen:
            *items, told, end = events_of
            assert [event.data for event in items] == [str(n) for n in range(len(items))]
            assert told.data == "told"
            assert json.loads(end.data)["kind"] == "shutdown"
            assert end.last_event_id.endswith(".end")
        output = program.output()
        program.end()
        assert sorted(re.findall(r"saved (\w+): cancelled", output)) == sorted(ids)
