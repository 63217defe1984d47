"""The thread of a log in a file: it waits for nobody, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit._sqlite import session as sessions, worker
from streamkit._sqlite.database import Database
from streamkit._sqlite.writing import undo
from streamkit.runs import LogUnavailable, Requests, RunExists, RunNotFound, Runs, Terms
from streamkit.sqlite import SQLiteLog
from support import Backend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]


def ignore(requests: Requests) -> None:
    """Take no hint."""


def threads_of(path: Path) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if str(path) in thread.name]


def threads_left(path: Path) -> list[threading.Thread]:
    """Return what has not ended in some time: it says that it ends, and then it does."""
    give_up = time.monotonic() + 10
    while threads_of(path) and time.monotonic() < give_up:
        time.sleep(0.001)
    return threads_of(path)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """See that every thread has ended."""
    yield
    assert not threads_left(tmp_path)


class Locked:
    """Somebody else who writes."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=5)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *args: object) -> None:
        self._connection.execute("COMMIT")
        self._connection.close()


async def append(log: SQLiteLog, run_id: str, last: int, *entries: bytes) -> Requests:
    return await log.append(run_id, "0e", last + 1, entries, acknowledged=last, first=1)


async def test_ends_with_the_block(tmp_path: Path) -> None:
    """The thread is there while the block is open, once, and its files are put together at the end.

    Nothing is left of the log in the event loop.
    """
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    assert not threads_of(path)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        async with log.open():
            assert len(threads_of(path)) == 1
        await append(log, "a", 0, b"one")
        assert (tmp_path / "runs.db-wal").exists()
    assert not threads_left(path)
    assert [found.name for found in tmp_path.iterdir()] == ["runs.db"]
    assert log._sessions not in log._sessions._current_vars


def test_one_loop_after_the_other(tmp_path: Path, backend: Backend) -> None:
    """The same log in several event loops, one after the other."""
    log = SQLiteLog(tmp_path / "runs.db")

    async def main(last: int) -> None:
        async with log.open():
            if not last:
                await log.create("a", "0e", Terms(), ignore)
            await append(log, "a", last, b"%d" % last)
            assert len((await log.read("a", 0)).entries) == last + 1

    for last in range(3):
        backend.run(main, last)


def test_two_loops_at_once(tmp_path: Path, backend: Backend) -> None:
    """The same log in two event loops at once: each has a thread, and hears of the other."""
    log = SQLiteLog(tmp_path / "runs.db", reconcile=30)
    seen: list[object] = []
    is_open = threading.Event()

    async def read() -> None:
        async with Runs(log) as runs:
            info = await runs.start(forever(), id="a")
            is_open.set()
            async with runs.attach("b") as stream:
                seen.extend([entry.item async for entry in stream])
            await runs.cancel_and_wait(info.id)

    async def forever() -> Any:
        yield 1
        await anyio.sleep_forever()

    async def write() -> None:
        async with Runs(log) as runs:
            await runs.start(few(), id="b")
            await anyio.to_thread.run_sync(is_open.wait)
            while runs.stats().running:
                await anyio.sleep(0.01)

    async def few() -> Any:
        yield 1
        await anyio.to_thread.run_sync(is_open.wait)
        await anyio.sleep(0.2)
        yield 2

    async def begin() -> None:
        while True:
            try:
                async with Runs(log) as runs:
                    await runs.get("b")
                    return await read()
            except RunNotFound:
                await anyio.sleep(0.01)

    thread = threading.Thread(target=anyio.run, args=[write])
    thread.start()
    backend.run(begin)
    thread.join()
    assert seen == [1, 2]


def test_the_block_is_not_left(tmp_path: Path, backend: Backend) -> None:
    """A block that is open at the end of the event loop is left there."""
    path = tmp_path / "runs.db"
    blocks: list[Any] = []

    async def main() -> None:
        block = SQLiteLog(path).open()
        await block.__aenter__()
        blocks.append(block)

    backend.run_bare(main)
    assert not threads_left(path)


