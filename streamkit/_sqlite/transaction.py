"""
What is written together. Runs are looked up as they are needed, changed in memory, and written at
the end: so a transaction costs few statements, however many calls it is made of.

Nothing is changed that was not checked before. A call that raises has changed nothing, and the
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

#: What an entry takes beside its bytes, and a run beside its entries.
ENTRY_OVERHEAD = 32
RUN_OVERHEAD = 512

_FIND = f"SELECT {', '.join(COLUMNS)} FROM runs WHERE id = ?"
_ADD = f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

# What may change, and where it is.
_CHANGING = COLUMNS[COLUMNS.index("first") :]
_changing = attrgetter(*_CHANGING)
_all = attrgetter(*COLUMNS)
_SAVE = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE number = ?"


@dataclass(frozen=True, slots=True)
class News:
    """What those in this process want to hear of when something was written, or was seen to be."""

    #: Runs that have changed: their epoch, and how often it was. ``None`` if they are gone.
    changed: dict[str, tuple[str, int] | None] = field(
        default_factory=dict[str, tuple[str, int] | None]
    )
    #: What producers are asked, by the id and the epoch of their run.
    told: list[tuple[str, str, Requests]] = field(default_factory=list[tuple[str, str, Requests]])


class Transaction:
    """
    The runs, as they are while nobody else writes.

    :param connection: one that has begun a transaction
    :param max_bytes: of all runs together
    :param is_watched: whether a run is being watched in this process
    :param rows: runs that go on, as they are, which spares to look them up. It is to be emptied if
        the transaction fails, or if somebody else has written
    :param away: from when to when the file could not be written, by the clock of the machine

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
        #: Those that are not to be kept in memory after this.
        self._passing: set[str] = set()
        #: Those that are to be written.
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
        """Return a run that is there, and has not been kept for long enough."""
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
        """Return a run of this epoch that goes on, and of which nothing is missing."""
        row = self.find(run_id)
        return row if row is not None and row.is_writable(epoch, acknowledged) else None

    def add(self, run_id: str, epoch: str, terms: Terms, lease: float) -> Row:
        """Add a run, for which there is room."""
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
        """Have a change written that nobody waits for."""
        self._changed[row.number] = row

    def change(self, row: Row) -> None:
        """Have a change written, and told to those who watch."""
        row.changes += 1
        self._changed[row.number] = row
        self.news.changed[to_text(row.id)] = row.epoch, row.changes

    def tell(self, row: Row, requests: Requests) -> None:
        """Have a producer told when this is written, if it is here."""
        self.news.told.append((to_text(row.id), row.epoch, requests))

    def sign_of_life(self, row: Row) -> None:
        """Begin the lease anew."""
        # While nobody could write, no reader could say that it is there.
        since, until = self._away
        missed = until - max(since, row.seen_at)
        if missed > 0:
            row.watched_at = min(row.watched_at + missed, self.now)
        row.renew(self.now)
        row.boot, row.seen_on = self.clock.boot, self.wall
        self.save(row)

    def end(self, row: Row, outcome: bytes) -> None:
        """Let a run be ended, and be kept for as long as is due."""
        # Those who follow it are to see the end.
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
        """Add entries that follow those that are there, for which there is room."""
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
        """Tell whether there is room for so many bytes more, without making any."""
        return self._bytes + size <= self._max_bytes

    def make_room(self, size: int) -> bool:
        """Remove the runs that ended first, if that is enough for so many bytes more."""
        if self._bytes + size - self._max_bytes > self._ended_bytes:
            return False
        while not self.has_room(size):
            self.flush()
            (run_id,) = self.connection.execute(
                "SELECT id FROM runs WHERE ended IS NOT NULL ORDER BY ended LIMIT 1"
            ).fetchone()
            # Unless it is removed for its age.
            row = self.find(to_text(run_id))
            if row is not None:
                self.remove(row)
        return True

    # The end

    def flush(self) -> None:
        """Write what is only in memory so far."""
        if self._entries:
            self.connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", self._entries)
            self._entries = []
        if self._changed:
            rows = [(*_changing(row), row.number) for row in self._changed.values()]
            self.connection.executemany(_SAVE, rows)
            self._changed = {}

    def finish(self) -> None:
        """Write all that is left, before the transaction is committed."""
        self.flush()
        for run_id in self._passing:
            del self._rows[run_id]
        totals = self._bytes, self._ended_bytes, self._ends
        if totals != self._read:
            self.connection.execute(
                "UPDATE totals SET bytes = ?, ended_bytes = ?, ends = ?", totals
            )


def size_of_run(terms: Terms) -> int:
    """Return what a run takes that has no entries yet."""
    return RUN_OVERHEAD + len(terms.data)
