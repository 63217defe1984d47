"""What the thread does with calls when the file is away, or one of them spoils it for others."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit._sqlite.database import Away, Remove
from streamkit._sqlite.transaction import News
from streamkit._sqlite.worker import Call, Worker
from streamkit._sqlite.writing import follow, keep_longer
from streamkit.runs import LogUnavailable, Requests, Terms
from streamkit.sqlite import SQLiteLog
from support.files import VirtualSQLiteLog, WorkerAtOnce

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.one_of_each


def ignore(requests: Requests) -> None:
    """Take no hint."""


class Spoilt:
    """A file in which nothing can be written together with what is bad, and that is away then."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.away = 0
        self.has_been_away = False

    def write(self, calls: Sequence[Call[Any]], is_watched: Callable[[str], bool]) -> News:
        if self.away:
            self.away -= 1
            raise Away("away")
        names = [call.function(None) for call in calls]
        if "bad" in names:
            if not self.has_been_away:
                self.away, self.has_been_away = 2, True
            raise LookupError("spoilt")
        self.done += names
        return News()

    def tidy(self) -> tuple[News, float]:
        return News(), 1.0


class Client:
    def __init__(self) -> None:
        self.delivered: list[str] = []

    def deliver(self, calls: list[Call[Any]], news: News) -> bool:
        self.delivered += [call.function(None) for call in calls]
        return True

    def interest(self) -> tuple[tuple[str, ...], dict[str, str]]:
        return (), {}

    def is_watched(self, run_id: str) -> bool:
        return False


async def test_one_by_one() -> None:
    """One call spoils a transaction: the others are done one by one, also if the file is away then.

    They are done in order, each once, and one that has failed is told.
    """
    database: Any = Spoilt()
    client = Client()
    worker = Worker(database, client)
    calls = [Call(lambda _, name=name: name) for name in ("a", "bad", "b")]
    for call in calls:
        worker.write(call)
    for _ in range(4):
        worker.step()
    assert database.done == ["a", "b"]
    assert client.delivered == ["a", "bad", "b"]
    assert isinstance(calls[1].raised, LookupError)


async def test_gone_meanwhile(tmp_path: Path) -> None:
    """A run that is to be kept longer, or followed, may be gone by then, or have ended."""
    log = VirtualSQLiteLog(tmp_path / "runs.db")
    async with log.open():
        await log.create("a", "0e", Terms(keep=5.0), ignore)
        session = log._session
        await session.write(lambda tx: keep_longer(tx, ["a", "gone"], 60.0))
        assert (await log.get("a")).outcome is None
        await log.end("a", "0e", b"end")
        await session.write(lambda tx: follow(tx, ["a", "gone"], 60.0))
        await anyio.sleep(4)
        await session.write(lambda tx: keep_longer(tx, ["a", "gone"], 60.0))
        await anyio.sleep(59)
        assert (await log.get("a")).outcome == b"end"


@pytest.mark.real_time
async def test_forgotten_when_it_can_be(tmp_path: Path) -> None:
    """What is over, but cannot be removed while somebody else writes, is removed after that."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with log.open():
        await log.create("a", "0e", Terms(keep=0.2), ignore)
        await log.end("a", "0e", b"end")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        await anyio.sleep(0.7)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        connection.execute("COMMIT")
        with anyio.fail_after(10):
            while connection.execute("SELECT count(*) FROM runs").fetchone() == (1,):
                await anyio.sleep(0.02)
        connection.close()


@pytest.mark.real_time
async def test_the_thread_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in the thread is logged, and nobody waits for ever."""
    log = SQLiteLog(tmp_path / "runs.db", outage=0.3)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)

        def fail(self: Worker) -> None:
            raise LookupError("a fault")

        monkeypatch.setattr(Worker, "step", fail)
        with pytest.raises(LogUnavailable, match="its thread has failed"):
            # The first one may be done by a step that is under way.
            await log.get("a")
            await log.get("a")
        with pytest.raises(LogUnavailable, match=r"for 0.3 seconds: its thread has failed"):
            await log.get("a")
    assert "a fault" in caplog.text


async def test_one_read_spoils_it(tmp_path: Path) -> None:
    """A read that cannot be done fails alone: those who read together with it go on."""

    class Together(WorkerAtOnce):
        """Does what was asked for when it is told to."""

        def read(self, call: Call[Any]) -> None:
            self._reads.append(call)
            if len(self._reads) == 3:
                self.step()

    class Log(VirtualSQLiteLog):
        _worker = Together

    log = Log(tmp_path / "runs.db")
    results: dict[str, object] = {}
    bad: Any = object()

    async def read(name: str, after: Any) -> None:
        try:
            results[name] = (await log.read("a", after)).last
        except TypeError as exc:
            results[name] = type(exc)

    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        async with anyio.create_task_group() as tasks:
            for name, after in ("one", 0), ("two", bad), ("three", 0):
                tasks.start_soon(read, name, after)
    assert results == {"one": 0, "two": TypeError, "three": 0}


async def test_nothing_is_kept_in_mind(tmp_path: Path) -> None:
    """What the thread knows of runs is of those that go on, or are watched, and of no other."""
    path = tmp_path / "runs.db"
    log, other = VirtualSQLiteLog(path), VirtualSQLiteLog(path)
    async with log.open(), other.open():
        database = log._session._worker._database
        async with log.watch("a"):
            for number in range(50):
                await log.create(str(number), "0e", Terms(keep=0.0), ignore)
                await log.end(str(number), "0e", b"end")
                await other.request_cancel(str(number), b"stop")
            await log.create("a", "0e", Terms(), ignore)
            assert set(database._known) <= {"a", "49"}
            assert set(database._rows) == {"a"}
            assert set(log._session._own) == {"a"}


async def test_it_has_come_back(tmp_path: Path) -> None:
    """A run that was found dead, and has given a sign of life since, is not removed."""
    log = VirtualSQLiteLog(tmp_path / "runs.db")
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        await log._session.write(Remove(["a", "gone"]).run)
        assert not (await log.renew("a", "0e")).fenced
