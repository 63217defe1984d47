"""Runs on uvicorn: clients that are cut off and come back, and a shutdown."""

from __future__ import annotations

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from readers import Reader
from recipes import UVICORN, Program, running
from run_answers import TEXTS
from support.event_stream import EventStreamParser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamkit.client import Event
    from support.event_stream import Event as ParsedEvent

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


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients come back at once: how long they wait is tested in virtual time."""
    monkeypatch.setattr("streamkit._client.connection.pause", lambda *told: 0.0)


@pytest.mark.real_time
@pytest.mark.one_of_each
@pytest.mark.usefixtures("at_once")
async def test_cut_anywhere(program: Program) -> None:
    """Runs: cut after any number of bytes, what the client has seen is the whole, and the end."""
    run_id = begin(program, "fast")
    wanted = await Reader(program.port, run_id).read()
    assert [event.data for event in wanted[:-1]] == TEXTS
    size = 70
    for cut in range(0, size * 4, 7):
        limits = iter([cut])
        reader = Reader(program.port, run_id)
        assert await reader.read(lambda limits=limits: next(limits, 10**6)) == wanted


@pytest.mark.real_time
@pytest.mark.one_of_each
@pytest.mark.usefixtures("at_once")
async def test_many_that_come_and_go(program: Program) -> None:
    """Runs: while a run goes on, clients that are cut off at random see the same."""
    run_id = begin(program, "slow")
    seen: list[list[Event]] = []

    async def one(seed: int) -> None:
        numbers = random.Random(seed)
        reader = Reader(program.port, run_id)
        seen.append(await reader.read(lambda: numbers.randrange(160, 700)))

    async with anyio.create_task_group() as tasks:
        for seed in range(READERS):
            tasks.start_soon(one, seed)
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

        def one(number: int) -> list[ParsedEvent]:
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
