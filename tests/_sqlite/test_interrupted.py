"""A log in a file whose calls are interrupted: at each await, and whatever it does then."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit._sqlite.database import Database
from streamkit._sqlite.session import Session
from streamkit._sqlite.transaction import Transaction
from streamkit.runs import Runs
from streamkit.sqlite import SQLiteLog
from streamkit.testing import Run, interrupt_everywhere
from support import Backend
from support.interrupted_logs import DOUBT, STEPS, Life, Moment, Visit, kinds_of, lives

if TYPE_CHECKING:
    from pathlib import Path

# Enough for all, on a machine that does other things as well.
ENOUGH = 300.0


@pytest.fixture(autouse=True)
def _short_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit._runs.state.DOUBT", DOUBT)


def logs(path: Path) -> tuple[SQLiteLog, SQLiteLog]:
    """Return a log, and one of the same file whose leases are over at once."""
    return SQLiteLog(path, reconcile=0.02, outage=20), SQLiteLog(path, lease=0.001)


async def check_nothing_is_held(log: Any) -> None:
    """See that nobody waits or watches, no producer is told, and the file is not locked."""
    session = log._session
    assert not session._patience._waiting
    assert not session.hints.watched
    with anyio.fail_after(10):
        while session._own:
            await anyio.sleep(0.001)
    assert not session._worker._has_calls
    with sqlite3.connect(log._path, isolation_level=None, timeout=5) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("ROLLBACK")
    other.close()


def test_at_each_await(tmp_path: Path) -> None:
    """Runs: wherever a call is cancelled, it was done or not, and all that follows is as ever."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, Life], None]:
        log, short = logs(tmp_path / "runs.db")
        async with log.open():
            [life] = await lives(log, short, 1)
            yield life.live, life

    async def check(run: Run, life: Life) -> None:
        assert run.told or life.done == len(STEPS), run.error
        await life.go_on(partial(check_nothing_is_held, life.log))

    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH)
    # A watch waits twice, and a burial takes two looks.
    assert len(report.points) == len(STEPS) + 4
    assert not report.left_out


def test_the_block(tmp_path: Path) -> None:
    """Runs: wherever who opens a log and leaves it is cancelled, no thread and no file is left."""
    path = tmp_path / "runs.db"

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, SQLiteLog], None]:
        log, _ = logs(path)

        async def use() -> None:
            async with log.open():
                await log.touch("nobody's", "0e")

        yield use, log

    async def check(run: Run, log: SQLiteLog) -> None:
        with anyio.fail_after(10):
            while any(str(path) in thread.name for thread in threading.enumerate()):
                await anyio.sleep(0.001)
        assert [found.name for found in tmp_path.iterdir()] in ([], ["runs.db"])
        assert not log._open
        async with log.open():
            await log.touch("nobody's", "0e")

    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH)
    assert len(report.points) >= 3


def test_runs(tmp_path: Path) -> None:
    """Runs: wherever who starts, reads and stops a run is cancelled, it is there or is not."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, tuple[Visit, SQLiteLog]], None]:
        log, _ = logs(tmp_path / "runs.db")
        async with Runs(log) as runs:
            visit = Visit(runs)
            yield visit.go, (visit, log)

    async def check(run: Run, seen: tuple[Visit, SQLiteLog]) -> None:
        visit, log = seen
        assert run.told or visit.is_over, run.error
        await visit.check()
        await check_nothing_is_held(log)

    # The source of a run goes on.
    ignore = ["Visit._words"]
    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH, ignore=ignore)
    assert report.points


def _before(moment: Moment, function: Any) -> Any:
    def come_first(self: Any, *args: Any) -> Any:
        moment.come_in_thread()
        return function(self, *args)

    return come_first


def _after(moment: Moment, function: Any) -> Any:
    def come_last(self: Any, *args: Any) -> Any:
        result = function(self, *args)
        moment.come_in_thread()
        return result

    return come_last


def _in_the_loop(moment: Moment, function: Any) -> Any:
    def come_last(self: Any, calls: Any, news: Any) -> Any:
        function(self, calls, news)
        if calls:
            moment.come()

    return come_last


WRITES = [name for name in STEPS if name not in ("get", "read", "read_on")]
MOMENTS: dict[str, tuple[list[tuple[type, str, Any]], list[str]]] = {
    # The thread has it, and has not begun.
    "taken": ([(Database, "write", _before), (Database, "read", _before)], STEPS),
    "in a transaction": ([(Transaction, "finish", _before)], WRITES),
    "written": ([(Database, "write", _after), (Database, "read", _after)], STEPS),
    # Who has called could go on.
    "told": ([(Session, "_take", _in_the_loop)], STEPS),
}


@pytest.mark.real_time
@pytest.mark.one_of_each
@pytest.mark.parametrize("when", MOMENTS)
async def test_at_each_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend, when: str
) -> None:
    """Runs: whatever the thread does while a call is cancelled, that is done or not, as a whole."""
    patches, met = MOMENTS[when]
    log, short = logs(tmp_path / "runs.db")
    async with log.open():
        for kind in kinds_of(when, backend):
            moment = Moment()
            with monkeypatch.context() as patch:
                for owner, name, wrapper in patches:
                    patch.setattr(owner, name, wrapper(moment, getattr(owner, name)))
                for step, life in enumerate(await lives(log, short, len(STEPS))):
                    await moment.interrupt(life, step, kind)
                    await life.go_on(partial(check_nothing_is_held, log))
            assert moment.met == met
