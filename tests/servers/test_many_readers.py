"""Runs on uvicorn, hypercorn (asyncio and trio) and granian: many readers, and a shutdown."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from client import Client
from readers import Reader
from recipes import Program, running
from serving import COMMANDS, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamkit.client import Event

RUNS = 100
READERS = 300
COMING_AND_GOING = 100

# Real seconds: of the grace of 3, the sources take 0.2, and on_end takes 0.1. Hypercorn itself
# cuts after 3.
WITHIN = 6.0

# Bytes by which a server may grow, while twenty times as many go through a run.
GROWTH = 16 * 2**20


def program_on(name: str, directory: Path) -> Program:
    command = ["-m", *COMMANDS[name], "run_server:app"]
    return Program(command, directory, SAVED=str(directory / "saved.txt"))


@pytest.fixture(scope="module", params=list(COMMANDS))
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    with running(program_on(request.param, tmp_path_factory.mktemp(request.param))) as program:
        yield program
        program.terminate()
        program.end()


@pytest.fixture
def program(shared: Program) -> Program:
    return shared


# On which the readers run.
on_both = pytest.mark.parametrize("backend_name", ["asyncio", "trio"])


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients come back at once: how long they wait is tested in virtual time."""
    monkeypatch.setattr("streamkit._client.connection.pause", lambda *told: 0.0)


def begin(program: Program, kind: str) -> str:
    return str(program.post(f"/start/{kind}").json()["id"])


def state(program: Program) -> dict[str, int]:
    with program.client() as client:
        return dict(client.get("/state").json())


def without_information(lines: list[str]) -> list[str]:
    """Leave out what granian mentions of clients that have gone."""
    return [line for line in lines if not line.startswith("[INFO]")]


@on_both
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("ending", ["ends", "fails", "is cancelled"])
def test_come_and_go(program: Program, ending: str, backend_name: str) -> None:
    """Runs: 100 readers leave and come back at random, and each has all of it, and the end."""
    run_id = begin(program, ending)
    seen: list[list[Event]] = []

    async def read(seed: int) -> None:
        numbers = random.Random(seed)
        reader = Reader(program.port, run_id)
        seen.append(await reader.read(lambda: numbers.randrange(200, 3_000)))

    async def visit() -> None:
        async with anyio.create_task_group() as tasks:
            for seed in range(COMING_AND_GOING):
                tasks.start_soon(read, seed)
            if ending == "is cancelled":
                await anyio.sleep(1.0)
                await anyio.to_thread.run_sync(program.post, f"/cancel/{run_id}")

    anyio.run(visit, backend=backend_name)
    assert len(seen) == COMING_AND_GOING
    *items, end = seen[0]
    assert [item.data for item in items] == [f"text {number}, é" for number in range(len(items))]
    assert len(items) == 60 or ending == "is cancelled"
    kind = {"ends": "completed", "fails": "failed", "is cancelled": "cancelled"}[ending]
    assert json.loads(end.data)["kind"] == kind
    assert all(events == seen[0] for events in seen)
    eventually(lambda: state(program)["readers"] == 0)
    trouble = without_information(program.trouble())
    # The one thing that is to be logged, with its traceback.
    assert bool(trouble) is False or ending == "fails"


@on_both
@pytest.mark.usefixtures("at_once")
def test_cut_at_every_byte(program: Program, backend_name: str) -> None:
    """Runs: cut at any byte of its first and last events, and after each, a reader has it all."""
    run_id = begin(program, "ends")

    async def visit() -> None:
        whole = Reader(program.port, run_id)
        await whole.read()
        assert len(whole.events) == 61
        # As they were sent, each with its id.
        sizes = [
            len(f"data: {event.data}\nid: {event.id}\n\n".encode()) for event in whole.events[:-1]
        ]
        after_each = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        cuts = {*range(after_each[3]), *after_each, *range(after_each[-2], after_each[-1] + 120)}
        few = anyio.Semaphore(10)

        async def read(cut: int) -> None:
            limits = iter([cut])
            reader = Reader(program.port, run_id)
            async with few:
                events = await reader.read(lambda: next(limits, float("inf")))
            assert events == whole.events, cut

        async with anyio.create_task_group() as tasks:
            for cut in cuts:
                tasks.start_soon(read, cut)

    anyio.run(visit, backend=backend_name)
    assert without_information(program.trouble()) == []


def test_nobody_reads_a_hot_source(program: Program) -> None:
    """Runs: a source that never blocks, and that nobody reads, freezes nothing."""
    run_id = begin(program, "hot")
    before = state(program)["made"]
    for _ in range(5):
        # Each request is answered, or the client gives up.
        now = state(program)["made"]
        assert now > before
        before = now
    assert program.post(f"/cancel/{run_id}").json() is True


def test_a_reader_that_never_reads(program: Program) -> None:
    """Runs: a client that reads nothing holds its connection, and no memory that grows."""
    run_id = begin(program, "hot")
    client = Client(program.port, f"/runs/{run_id}", buffer=4096)
    eventually(lambda: state(program)["readers"] == 1)
    made = state(program)["made"]
    eventually(lambda: state(program)["made"] > made + 1_000, within=20)
    first = state(program)
    eventually(
        lambda: state(program)["made"] > first["made"] + GROWTH // 500,
        within=60,
        what=lambda: (first, state(program)),
    )
    last = state(program)
    assert last["readers"] == 1
    assert last["memory"] - first["memory"] < GROWTH
    assert program.post(f"/cancel/{run_id}").json() is True
    client.leave(reset=True)
    eventually(lambda: state(program)["readers"] == 0)
    assert without_information(program.trouble()) == []


@pytest.mark.parametrize("name", list(COMMANDS))
def test_sigterm(name: str, tmp_path: Path) -> None:
    """Runs: all runs are told, saved and ended within the grace, and all readers are told."""
    with running(program_on(name, tmp_path)) as program:
        with program.client() as client:
            ids = [client.post("/start/steady").json()["id"] for _ in range(RUNS)]
        readers = [Reader(program.port, ids[number % RUNS]) for number in range(READERS)]
        asked, answered = 0.0, 0

        def answer() -> None:
            nonlocal answered, asked
            answered += 1
            if answered == READERS:
                asked = time.monotonic()
                program.terminate()

        async def read(reader: Reader) -> None:
            # Of a shutdown it would come back, and is not to.
            await reader.read(last_word=lambda event: event.event == "end", on_event=answer)

        async def visit() -> None:
            async with anyio.create_task_group() as tasks:
                for reader in readers:
                    tasks.start_soon(read, reader)

        anyio.run(visit)
        program.end()
        assert time.monotonic() - asked < WITHIN
        logs: dict[str, list[Event]] = {}
        for reader in readers:
            *items, told, end = reader.events
            assert [event.data for event in items] == [str(n) for n in range(len(items))]
            assert told.data == "told"
            assert json.loads(end.data)["kind"] == "shutdown"
            assert end.id.endswith(".end")
            assert logs.setdefault(reader.run_id, reader.events) == reader.events
        saved = [line.split() for line in (tmp_path / "saved.txt").read_text().splitlines()]
        assert sorted(saved) == sorted(
            [run_id, "cancelled", "Shutdown", str(len(events) - 1)]
            for run_id, events in logs.items()
        )
        assert len(saved) == RUNS
