"""What a file has room for, what is trimmed, and what is forgotten, in virtual time."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit._sqlite import forgetting, writing
from streamkit.runs import LogFull, Requests, RunNotFound, Terms
from support.files import VirtualSQLiteLog

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_of_each


def ignore(requests: Requests) -> None:
    """Take no hint."""


async def create(log: VirtualSQLiteLog, run_id: str, terms: Terms | None = None) -> None:
    await log.create(run_id, "0e", terms or Terms(keep=60.0), ignore)


async def append(
    log: VirtualSQLiteLog, run_id: str, *entries: bytes, last: int = 0, first: int = 1
) -> Requests:
    return await log.append(run_id, "0e", last + 1, entries, acknowledged=last, first=first)


def asked(path: Path, question: str) -> Any:
    """Ask the file itself."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def check_sizes(path: Path) -> None:
    """See that what is said of sizes is true."""
    ((total, ended),) = asked(path, "SELECT bytes, ended_bytes FROM totals")
    runs = asked(path, "SELECT number, size, outcome, length(data), stored, last FROM runs")
    assert total == sum(run[1] for run in runs)
    assert ended == sum(run[1] for run in runs if run[2] is not None)
    for number, size, _, data, stored, last in runs:
        ((count, length),) = asked(
            path, f"SELECT count(*), ifnull(sum(length(data)), 0) FROM entries WHERE run = {number}"
        )
        assert count == last + 1 - stored
        assert size == 512 + data + 32 * count + length


async def test_the_oldest_ended_run_goes_first(tmp_path: Path) -> None:
    """Where there is no room, the run that ended first goes; then nothing more is taken."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path, max_bytes=6_000)
    async with log.open():
        for run_id in "abc":
            await create(log, run_id)
            await append(log, run_id, b"x" * 1_000)
        for run_id in "bac":
            await log.end(run_id, "0e", b"end")
        await create(log, "d")
        await append(log, "d", b"x" * 1_000)
        with pytest.raises(RunNotFound):
            await log.get("b")
        await append(log, "d", b"x" * 2_000, last=1)
        with pytest.raises(RunNotFound):
            await log.get("a")
        await append(log, "d", b"x" * 1_900, last=2)
        with pytest.raises(RunNotFound):
            await log.get("c")
        with pytest.raises(LogFull, match="give it more max_bytes"):
            await append(log, "d", b"x" * 2_000, last=3)
        assert (await log.get("d")).last == 3
        await append(log, "d", b"x" * 400, last=3)
        with pytest.raises(LogFull, match="give it more max_bytes"):
            await create(log, "e", Terms(data=b"x" * 2_000))
        check_sizes(path)


async def test_nothing_goes_for_what_does_not_fit(tmp_path: Path) -> None:
    """Where all that has ended would not make enough room, none of it goes."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path, max_bytes=5_000)
    async with log.open():
        await create(log, "a")
        await log.end("a", "0e", b"end")
        await create(log, "b")
        with pytest.raises(LogFull):
            await append(log, "b", b"x" * 10_000)
        assert (await log.get("a")).outcome == b"end"
        check_sizes(path)


async def test_what_is_over_goes_first(tmp_path: Path) -> None:
    """A run that was kept for long enough makes room, too."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path, max_bytes=2_000)
    async with log.open():
        for run_id in "abc":
            await create(log, run_id, Terms(keep=1.0))
            await log.end(run_id, "0e", b"end")
        await anyio.sleep(2)
        await create(log, "d")
        await append(log, "d", b"x" * 1_000)
        check_sizes(path)


async def test_what_is_trimmed_makes_room(tmp_path: Path) -> None:
    """A run at its limit goes on in a log at its limit: what it drops counts for what it adds."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path, max_bytes=4_000)
    async with log.open():
        await create(log, "a")
        for number in range(100):
            await append(log, "a", b"x" * 1_000, last=number, first=max(number, 1))
            check_sizes(path)
        assert (await log.get("a")).first == 99


