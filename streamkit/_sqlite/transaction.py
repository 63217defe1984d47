"""
What is written together. Runs are looked up when they are needed, changed in memory, and written at
the end. So a transaction costs few statements, however many calls it consists of.

Everything is checked before anything is changed. So a call that raises has changed nothing, and the
others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from .._runs.log import Requests, Terms
from .clock import Clock
from .row import COLUMNS, Row, to_bytes, to_text

if TYPE_CHECKING:
    import sqlite3

#: The bytes that count for an entry besides its own, and for a run besides its entries.
ENTRY_OVERHEAD = 32
RUN_OVERHEAD = 512

_FIND = f"SELECT {', '.join(COLUMNS)} FROM runs WHERE id = ?"
_ADD = f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

# The columns that may change.
_CHANGING = COLUMNS[COLUMNS.index("first") :]
_changing = attrgetter(*_CHANGING)
_all = attrgetter(*COLUMNS)
_SAVE = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE number = ?"


@dataclass(frozen=True, slots=True)
class News:
    """What this process wants to hear about after a write of its own, or of others."""

    #: Runs that have changed: their epoch and their count of changes, or ``None`` if they are gone.
    changed: dict[str, tuple[str, int] | None] = field(
        default_factory=dict[str, tuple[str, int] | None]
    )
    #: What producers are asked, with the id and the epoch of their run.
    told: list[tuple[str, str, Requests]] = field(default_factory=list[tuple[str, str, Requests]])


class Transaction:
    """
    The runs as they are while nobody else writes.

    :param connection: a connection that has begun a transaction
    :param max_bytes: the limit for all runs together
    :param is_watched: whether a run is being watched in this process
    :param rows: a cache of runs that go on. The caller empties it if the transaction fails, or if
        somebody else has written
    :param away: the last period in which the file could not be written, by the monotonic clock

    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        max_bytes: int,
        is_watched: Callable[[str], bool],
        rows: dict[str, Row | None],
        away: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.clock = clock
        self.now: float = clock.now()
        self.wall: float = clock.wall()
        self.news: News = News()
        self.connection = connection
        self._max_bytes = max_bytes
        self._is_watched = is_watched
        self._away = away
        self._rows = rows
        #: Runs that are not cached after this transaction.
        self._passing: set[str] = set()
        #: Runs that must be written.
        self._changed: dict[int, Row] = {}
        self._entries: list[tuple[int, int, bytes]] = []
        self._read: tuple[int, int, int] = connection.execute(
            "SELECT bytes, ended_bytes, ends FROM totals"
        ).fetchone()
        self._bytes: int
        self._ended_bytes: int
        self._ends: int
        self._bytes, self._ended_bytes, self._ends = self._read

    # Runs

    def find(self, run_id: str) -> Row | None:
        """Return a run, unless there is none, or it was kept for long enough."""
        try:
            row = self._rows[run_id]
        except KeyError:
            found = self.connection.execute(_FIND, [to_bytes(run_id)]).fetchone()
            row = self._rows[run_id] = None if found is None else Row(self.clock, *found)
            if row is None or row.outcome is not None:
                self._passing.add(run_id)
        if row is not None and row.is_over(self.wall):
            self.remove(row)
            return None
        return row

    def writable(self, run_id: str, epoch: str, acknowledged: int = 0) -> Row | None:
        """Return a run if it has this epoch, goes on, and lacks no acknowledged entry."""
        row = self.find(run_id)
        return row if row is not None and row.is_writable(epoch, acknowledged) else None

    def add(self, run_id: str, epoch: str, terms: Terms, lease: float) -> Row:
        """Add a run. The caller has made room for it."""
        row = Row(
            clock=self.clock,
            number=0,
            id=to_bytes(run_id),
            epoch=epoch,
            owner=None if terms.owner is None else to_bytes(terms.owner),
            data=terms.data,
            keep=terms.keep,
            unwatched=terms.unwatched,
            started_at=terms.started_at,
            first=1,
            stored=1,
            last=0,
            head=None,
            outcome=None,
            cancel=None,
            boot=self.clock.boot,
            lease=lease,
            seen_at=self.now,
            seen_on=self.wall,
            doubted_at=None,
            watched_at=self.now,
            followed_until=0.0,
            ended=None,
            expires_at=None,
            size=size_of_run(terms),
            changes=0,
        )
        number = self.connection.execute(_ADD, [None, *_all(row)[1:]]).lastrowid
        assert number is not None
        row.number = number
        self._rows[run_id] = row
        self._passing.discard(run_id)
        self._bytes += row.size
        self.news.changed[run_id] = epoch, row.changes
        return row

    def save(self, row: Row) -> None:
        """Write a change that nobody waits for."""
        self._changed[row.number] = row

    def change(self, row: Row) -> None:
        """Write a change, and tell the watches."""
        row.changes += 1
        self._changed[row.number] = row
        self.news.changed[to_text(row.id)] = row.epoch, row.changes

    def tell(self, row: Row, requests: Requests) -> None:
        """Tell a producer after this is written, if it is in this process."""
        self.news.told.append((to_text(row.id), row.epoch, requests))

    def sign_of_life(self, row: Row) -> None:
        """Start the lease anew."""
        # While the file could not be written, no reader could report that it was there.
        since, until = self._away
        missed = until - max(since, row.seen_at)
        if missed > 0:
            row.watched_at = min(row.watched_at + missed, self.now)
        row.renew(self.now)
        row.boot, row.seen_on = self.clock.boot, self.wall
        self.save(row)

    def end(self, row: Row, outcome: bytes) -> None:
        """End a run, to be kept for as long as is due."""
        # Its followers must see the end.
        follows = self._is_watched(to_text(row.id)) or row.followed_until > self.now
        row.end(outcome, self.wall, is_watched=follows)
        self._ends += 1
        row.ended = self._ends
        self._ended_bytes += row.size
        self._passing.add(to_text(row.id))
        self.change(row)

    def remove(self, row: Row) -> None:
        """Remove a run that has ended, or that nobody waits for."""
        self.flush()
        self.connection.execute("DELETE FROM entries WHERE run = ?", [row.number])
        self.connection.execute("DELETE FROM runs WHERE number = ?", [row.number])
        self._bytes -= row.size
        if row.outcome is not None:
            self._ended_bytes -= row.size
        self._rows[to_text(row.id)] = None
        self._passing.add(to_text(row.id))
        self.news.changed[to_text(row.id)] = None

    # Entries

    def add_entries(self, row: Row, position: int, data: list[bytes], size: int) -> None:
        """Add entries after those that are there. The caller has made room for them."""
        self._entries += [(row.number, at, entry) for at, entry in enumerate(data, position)]
        row.size += size
        self._bytes += size

    def size_before(self, row: Row, first: int) -> int:
        """Return the size of what is stored before a position."""
        self.flush()
        number, size = self.connection.execute(
            "SELECT count(*), ifnull(sum(length(data)), 0) FROM entries "
            "WHERE run = ? AND position < ?",
            [row.number, first],
        ).fetchone()
        return int(size + ENTRY_OVERHEAD * number)

    def trim(self, row: Row, first: int) -> None:
        """Remove the entries before a position."""
        size = self.size_before(row, first)
        self.connection.execute(
            "DELETE FROM entries WHERE run = ? AND position < ?", [row.number, first]
        )
        row.stored = first
        row.size -= size
        self._bytes -= size
        self.save(row)

    # Room

    def has_room(self, size: int) -> bool:
        """Tell whether there is room for this many more bytes, without making any."""
        return self._bytes + size <= self._max_bytes

    def make_room(self, size: int) -> bool:
        """Remove the runs that ended first, if that is enough for this many more bytes."""
        if self._bytes + size - self._max_bytes > self._ended_bytes:
            return False
        while not self.has_room(size):
            self.flush()
            (run_id,) = self.connection.execute(
                "SELECT id FROM runs WHERE ended IS NOT NULL ORDER BY ended LIMIT 1"
            ).fetchone()
            # ``None`` if find() itself has just removed the run, because its time was over.
            row = self.find(to_text(run_id))
            if row is not None:
                self.remove(row)
        return True

    # The end

    def flush(self) -> None:
        """Write everything that is only in memory so far."""
        if self._entries:
            self.connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", self._entries)
            self._entries = []
        if self._changed:
            rows = [(*_changing(row), row.number) for row in self._changed.values()]
            self.connection.executemany(_SAVE, rows)
            self._changed = {}

    def finish(self) -> None:
        """Write everything that is left, before the transaction is committed."""
        self.flush()
        for run_id in self._passing:
            del self._rows[run_id]
        totals = self._bytes, self._ended_bytes, self._ends
        if totals != self._read:
            self.connection.execute(
                "UPDATE totals SET bytes = ?, ended_bytes = ?, ends = ?", totals
            )


def size_of_run(terms: Terms) -> int:
    """Return the size of a run that has no entries yet."""
    return RUN_OVERHEAD + len(terms.data)
