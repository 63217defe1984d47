"""
One connection, and what is done over it, all in one thread.

Whatever fails is rolled back as a whole, and can be done again from the start. A connection that
has failed is not used again, unless the file was only locked.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from .._core.process import check_process
from .._runs.log import Requests
from .clock import Clock
from .forgetting import forget, is_long_dead, long_dead, shrink, until_due
from .opening import connect, primary_code
from .reading import Reading
from .row import Row, to_bytes
from .transaction import News, Transaction
from .writing import FENCED

# Seconds between two checks that the file is still the one that was opened.
_LOOK = 1.0

# The most seconds until the next look for what to forget: others write, and clocks are set.
_MOST_DUE = 60.0

_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

_VERSION = "SELECT epoch, changes, cancel, outcome IS NOT NULL FROM runs WHERE id = ?"

#: The advice for a fork while a file is open.
FORK_BEFORE = (
    "SQLite cannot be used across a fork, so fork before the log is opened, or spawn the process"
)

# The open files, once for each connection, with the process that opened them. After a fork, that is
# the parent, whose locks SQLite would take for those of this process.
_open: list[tuple[str, int]] = []

#: Connections to files that were moved or deleted. Closing one would remove the write-ahead log of
#: the file that has taken its place.
_left: list[sqlite3.Connection] = []


class Away(Exception):
    """Raised when a file cannot be used now. Nothing was done."""


class Write(Protocol):
    """Something to do in a transaction."""

    def run(self, target: Transaction, /) -> object: ...


class Read(Protocol):
    """Something to find out in a reading."""

    def run(self, target: Reading, /) -> object: ...


class Database:
    """
    A file, while it is in use.

    :param path: the path of the file
    :param max_bytes: the limit for all runs together
    :param follow: seconds for which a run counts as followed after another process has read it

    """

    def __init__(self, path: str, clock: Clock, max_bytes: int, follow: float) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._follow = follow
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._looked_at = 0.0
        #: The state of the file, and of the runs that matter here, at the last look.
        self._data_version: int | None = None
        self._known: dict[str, tuple[str, int] | None] = {}
        #: Cached runs that go on, valid until another connection writes.
        self._rows: dict[str, Row | None] = {}
        self._rows_version: int | None = None
        #: When there is something to forget, by the monotonic clock.
        self._due = -math.inf
        #: When to look for runs that are long dead.
        self._dead_due = -math.inf
        #: The last period in which the file could not be written, and since when it cannot be
        #: written now.
        self._away: tuple[float, float] = (0.0, 0.0)
        self._failed_since: float | None = None

    def open(self) -> sqlite3.Connection:
        """Return the connection. Makes one if there is none, or if the file was replaced."""
        now = time.monotonic()
        if self._connection is not None and now >= self._looked_at + _LOOK:
            self._looked_at = now
            if self._identity != self._identify():
                _left.append(self._connection)
                self._forget_connection()
        if self._connection is None:
            for path, process in _open:
                if path == self._path:
                    check_process(path, process, FORK_BEFORE)
            self._connection = connect(self._path)
            _open.append((self._path, os.getpid()))
            self._identity = self._identify()
            self._looked_at = now
            # Everything may have changed.
            self._data_version = None
            self._known.clear()
            self._due = -math.inf
        return self._connection

    def close(self) -> None:
        """Let go of the file."""
        connection = self._connection
        if connection is not None:
            self._forget_connection()
            with suppress(sqlite3.Error):
                connection.close()

    def write(self, calls: Sequence[Write], is_watched: Callable[[str], bool]) -> News:
        """
        Run calls in one transaction, all of them or none.

        :raises Away: if the file cannot be written now

        """
        try:
            with self._begun("IMMEDIATE") as connection:
                if self._failed_since is not None:
                    self._away = self._failed_since, self._clock.now()
                self._forget_rows_of_others(connection)
                tx = Transaction(
                    connection, self._clock, self._max_bytes, is_watched, self._rows, self._away
                )
                for call in calls:
                    call.run(tx)
                tx.finish()
        except BaseException as exc:
            self._rows.clear()
            if isinstance(exc, Away) and self._failed_since is None:
                self._failed_since = self._clock.now()
            raise
        self._failed_since = None
        for run_id, version in tx.news.changed.items():
            # Runs that do not matter here are not remembered.
            if run_id in self._known:
                self._known[run_id] = version
        if tx.news.changed:
            self._due = -math.inf
        return tx.news

    def read(self, calls: Sequence[Read]) -> Reading:
        """
        Run calls that all see the file at the same moment.

        :raises Away: if the file cannot be read now

        """
        with self._begun("DEFERRED") as connection:
            reading = Reading(connection, self._clock, self._follow)
            for call in calls:
                call.run(reading)
        return reading

    def look(self, watched: Collection[str], own: Mapping[str, str]) -> News:
        """
        See what others have written.

        :param watched: the runs whose changes matter
        :param own: the epochs of the runs that go on in this process
        :raises Away: if the file cannot be read now

        """
        news = News()
        with self._used() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != self._data_version:
                known: dict[str, tuple[str, int] | None] = {}
                for run_id in {*watched, *own}:
                    found = connection.execute(_VERSION, [to_bytes(run_id)]).fetchone()
                    known[run_id] = None if found is None else found[:2]
                    if run_id not in self._known or self._known[run_id] != known[run_id]:
                        news.changed[run_id] = known[run_id]
                        if run_id in own:
                            _tell(news, run_id, own[run_id], found)
                self._known, self._data_version = known, version
        return news

    def tidy(self) -> tuple[News, float]:
        """
        Do some of the work that may wait until there is nothing else to do.

        :return: what that has changed, and the seconds until there is more to do
        :raises Away: if the file cannot be written now

        """
        news = News()
        now = time.monotonic()
        if now < self._due:
            return news, self._due - now
        with self._used() as connection:
            wait = until_due(connection, self._clock)
        if wait <= 0:
            news = self.write([_Forget()], lambda run_id: False)
            return news, 0.0
        with self._used() as connection:
            if shrink(connection):
                return news, 0.0
            # This looks through all runs that go on, so it is not done after each write.
            dead = long_dead(connection, self._clock) if now >= self._dead_due else []
        if dead:
            return self.write([Remove(dead)], lambda run_id: False), 0.0
        if now >= self._dead_due:
            self._dead_due = now + _MOST_DUE
        wait = min(wait, _MOST_DUE)
        self._due = now + wait
        return news, wait

    @contextmanager
    def _begun(self, kind: str) -> Generator[sqlite3.Connection, None, None]:
        with self._used() as connection:
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _used(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            connection = self.open()
        except (OSError, ValueError, sqlite3.Error) as exc:
            raise Away(str(exc)) from exc
        try:
            yield connection
        except sqlite3.Error as exc:
            if not is_of_the_file(exc):
                raise
            if primary_code(exc) not in _LOCKED:
                self.close()
            raise Away(str(exc)) from exc

    def _forget_rows_of_others(self, connection: sqlite3.Connection) -> None:
        """Forget the cached runs, if others have written since they were cached."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._rows_version:
            self._rows.clear()
            self._rows_version = version

    def _forget_connection(self) -> None:
        self._connection = None
        self._rows.clear()
        _open.remove((self._path, os.getpid()))

    def _identify(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


class Remove:
    """Removes runs that nobody waits for."""

    def __init__(self, run_ids: Sequence[str]) -> None:
        self._run_ids = run_ids

    def run(self, target: Transaction, /) -> None:
        for run_id in self._run_ids:
            row = target.find(run_id)
            # Its producer may have come back.
            if row is not None and is_long_dead(row, target.clock):
                target.remove(row)
                target.tell(row, FENCED)


class _Forget:
    def run(self, target: Transaction, /) -> None:
        forget(target)


def is_of_the_file(error: sqlite3.Error) -> bool:
    """Tell whether an error is due to the file, and not to the arguments of a call."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _tell(
    news: News, run_id: str, epoch: str, found: tuple[str, int, bytes | None, int] | None
) -> None:
    """Add what a producer of this process must be told."""
    if found is None or found[0] != epoch or found[3]:
        news.told.append((run_id, epoch, FENCED))
    elif found[2] is not None:
        news.told.append((run_id, epoch, Requests(cancel=found[2])))