async def test_trimmed_in_portions(tmp_path: Path) -> None:
    """What can be read no more goes soon, but not one by one; large entries go at once."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path)
    async with log.open():
        await create(log, "a")
        for number in range(300):
            await append(log, "a", b"x", last=number, first=max(number, 1))
            record = await log.get("a")
            assert record.first == max(number, 1)
            assert asked(path, "SELECT count(*) FROM entries")[0][0] <= 2 + 64
            # A cursor before that is told what is there.
            assert not (await log.read("a", record.first - 2)).entries
        for number in range(300, 310):
            await append(log, "a", b"x" * 300_000, last=number, first=number)
        assert asked(path, "SELECT count(*) FROM entries")[0][0] <= 3
        check_sizes(path)


async def test_pages_are_small(tmp_path: Path) -> None:
    """A page has so many bytes at most, but for its first entry."""
    log = VirtualSQLiteLog(tmp_path / "runs.db")
    async with log.open():
        await create(log, "a")
        await append(log, "a", *[b"x" * 100_000] * 5, b"y" * 1_000_000, b"z")
        assert [len((await log.read("a", after)).entries) for after in range(8)] == [
            *(2, 2, 2, 2, 1, 1, 1, 0)
        ]


async def test_put_back(tmp_path: Path) -> None:
    """A file that has lost what was acknowledged, since it was put back, fences the producer."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path)
    async with log.open():
        await create(log, "a")
        assert not (await append(log, "a", b"one")).fenced
        assert (await append(log, "a", b"four", last=3)).fenced
        with pytest.raises(ValueError, match="the entry 3 cannot follow 1"):
            await log.append("a", "0e", 3, [b"three"], acknowledged=1, first=1)
        assert (await log.get("a")).last == 1


async def test_ended_twice(tmp_path: Path) -> None:
    """An end that is written again, since it was not seen to succeed, is the same one."""
    log = VirtualSQLiteLog(tmp_path / "runs.db")
    async with log.open():
        await create(log, "a")
        assert await log.end("a", "0e", b"end")
        assert await log.end("a", "0e", b"end")
        assert not await log.end("a", "0e", b"another")


async def test_the_machine_was_started_again(tmp_path: Path) -> None:
    """What ran before a start of the machine has lapsed, whatever its clock shows; it is buried."""
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path, lease=15)
    async with log.open():
        for run_id in "abc":
            await create(log, run_id)
        await log.request_cancel("d", b"early")
        log._session._worker._database._clock.boot = "another"
        assert (await log.get("a")).lapsed
        assert await log.bury("a", "0e", b"lost") == "doubted"
        # What was asked for before is not remembered after it.
        await create(log, "d")
        assert not (await log.get("d")).cancel_requested
        # By a clock that has gone back, where the start has no name.
        session = log._session
        for run_id, seen_at in ("b", anyio.current_time() + 100), ("c", anyio.current_time() + 0.5):
            await session.write(
                lambda tx, run_id=run_id, seen_at=seen_at: _seen(tx, run_id, seen_at)
            )
        assert (await log.get("b")).lapsed
        assert not (await log.get("c")).lapsed
        assert await log.bury("b", "0e", b"lost") == "doubted"
        await anyio.sleep(5.1)
        assert await log.bury("b", "0e", b"lost") == "buried"


def _seen(tx: Any, run_id: str, seen_at: float) -> None:
    row = tx.find(run_id)
    row.boot, row.seen_at, row.doubted_at = "another", seen_at, seen_at
    tx.save(row)


async def test_early_ones_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cancellations that come before their run, so many are remembered, and for so long."""
    monkeypatch.setattr(writing, "_MOST_EARLY", 100)
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path)
    async with log.open():
        for number in range(300):
            await log.request_cancel(str(number), b"stop")
        assert asked(path, "SELECT count(*) FROM early") == [(100,)]
        assert (await log.create("299", "0e", Terms(), ignore)).cancel == b"stop"
        assert (await log.create("100", "0e", Terms(), ignore)).cancel is None
        await anyio.sleep(31)
        await log.end("100", "0e", b"end")
        assert asked(path, "SELECT count(*) FROM early") == [(0,)]


async def test_ended_runs_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over goes in portions; the file gets smaller, and its sizes are right."""
    monkeypatch.setattr(forgetting, "_RUNS", 5)
    monkeypatch.setattr(forgetting, "_SPARE", 2)
    monkeypatch.setattr(forgetting, "_PAGES", 10)
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path)
    async with log.open():
        for number in range(52):
            await create(log, str(number), Terms(keep=float(number % 2)))
            await append(log, str(number), b"x" * 10_000)
            await log.end(str(number), "0e", b"end")
        full = asked(path, "PRAGMA page_count")[0][0]
        await anyio.sleep(2)
        await create(log, "one")
        await log.end("one", "0e", b"end")
        assert asked(path, "SELECT count(*) FROM runs") == [(1,)]
        assert asked(path, "PRAGMA freelist_count")[0][0] <= 2
        assert asked(path, "PRAGMA page_count")[0][0] < full / 3
        check_sizes(path)