@pytest.mark.asyncio_only
def test_the_loop_is_dropped(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event loop that ends without a word takes the thread with it, in a while."""
    monkeypatch.setattr(worker, "_WORD", 0.1)
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    blocks: list[Any] = []

    async def main() -> None:
        block = log.open()
        await block.__aenter__()
        await log.create("a", "0e", Terms(), ignore)
        blocks.append(block)
        # It has said all that there is to say.
        await anyio.sleep(0.3)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    assert len(threads_of(path)) == 1
    loop.close()
    assert not threads_left(path)

    async def again() -> None:
        async with log.open():
            assert (await log.get("a")).epoch == "0e"

    backend.run(again)


async def test_cancelled_at_any_await(tmp_path: Path) -> None:
    """Whatever call is cancelled, and wherever it is: the next one works at once."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)

        async def watch() -> None:
            async with log.watch("a") as watch:
                await watch.wait()

        last = 0
        for delay in (None, 0, 0.0001, 0.0003, 0.001, 0.003):
            calls: Sequence[Callable[[], Awaitable[object]]] = [
                partial(log.create, f"run {delay}", "0e", Terms(), ignore),
                partial(append, log, "a", last, b"x"),
                partial(log.renew, "a", "0e"),
                partial(log.get, "a"),
                partial(log.read, "a", 0),
                partial(log.touch, "a", "0e"),
                partial(log.request_cancel, "a", b"no", epoch="0f"),
                partial(log.bury, "a", "0e", b"no"),
                partial(log.end, f"run {delay}", "0e", b"end"),
                watch,
            ]
            for call in calls:
                with anyio.CancelScope() as scope:
                    if delay is None:
                        scope.cancel()
                    else:
                        scope.deadline = anyio.current_time() + delay
                    await call()
                last = (await log.get("a")).last
                began = anyio.current_time()
                await append(log, "a", last, b"x")
                assert anyio.current_time() - began < 5
                last += 1
        assert (await log.get("a")).last == last


@pytest.mark.parametrize("delay", [None, 0, 0.001, 0.005, 0.01])
async def test_cancelled_while_it_opens(delay: float | None, tmp_path: Path) -> None:
    """A program that is cancelled while it opens or leaves a log leaves no thread."""
    path = tmp_path / "runs.db"
    for _ in range(5):
        with anyio.CancelScope() as scope:
            if delay is None:
                scope.cancel()
            else:
                scope.deadline = anyio.current_time() + delay
            async with SQLiteLog(path).open():
                await anyio.sleep(delay or 0)
        # It was waited for, though this was cancelled.
        assert not (tmp_path / "runs.db-wal").exists()
        assert not threads_left(path)


async def test_a_given_up_call_is_left_out(tmp_path: Path) -> None:
    """A call whose caller has gone is not done any more, if it was not begun."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        with Locked(path):
            with anyio.move_on_after(0.2):
                await append(log, "a", 0, b"one")
        # After what is asked for later, it would have been done.
        await log.renew("a", "0e")
        await log.renew("a", "0e")
        assert (await log.get("a")).last == 0


async def test_created_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is there only when who creates it has gone is removed: its id is not taken."""
    log = SQLiteLog(tmp_path / "runs.db")
    written, go_on = threading.Event(), threading.Event()
    write = Database.write

    def write_and_wait(self: Database, *args: Any) -> Any:
        news = write(self, *args)
        written.set()
        assert go_on.wait(10)
        return news

    async with log.open():
        monkeypatch.setattr(Database, "write", write_and_wait)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.create, "a", "0e", Terms(), ignore)
            await anyio.to_thread.run_sync(written.wait, 10)
            tasks.cancel_scope.cancel()
        monkeypatch.undo()
        go_on.set()
        with anyio.fail_after(10):
            while True:
                try:
                    await log.create("a", "0f", Terms(), ignore)
                except RunExists:
                    await anyio.sleep(0.01)
                else:
                    break
        assert await log.renew("a", "0e") == Requests(fenced=True)
        assert log._session._own["a"][0] == "0f"


