"""
Open a file, and report early what is wrong with it.

An error that cannot go away by itself is raised for good. After one that can, such as a locked
file, the caller tries again.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from .schema import APPLICATION_ID, TABLES, VERSION

_logger = logging.getLogger("streamkit")

#: Seconds for which SQLite itself waits while the file is locked.
BUSY = 0.1

# The most bytes of the write-ahead log that stay on the disk after a checkpoint.
_WAL_BYTES = 4 * 1024 * 1024

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = ("nfs", "cifs", "smb", "afs", "ceph", "gluster", "lustre", "gpfs", "beegfs", "9p")
_REMOTE_FUSE = ("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.glusterfs", "fuse.ceph")

_PERMANENT = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
_NO_DATABASE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def connect(path: str) -> sqlite3.Connection:
    """
    Open a file, and create it if it does not exist.

    :raises FileNotFoundError: if there is no such directory
    :raises PermissionError: if it cannot be written
    :raises ValueError: if it is not such a file, or one of a later release
    :raises sqlite3.OperationalError: if it is locked, or the disk is full: try again

    """
    check_place(path)
    try:
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as exc:
        code = primary_code(exc)
        if code in _NO_DATABASE:
            raise ValueError(
                f"{path} is not an SQLite database: give SQLiteLog a path of its own"
            ) from exc
        if code in _PERMANENT:
            raise PermissionError(
                f"{path} cannot be opened for writing ({exc}): let this process write the file and "
                "its directory"
            ) from exc
        raise
    return connection


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code for an error, or 0."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def check_place(path: str) -> None:
    """
    Check that there can be a file at a path.

    :raises FileNotFoundError: if there is no such directory
    :raises ValueError: if it is a directory

    """
    place = Path(path)
    if place.is_dir():
        raise ValueError(f"{path} is a directory: write SQLiteLog({str(place / 'runs.db')!r})")
    if not place.parent.is_dir():
        raise FileNotFoundError(
            f"the directory {place.parent} of {place.name} does not exist: make it first, or write "
            "an absolute path"
        )


def warn_of_network(path: str, mounts: Path = _MOUNTS) -> None:
    """Warn about a file that is on a disk of another machine, as far as the system tells."""
    kind = _file_system(Path(path).resolve(), mounts)
    if kind.startswith(_NETWORK) or kind.startswith(_REMOTE_FUSE):
        _logger.warning(
            "%s is on a network file system (%s), where processes of other machines do not see "
            "each other's locks: put it on a local disk, or give Runs() a RedisLog",
            path,
            kind,
        )


def _file_system(path: Path, mounts: Path) -> str:
    """Return the kind of file system that a path is on, or an empty string."""
    found, depth = "", -1
    with suppress(OSError):
        for line in mounts.read_text(errors="replace").splitlines():
            _, where, kind, *_ = line.split(" ")
            # Spaces are written as octal escapes.
            mounted = Path(where.replace("\\040", " "))
            if path.is_relative_to(mounted) and len(mounted.parts) >= depth:
                found, depth = kind, len(mounted.parts)
    return found


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    # In this order: another process may make the tables in between.
    has_tables = bool(_pragma(connection, "schema_version"))
    ours = _pragma(connection, "application_id") == APPLICATION_ID
    if has_tables and not ours:
        raise ValueError(
            f"{path} is a database of another program: give SQLiteLog a path of its own"
        )
    # This must come before any table, and before the write-ahead log.
    connection.execute("PRAGMA auto_vacuum = incremental")
    mode = _pragma(connection, "journal_mode = wal")
    if mode != "wal":
        raise ValueError(
            f"there can be no write-ahead log where {path} is (SQLite keeps to {mode!r}): put it "
            "on a local disk"
        )
    # A commit survives a crash of the process. It may not survive one of the machine, but no run
    # does.
    connection.execute("PRAGMA synchronous = normal")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    if not ours:
        _make_tables(connection)
    version = _pragma(connection, "user_version")
    if version != VERSION:
        raise ValueError(
            f"{path} has tables of the form {version}, but this release of streamkit knows the "
            f"form {VERSION}: update streamkit in this process, or give it a path of its own"
        )


def _make_tables(connection: sqlite3.Connection) -> None:
    # If this fails, the connection is closed, and the transaction is over.
    connection.execute("BEGIN IMMEDIATE")
    # Unless another process was faster.
    if not _pragma(connection, "application_id"):
        for statement in TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        return cursor.fetchone()[0]