async def test_forgotten_where_it_is_opened(tmp_path: Path) -> None:
    """What nobody was there to forget is forgotten by the next one who opens the file."""
    path = tmp_path / "runs.db"
    async with VirtualSQLiteLog(path).open():
        pass
    log = VirtualSQLiteLog(path)
    async with log.open():
        await create(log, "a", Terms(keep=1.0))
        await log.end("a", "0e", b"end")
    await anyio.sleep(2)
    async with log.open():
        with pytest.raises(RunNotFound):
            await log.get("a")
        assert asked(path, "SELECT count(*) FROM runs") == [(0,)]


@pytest.mark.parametrize("how", ["silent", "started again", "alive"])
async def test_lost_and_never_asked_for(how: str, tmp_path: Path) -> None:
    """A run that is lost, and that nobody asks for, goes when it would have been kept long enough.

    A clock on the wall that is set removes none that goes on.
    """
    path = tmp_path / "runs.db"
    log = VirtualSQLiteLog(path, lease=15)
    told: list[Requests] = []
    async with log.open():
        await log.create("a", "0e", Terms(keep=100.0), told.append)
        await append(log, "a", b"one")
        clock = log._session._worker._database._clock
        if how == "silent":
            await anyio.sleep(119)
        else:
            if how == "started again":
                clock.boot = "another"
            patch = pytest.MonkeyPatch()
            patch.setattr(clock, "wall", lambda: 2e9 + anyio.current_time())
        if how == "alive":
            await log.renew("a", "0e")
            patch.setattr(clock, "wall", lambda: 3e9 + anyio.current_time())
        await look(log)
        assert asked(path, "SELECT count(*) FROM runs") == [(int(how != "started again"),)]
        await anyio.sleep(2)
        await look(log)
        assert asked(path, "SELECT count(*) FROM runs") == [(int(how == "alive"),)]
        assert told == [Requests(fenced=True)] * (how != "alive")
        check_sizes(path)
        assert (await log.renew("a", "0e")).fenced is (how != "alive")


async def look(log: VirtualSQLiteLog) -> None:
    """Let it be looked what is to be forgotten, as it is each minute."""
    log._session._worker._database._due = -1.0
    with pytest.raises(RunNotFound):
        await log.get("nobody")


async def test_hints_for_the_producer(tmp_path: Path) -> None:
    """A producer is told of a cancellation, and that it was buried, without a call of its own.

    So it is of what comes from another process.
    """
    path = tmp_path / "runs.db"
    log, other = VirtualSQLiteLog(path, lease=1.0), VirtualSQLiteLog(path, lease=1.0)
    for asking in log, other:
        told: list[Requests] = []
        run_id = "here" if asking is log else "elsewhere"
        async with log.open(), other.open():
            await log.create(run_id, "0e", Terms(), told.append)
            assert await asking.request_cancel(run_id, b"stop") == "running"
            assert await asking.request_cancel(run_id, b"again") == "running"
            with pytest.raises(RunNotFound):
                await log.get("nobody")
            assert told == [Requests(cancel=b"stop")]
            await anyio.sleep(2)
            assert await asking.bury(run_id, "0e", b"lost") == "doubted"
            await anyio.sleep(5)
            assert await asking.bury(run_id, "0e", b"lost") == "buried"
            with pytest.raises(RunNotFound):
                await log.get("nobody")
            assert told == [Requests(cancel=b"stop"), Requests(fenced=True)]
            assert not log._session._own


async def test_others_write(tmp_path: Path) -> None:
    """What others have written of a run counts with the next call, and is not written over."""
    path = tmp_path / "runs.db"
    log, other = VirtualSQLiteLog(path, lease=1.0), VirtualSQLiteLog(path, lease=1.0)
    async with log.open(), other.open():
        for run_id in "abc":
            await create(log, run_id)
            await append(log, run_id, b"one")
        await other.request_cancel("a", b"stop")
        assert (await append(log, "a", b"two", last=1)).cancel == b"stop"
        assert (await other.get("a")).cancel_requested
        await append(other, "b", b"two", last=1)
        await append(log, "b", b"three", last=2)
        assert list((await other.read("b", 0)).entries) == [b"one", b"two", b"three"]
        await anyio.sleep(2)
        await other.bury("c", "0e", b"lost")
        await anyio.sleep(5)
        assert await other.bury("c", "0e", b"lost") == "buried"
        assert (await append(log, "c", b"two", last=1)).fenced
        assert (await log.get("c")).outcome == b"lost"
        check_sizes(path)


async def test_any_text(tmp_path: Path) -> None:
    """An id, and the name of an owner, may be text that is no Unicode."""
    log = VirtualSQLiteLog(tmp_path / "runs.db")
    async with log.open():
        await create(log, "\udc80", Terms(owner="\ud800"))
        assert (await log.get("\udc80")).terms.owner == "\ud800"
        with pytest.raises(RunNotFound):
            await log.request_cancel("\udc80", b"stop", owner="?")
