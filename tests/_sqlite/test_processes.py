"""A log in a file, in several real processes, some of which die."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from streamkit import StreamCancelled
from streamkit.runs import (
    LogLost,
    LogUnavailable,
    RunCancelled,
    RunEnded,
    RunExists,
    RunInfo,
    RunLost,
    RunNotFound,
    Runs,
    Terms,
)
from streamkit.sqlite import SQLiteLog
from support import Backend, environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

WORKER = Path(__file__).with_name("worker.py")
LEASE = 1.0


class Worker:
    """A process that does as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def ask(self, command: str) -> str:
        self.tell(command)
        return self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Freeze it, wherever it is."""
        self.process.send_signal(signal.SIGSTOP)
        self.is_frozen()

    def is_frozen(self) -> None:
        """Wait until it is."""
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def freeze_unlocked(self, path: Path) -> None:
        """Freeze it where it is not in a write: in one, it would have the file to itself."""
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            while True:
                self.freeze()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    self.wake()
                else:
                    connection.execute("ROLLBACK")
                    return


@contextmanager
def working(path: Path, backend: Backend) -> Iterator[Worker]:
    """Start a process, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(WORKER), str(path), backend.name.partition("+")[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        try:
            worker = Worker(process)
            assert worker.hear() == "ready"
            yield worker
        finally:
            process.kill()


async def read(runs: Runs, run_id: str, seen: list[Any]) -> RunEnded | None:
    """Read a run to its end, and return that."""
    try:
        async with runs.attach(run_id) as stream:
            async for entry in stream:
                assert entry.position == len(seen) + 1
                seen.append(entry.item[0])
    except RunEnded as end:
        return end
    return None


async def test_killed(tmp_path: Path, backend: Backend) -> None:
    """A producer is killed: all who read get what it has said, and the same end, within some time.

    One process is told, once.
    """
    path = tmp_path / "runs.db"
    lost: list[RunInfo] = []

    async def on_lost(info: RunInfo) -> None:
        lost.append(info)

    log = SQLiteLog(path, lease=LEASE)
    other = SQLiteLog(path, lease=LEASE)
    with working(path, backend) as worker:
        assert worker.ask("start a 3 -1").startswith("started")
        async with Runs(log, on_lost=on_lost) as one, Runs(other, on_lost=on_lost) as two:
            ends: list[tuple[list[Any], RunEnded | None]] = []

            async def follow(runs: Runs) -> None:
                seen: list[Any] = []
                ends.append((seen, await read(runs, "a", seen)))

            async with anyio.create_task_group() as tasks:
                for runs in one, two, one, two:
                    tasks.start_soon(follow, runs)
                await anyio.sleep(0.5)
                worker.kill()
                began = time.monotonic()
            assert time.monotonic() - began < LEASE + 5 + 2 * log.reconcile + 3
            # The end can be seen before that is told.
            with anyio.fail_after(5):
                while not lost:
                    await anyio.sleep(0.01)
            for seen, end in ends:
                assert seen == [0, 1, 2]
                assert isinstance(end, RunLost)
                assert end.info == lost[0]
            assert len(lost) == 1
    async with Runs(SQLiteLog(path)) as later:
        seen = []
        assert isinstance(await read(later, "a", seen), RunLost)
        assert seen == [0, 1, 2]


async def test_frozen(tmp_path: Path, backend: Backend) -> None:
    """A producer is frozen for too long, and wakes: its source is told, and writes nothing more."""
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        worker.ask("start a 100000 0.01")
        async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
            await anyio.sleep(0.3)
            worker.freeze_unlocked(path)
            seen: list[Any] = []
            end = await read(runs, "a", seen)
            assert isinstance(end, RunLost)
            assert seen == list(range(len(seen)))
            worker.wake()
            said = await anyio.to_thread.run_sync(worker.hear)
            assert said == "told a Fenced: the run was ended elsewhere"
            said = await anyio.to_thread.run_sync(worker.hear)
            assert said == "ended a cancelled the run was ended elsewhere"
            await anyio.sleep(0.3)
            info = await runs.get("a")
            assert (info.last, info.outcome) == (len(seen), end.info.outcome)


async def test_frozen_for_a_moment(tmp_path: Path, backend: Backend) -> None:
    """A producer that is frozen past its lease, and wakes before the second look, goes on."""
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        worker.ask("start a 100 0.03")
        async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
            worker.freeze_unlocked(path)
            async with anyio.create_task_group() as tasks:

                async def wake() -> None:
                    await anyio.sleep(LEASE + 2)
                    worker.wake()

                tasks.start_soon(wake)
                seen: list[Any] = []
                assert await read(runs, "a", seen) is None
            assert seen == list(range(100))


async def test_frozen_in_a_write(tmp_path: Path, backend: Backend) -> None:
    """A process is frozen in a write, and so has the file to itself: others read, and wait.

    Its run is not buried. When it wakes, all goes on.
    """
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        worker.ask("start a 3 -1")
        async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
            go = anyio.Event()

            async def source() -> AsyncGenerator[Any, None]:
                yield [0]
                await go.wait()
                yield [1]

            await runs.start(source(), id="b")
            seen: dict[str, list[Any]] = {"a": [], "b": []}
            ends: dict[str, RunEnded | None] = {}

            async def follow(run_id: str) -> None:
                ends[run_id] = await read(runs, run_id, seen[run_id])

            async with anyio.create_task_group() as tasks:
                for run_id in seen:
                    tasks.start_soon(follow, run_id)
                while seen != {"a": [0, 1, 2], "b": [0]}:
                    await anyio.sleep(0.01)
                worker.tell("freeze")
                await anyio.to_thread.run_sync(worker.is_frozen)
                go.set()
                # Long enough for a run that could be looked at twice to be buried.
                await anyio.sleep(LEASE + 6)
                # Everything can be read, and no more is there to be.
                again: list[Any] = []
                with anyio.move_on_after(2):
                    await read(runs, "a", again)
                assert again == [0, 1, 2]
                assert (await runs.get("b")).last == 1
                assert (seen, ends) == ({"a": [0, 1, 2], "b": [0]}, {})
                worker.wake()
                assert await anyio.to_thread.run_sync(worker.hear) == "woken"
                assert await runs.cancel_and_wait("a", "enough", timeout=20)
            assert seen == {"a": [0, 1, 2, "last"], "b": [0, 1]}
            assert ends["b"] is None
            assert isinstance(ends["a"], RunCancelled)


async def test_frozen_in_a_write_for_too_long(tmp_path: Path, backend: Backend) -> None:
    """A process is frozen in a write for longer than others wait: their sources are told."""
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        async with Runs(SQLiteLog(path, lease=LEASE, outage=1.0)) as runs:
            reasons: list[object] = []

            async def source() -> AsyncGenerator[int, None]:
                try:
                    yield 0
                    await anyio.sleep_forever()
                except StreamCancelled as stop:
                    reasons.append(stop.reason)
                    raise

            info = await runs.start(source())
            while (await runs.get(info.id)).last == 0:
                await anyio.sleep(0.01)
            worker.tell("freeze")
            await anyio.to_thread.run_sync(worker.is_frozen)
            with anyio.fail_after(20):
                while not reasons:
                    await anyio.sleep(0.01)
            assert isinstance(reasons[0], LogLost)
            with pytest.raises(LogUnavailable, match="could not be used for"):
                await runs.start(nothing())
            assert (await runs.get(info.id)).last == 1
            worker.wake()
            assert await anyio.to_thread.run_sync(worker.hear) == "woken"
            await runs.start(nothing())


def test_races(tmp_path: Path, backend: Backend) -> None:
    """Two processes start the same run, 500 times: one succeeds, each time."""
    path = tmp_path / "runs.db"
    with working(path, backend) as one, working(path, backend) as two:
        wins = [0, 0]
        for number in range(500):
            for worker in (one, two) if number % 2 else (two, one):
                worker.tell(f"race r{number}")
            answers = [one.hear(), two.hear()]
            assert sorted(answers) == ["lost", "won"]
            wins[answers.index("won")] += 1
    assert sum(wins) == 500


async def test_cancelled_from_elsewhere(tmp_path: Path, backend: Backend) -> None:
    """A run is cancelled from another process, in no time; so is one that is not there yet."""
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        worker.ask("start a 1 -1")
        async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
            began = time.monotonic()
            assert await runs.cancel_and_wait("a", "enough", timeout=20)
            # Long before its lease is renewed the next time, if the machine has time for it.
            assert time.monotonic() - began < 5
            assert worker.hear() == "told a str: enough"
            assert worker.hear() == "ended a cancelled enough"
            seen: list[Any] = []
            end = await read(runs, "a", seen)
            assert isinstance(end, RunCancelled)
            assert (seen, end.reason) == ([0, "last"], "enough")
            assert await runs.cancel("b", "early")
            assert worker.ask("start b 1 -1") == "ended b cancelled early"


async def test_read_elsewhere(tmp_path: Path, backend: Backend) -> None:
    """A reader in another process sees all, in order, soon; and so do those that come and go."""
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        worker.ask("start a 300 0.01")
        async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
            late: list[float] = []

            async def follow() -> None:
                position = 0
                async with runs.attach("a") as stream:
                    async for entry in stream:
                        position += 1
                        assert (entry.position, entry.item[0]) == (position, position - 1)
                        late.append(time.monotonic() - entry.item[1])
                assert position == 300

            async def come_and_go(seed: int) -> None:
                random = Random(seed)
                seen: list[int] = []
                cursor: Any = None
                while True:
                    with anyio.move_on_after(random.choice([0.0, 0.001, 0.005, 0.02, 0.1, 0.5])):
                        async with runs.attach("a", after=cursor) as stream:
                            async for entry in stream:
                                seen.append(entry.item[0])
                                cursor = entry.cursor
                        break
                    await anyio.sleep(random.choice([0.0, 0.01]))
                assert seen == list(range(300))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                for seed in range(10):
                    tasks.start_soon(come_and_go, seed)
            # What it is on a machine that has nothing else to do is measured in B8.
            assert median(late) < 0.5


async def test_restarted(tmp_path: Path, backend: Backend) -> None:
    """After a crash, what had ended can be read, and what was running is lost."""
    path = tmp_path / "runs.db"
    with working(path, backend) as worker:
        worker.ask("start a 3 0")
        assert worker.hear() == "ended a completed None"
        worker.ask("start b 3 -1")
        await anyio.sleep(0.3)
        worker.kill()
    async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
        seen: list[Any] = []
        assert await read(runs, "a", seen) is None
        assert seen == [0, 1, 2]
        assert (await runs.get("b")).state == "running"
        with pytest.raises(RunExists):
            await runs.start(nothing(), id="b")
        seen = []
        assert isinstance(await read(runs, "b", seen), RunLost)
        assert seen == [0, 1, 2]
        assert (await runs.get("a")).state == "ended"


async def nothing() -> AsyncGenerator[Any, None]:
    return
    yield


async def test_killed_while_it_writes(tmp_path: Path, backend: Backend) -> None:
    """A process that is killed in the middle of its writes leaves a file that is whole."""
    path = tmp_path / "runs.db"
    for number in range(5):
        with working(path, backend) as worker:
            worker.ask(f"start r{number} 1000000 0")
            await anyio.sleep(0.05 * number)
            worker.kill()
    async with SQLiteLog(path).open():
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for number, last in connection.execute("SELECT number, last FROM runs").fetchall():
                count, least, most = connection.execute(
                    "SELECT count(*), ifnull(min(position), 1), ifnull(max(position), 0) "
                    "FROM entries WHERE run = ?",
                    [number],
                ).fetchone()
                # A run of more than it is to keep has let go of the first.
                assert (count, most) == (most + 1 - least, last)
            bytes_, size = connection.execute(
                "SELECT bytes, (SELECT sum(size) FROM runs) FROM totals"
            ).fetchone()
            assert bytes_ == size
        connection.close()


async def test_followed_to_its_end(tmp_path: Path) -> None:
    """Who follows a run from another process sees its end, however short it is kept."""
    path = tmp_path / "runs.db"
    async with Runs(SQLiteLog(path)) as here, Runs(SQLiteLog(path)) as there:
        go = anyio.Event()

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            await go.wait()
            yield 2

        info = await here.start(source(), keep=0.0)
        async with there.attach(info.id) as stream:
            assert (await anext(stream)).item == 1
            await anyio.sleep(0.2)
            go.set()
            assert [entry.item async for entry in stream] == [2]
        unread = await here.start(nothing(), keep=0.0)
        await anyio.sleep(0.2)
        with pytest.raises(RunNotFound):
            await there.get(unread.id)


@pytest.mark.trio_only
async def test_nothing_is_left(tmp_path: Path) -> None:
    """10^4 runs, and when they were kept for long enough, nothing is left of them in the file.

    It gets smaller, while the log is open and a run goes on.
    """
    path = tmp_path / "runs.db"
    log = SQLiteLog(path)
    async with log.open():

        async def run(run_id: str) -> None:
            await log.create(run_id, "0e", Terms(keep=1.0), lambda requests: None)
            await log.append(run_id, "0e", 1, [b"x" * 100] * 20, acknowledged=0, first=1)
            await log.end(run_id, "0e", b"end")

        await log.create("one", "0e", Terms(), lambda requests: None)
        for batch in range(20):
            async with anyio.create_task_group() as tasks:
                for number in range(500):
                    tasks.start_soon(run, f"{batch} {number}")
        full = path.stat().st_size
        connection = sqlite3.connect(path)
        with anyio.fail_after(40):
            while connection.execute("SELECT count(*) FROM entries").fetchone() != (0,):
                await anyio.sleep(0.1)
            while path.stat().st_size > 500_000:
                await anyio.sleep(0.1)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        sizes = connection.execute("SELECT bytes, ended_bytes FROM totals").fetchone()
        assert sizes == (512 + 4, 0)
        connection.close()
    assert full > 10 * path.stat().st_size
