"""A file that cannot be used says so, early and clearly."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit._sqlite import database, opening
from streamkit._sqlite.clock import boot_id
from streamkit.runs import LogUnavailable, Runs, Terms
from streamkit.sqlite import SQLiteLog
from support.files import VirtualSQLiteLog

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_of_each


async def refused(path: Path, error: type[Exception]) -> str:
    """Open what cannot be opened, and return what is said of it."""
    log = VirtualSQLiteLog(path)
    with pytest.raises(error) as caught:
        async with Runs(log):
            raise AssertionError("it must not be entered")
    return str(caught.value)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"runs.db"


@pytest.mark.parametrize("path", [None, 1, b"runs.db", object(), BytesPath()])
def test_no_path(path: Any) -> None:
    """Misuse: what is no path."""
    with pytest.raises(TypeError, match=r"write SQLiteLog\('runs.db'\)"):
        SQLiteLog(path)


@pytest.mark.parametrize("path", ["", "a\0b", ":memory:", "file:runs.db?mode=memory"])
def test_no_file(path: str) -> None:
    """Misuse: a path that is of no file."""
    with pytest.raises(ValueError, match=r"write SQLiteLog\('runs.db'\)"):
        SQLiteLog(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_bytes", 0),
        ("lease", 0.0),
        ("lease", float("inf")),
        ("outage", -1.0),
        ("max_held", 0),
        ("reconcile", 0.0),
    ],
)
def test_numbers(name: str, value: float) -> None:
    """Misuse: a number out of its range."""
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        SQLiteLog("runs.db", **options)


def test_does_not_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is that of the directory in which the log was made. Nothing is opened yet."""
    monkeypatch.chdir(tmp_path)
    log = SQLiteLog("runs.db")
    monkeypatch.chdir("/")
    assert repr(log) == f"<SQLiteLog in {tmp_path / 'runs.db'}>"
    assert not list(tmp_path.iterdir())


async def test_missing_directory(tmp_path: Path) -> None:
    """Its directory is not there."""
    said = await refused(tmp_path / "not" / "runs.db", FileNotFoundError)
    assert "does not exist: make it first" in said


async def test_a_directory(tmp_path: Path) -> None:
    """It is a directory."""
    said = await refused(tmp_path, ValueError)
    assert "is a directory: write SQLiteLog('" in said


async def test_no_database(tmp_path: Path) -> None:
    """It is some other file."""
    path = tmp_path / "notes.txt"
    path.write_text("these are notes" * 100)
    assert "is not an SQLite database" in await refused(path, ValueError)
    assert path.read_text() == "these are notes" * 100


async def test_of_another_program(tmp_path: Path) -> None:
    """It is a database with tables of somebody else, which are left alone."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (id)")
    connection.close()
    assert "is a database of another program" in await refused(path, ValueError)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


@pytest.mark.parametrize("moment", range(10))
async def test_made_by_two_at_once(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the tables at any moment while this one opens the file."""
    pragma = opening._pragma
    path = str(tmp_path / "runs.db")
    calls = 0

    def slowly(connection: sqlite3.Connection, name: str) -> object:
        nonlocal calls
        value = pragma(connection, name)
        calls += 1
        if calls == moment + 1 and not connection.in_transaction:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(opening, "_pragma", pragma)
                opening.connect(path).close()
        return value

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_pragma", slowly)
        connection = opening.connect(path)
    assert connection.execute("SELECT count(*) FROM totals").fetchone() == (1,)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    connection.close()


async def test_open_before_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Misuse: what was open when the process was forked, as another process has opened it."""
    path = tmp_path / "runs.db"
    monkeypatch.setattr(database, "_open", [(str(tmp_path / "other"), -1), (str(path), -1)])
    said = await refused(path, RuntimeError)
    assert said.endswith("fork before the log is opened, or spawn the process")


async def test_of_a_later_release(tmp_path: Path) -> None:
    """It has tables that a later release has made."""
    path = tmp_path / "runs.db"
    async with VirtualSQLiteLog(path).open():
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    said = await refused(path, ValueError)
    assert "has tables of the form 2, but this release of streamkit knows the form 1" in said


async def test_no_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there can be no write-ahead log, that is said."""
    pragma = opening._pragma

    def without(connection: sqlite3.Connection, name: str) -> object:
        return "delete" if name.startswith("journal_mode") else pragma(connection, name)

    monkeypatch.setattr(opening, "_pragma", without)
    assert "there can be no write-ahead log" in await refused(tmp_path / "runs.db", ValueError)


async def test_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not be written. For root, everything may: so SQLite is made to say it."""

    def connect(*args: object, **kwargs: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(sqlite3, "connect", connect)
    said = await refused(tmp_path / "runs.db", PermissionError)
    assert "cannot be opened for writing (unable to open database file)" in said


@pytest.mark.real_time
async def test_locked(tmp_path: Path) -> None:
    """Somebody has it to himself: it is waited for, and then said."""
    path = tmp_path / "runs.db"
    async with SQLiteLog(path).open():
        pass
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = exclusive")
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LogUnavailable, match=r"for 0.3 seconds: database is locked"):
        async with SQLiteLog(path, outage=0.3).open():
            raise AssertionError("it must not be entered")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(opened_at_last, path)
        await anyio.sleep(0.3)
        connection.execute("COMMIT")
        connection.close()


async def opened_at_last(path: Path) -> None:
    log = SQLiteLog(path, outage=20)
    async with log.open():
        await log.create("a", "0e", Terms(), lambda requests: None)


@pytest.mark.real_time
async def test_opened_by_two(tmp_path: Path) -> None:
    """Two that open it at once are told the same; and one that comes when both have left."""
    log = SQLiteLog(tmp_path / "not" / "runs.db")

    async def told() -> None:
        with pytest.raises(FileNotFoundError):
            async with log.open():
                raise AssertionError("it must not be entered")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told)
        tasks.start_soon(told)
    (tmp_path / "not").mkdir()
    async with log.open():
        pass


async def test_not_open(tmp_path: Path) -> None:
    """Misuse: a call outside of the block."""
    log = VirtualSQLiteLog(tmp_path / "runs.db")
    with pytest.raises(RuntimeError, match="is not open in this event loop: write 'async with"):
        await log.get("a")
    async with log.open():
        session = log._session
    with pytest.raises(RuntimeError, match="the log was left"):
        await session.read(lambda reading: reading.get("a"))


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        ("/dev/sda / ext4 rw 0 0\nserver:/x /srv/my\\040data nfs4 rw 0 0\n", "nfs4"),
        ("/dev/sda / ext4 rw 0 0\nx /srv fuse.sshfs rw 0 0\n", "fuse.sshfs"),
        ("server:/x /srv nfs4 rw 0 0\n/dev/sdb /srv/my\\040data xfs rw 0 0\n", None),
        ("", None),
        (None, None),
    ],
)
def test_network(
    mounts: str | None, kind: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file on a disk of another machine is warned of, where the system tells."""
    listed = tmp_path / "mounts"
    if mounts is not None:
        listed.write_text(mounts)
    with caplog.at_level(logging.WARNING, "streamkit"):
        opening.warn_of_network("/srv/my data/runs.db", listed)
    assert ("on a network file system" in caplog.text) is (kind is not None)
    assert kind is None or kind in caplog.text


def test_boot(tmp_path: Path) -> None:
    """What names a start of the machine, or nothing where there is no name."""
    assert boot_id(tmp_path / "none") == ""
    if os.path.exists("/proc/sys/kernel/random/boot_id"):
        assert len(boot_id()) == 36