async def test_created_for_nobody_and_written(tmp_path: Path) -> None:
    """A run that is written, or another one of its id, is not removed with who has created it."""
    log = SQLiteLog(tmp_path / "runs.db")
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        await append(log, "a", 0, b"one")
        for epoch in "0e", "0f":
            await log._session.write(partial(undo, run_id="a", epoch=epoch))
        assert (await log.get("a")).last == 1


async def test_locked_for_a_while(tmp_path: Path) -> None:
    """While somebody else writes, calls wait, and readers read. Then all of them go on."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with log.open():
        for run_id in "ab":
            await log.create(run_id, "0e", Terms(unwatched=100), ignore)
        async with anyio.create_task_group() as tasks:
            with Locked(path):
                for run_id in "ab":
                    tasks.start_soon(append, log, run_id, 0, b"one", b"two")
                await anyio.sleep(1.0)
                assert (await log.read("a", 0)).last == 0
        for run_id in "ab":
            assert list((await log.read(run_id, 0)).entries) == [b"one", b"two"]
            # Nobody could say that it is read, for as long as nobody could write.
            assert (await log.renew(run_id, "0e")).unwatched_for < 0.9


async def test_created_again_when_it_was_locked(tmp_path: Path) -> None:
    """So it is where the sign of life is that the run is created again: its reply was lost."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with log.open():
        await log.create("a", "0e", Terms(unwatched=100), ignore)
        async with anyio.create_task_group() as tasks:
            with Locked(path):
                tasks.start_soon(log.create, "a", "0e", Terms(unwatched=100), ignore)
                await anyio.sleep(1.0)
        assert (await log.renew("a", "0e")).unwatched_for < 0.9


async def test_waits_before_it_looks(tmp_path: Path) -> None:
    """What is written is made of what is there when nobody else writes, and not of what was."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    looked: list[object] = []
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        async with anyio.create_task_group() as tasks:
            with Locked(path):
                tasks.start_soon(log._session.write, looked.append)
                await anyio.sleep(0.3)
                assert not looked
        assert len(looked) == 1


async def test_told_from_elsewhere(tmp_path: Path) -> None:
    """A producer is told what another process asks, long before it has to renew its lease.

    A reader is woken by what another process writes, long before it looks for itself.
    """
    path = tmp_path / "runs.db"
    log, other = SQLiteLog(path, lease=60, reconcile=60), SQLiteLog(path, lease=60, reconcile=60)
    told: list[Requests] = []
    async with log.open(), other.open():
        await log.create("a", "0e", Terms(), told.append)
        with anyio.fail_after(20):
            async with other.watch("a") as watch:
                await append(log, "a", 0, b"one")
                while not (await other.read("a", 0)).entries:
                    await watch.wait()
            await other.request_cancel("a", b"stop")
            while not told:
                await anyio.sleep(0.01)
        assert told == [Requests(cancel=b"stop")]


async def test_locked_for_too_long(tmp_path: Path) -> None:
    """After the time of an outage, it is said; the thread is not stuck by it."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path, outage=0.5)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        with Locked(path):
            with pytest.raises(LogUnavailable, match=r"for 0.5 seconds: database is locked"):
                await append(log, "a", 0, b"one")
            await log.get("a")
        await append(log, "a", 0, b"one")
        lock = Locked(path)
        lock.__enter__()
        async with anyio.create_task_group() as tasks:
            with pytest.raises(LogUnavailable):
                await append(log, "a", 1, b"two")
            tasks.cancel_scope.cancel()
    assert not threads_left(path)
    lock.__exit__()


async def test_left_while_locked(tmp_path: Path) -> None:
    """Who still waits when the log is left is told."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with anyio.create_task_group() as tasks:

        async def told() -> None:
            with pytest.raises(LogUnavailable, match="the log was left, and database is locked"):
                await append(log, "a", 0, b"one")

        async with log.open():
            await log.create("a", "0e", Terms(), ignore)
            lock = Locked(path)
            lock.__enter__()
            tasks.start_soon(told)
            await anyio.sleep(0.2)
        lock.__exit__()


async def test_one_spoils_it(tmp_path: Path) -> None:
    """What cannot be written fails alone: those who wrote together with it go on."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    bad: Any = object()
    async with log.open():
        for run_id in "abc":
            await log.create(run_id, "0e", Terms(), ignore)
        results: dict[str, object] = {}

        async def write(run_id: str, entry: bytes) -> None:
            try:
                results[run_id] = await append(log, run_id, 0, entry)
            except Exception as exc:
                results[run_id] = type(exc)

        async with anyio.create_task_group() as tasks:
            with Locked(path):
                for run_id, entry in ("a", b"one"), ("b", Unmeasured(bad)), ("c", b"one"):
                    tasks.start_soon(write, run_id, entry)
                await anyio.sleep(0.2)
        assert [(await log.get(run_id)).last for run_id in "abc"] == [1, 0, 1]
        assert results["a"] == results["c"] == Requests()
        assert isinstance(results["b"], type)
        with pytest.raises(TypeError):
            await log.read("a", bad)
        with pytest.raises(RunExists):
            await log.create("b", "0f", Terms(), ignore)


class Unmeasured(bytes):
    """Has a length, and is nothing that SQLite takes."""

    def __new__(cls, value: object) -> Any:
        return [b"x"]


async def test_the_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that does not answer holds up no event loop: calls are told, and the log is left."""
    monkeypatch.setattr(sessions, "_END_WITHIN", 0.2)
    log = SQLiteLog(tmp_path / "runs.db", outage=0.3)
    hanging = threading.Event()
    read = Database.read

    def hang(self: Database, calls: Any) -> Any:
        hanging.wait()
        return read(self, calls)

    async with log.open():
        monkeypatch.setattr(Database, "read", hang)
        with pytest.raises(LogUnavailable, match="it does not answer"):
            await log.get("a")
    assert "its thread is left" in caplog.text
    hanging.set()


async def test_the_disk_is_full(tmp_path: Path) -> None:
    """Where there is no room on the disk, calls wait for it as for a lock."""
    log = SQLiteLog(tmp_path / "runs.db", outage=0.5)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        session = log._session
        database = session._worker._database

        async def pages(number: int) -> None:
            await session.write(
                lambda tx: tx.connection.execute(f"PRAGMA max_page_count = {number}").fetchall()
            )

        await pages(1)
        # It is opened anew for each try, and forgets that it is full.
        opened = database.open

        def full() -> sqlite3.Connection:
            connection = opened()
            connection.execute("PRAGMA max_page_count = 1")
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "open", full)
            with pytest.raises(LogUnavailable, match="database or disk is full"):
                await append(log, "a", 0, b"x" * 1_000_000)
        await append(log, "a", 0, b"one")
        assert list((await log.read("a", 0)).entries) == [b"one"]


async def test_the_file_is_taken_away(tmp_path: Path) -> None:
    """A file that is removed is noticed: its runs are gone, and their producers are told."""
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    told: list[Requests] = []
    async with log.open():
        await log.create("a", "0e", Terms(), told.append)
        path.unlink()
        with anyio.fail_after(10):
            while not told:
                await anyio.sleep(0.05)
        assert told == [Requests(fenced=True)]
        with pytest.raises(RunNotFound):
            await log.get("a")
        assert (await append(log, "a", 0, b"one")).fenced
        await log.create("a", "0f", Terms(), ignore)
    async with log.open():
        assert (await log.get("a")).epoch == "0f"


async def test_its_directory_is_taken_away(tmp_path: Path) -> None:
    """A file that cannot be made again is an outage."""
    place = tmp_path / "place"
    place.mkdir()
    log = SQLiteLog(place / "runs.db", outage=2.5)
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        for found in place.iterdir():
            found.unlink()
        place.rmdir()
        await anyio.sleep(1.2)
        with pytest.raises(LogUnavailable, match="does not exist"):
            await log.get("a")
        place.mkdir()
        with pytest.raises(RunNotFound):
            await log.get("a")
