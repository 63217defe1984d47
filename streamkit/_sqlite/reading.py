"""
How a log reads: many calls in one short transaction, which makes no writer wait.

Many readers are at the same place, and get the same page. A read also notes what has to be written
after it: that a run must be kept a little longer, and that it is followed from here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING

from .._runs.errors import RunNotFound
from .._runs.log import AFTER_READ, Page, Record
from .clock import Clock
from .row import COLUMNS, Row, to_bytes
from .transaction import Transaction
from .writing import follow, keep_longer

if TYPE_CHECKING:
    import sqlite3

#: Bytes of entries in a page. The first entry is always in it.
PAGE_BYTES = 256 * 1024

_FIND = f"SELECT {', '.join(COLUMNS)} FROM runs WHERE id = ?"
_ENTRIES = "SELECT data FROM entries WHERE run = ? AND position > ? ORDER BY position LIMIT ?"


class Reading:
    """
    The runs as they are at one moment.

    :param connection: a connection that has begun a transaction
    :param follow: seconds for which a run counts as followed after another process has read it

    """

    def __init__(self, connection: sqlite3.Connection, clock: Clock, follow: float) -> None:
        self._connection = connection
        self._clock = clock
        self._now = clock.now()
        self._wall = clock.wall()
        self._follow = follow
        self._renew_before = self._now + follow / 2
        self._rows: dict[str, Row | None] = {}
        self._pages: dict[tuple[str, int, int], Page] = {}
        #: Runs that have ended, and must be kept for a while after this reading.
        self._to_keep: set[str] = set()
        #: Runs that go on elsewhere, and whose end must be seen here.
        self._to_follow: set[str] = set()

    def get(self, run_id: str) -> Record:
        return self._known(run_id).record(self._now)

    def read(self, run_id: str, after: int, limit: int, *, is_own: bool) -> Page:
        row = self._known(run_id)
        if row.expires_at is not None:
            if row.expires_at < self._wall + AFTER_READ:
                self._to_keep.add(run_id)
        # Renewed well before it runs out.
        elif not is_own and row.keep < AFTER_READ and row.followed_until < self._renew_before:
            self._to_follow.add(run_id)
        place = run_id, after, limit
        page = self._pages.get(place)
        if page is None:
            page = self._pages[place] = self._page(row, after, limit)
        return page

    def afterwards(self) -> Generator[Callable[[Transaction], None], None, None]:
        """Yield what must be written after this reading."""
        if self._to_keep:
            yield partial(keep_longer, run_ids=tuple(self._to_keep), seconds=AFTER_READ)
        if self._to_follow:
            yield partial(follow, run_ids=tuple(self._to_follow), seconds=self._follow)

    def _page(self, row: Row, after: int, limit: int) -> Page:
        entries: list[bytes] = []
        size = 0
        if row.first <= after + 1 <= row.last:
            for (data,) in self._connection.execute(_ENTRIES, [row.number, after, limit]):
                size += len(data)
                if entries and size > PAGE_BYTES:
                    break
                entries.append(data)
        return row.page(entries, lapsed=row.has_lapsed(self._now))

    def _known(self, run_id: str) -> Row:
        try:
            row = self._rows[run_id]
        except KeyError:
            found = self._connection.execute(_FIND, [to_bytes(run_id)]).fetchone()
            row = self._rows[run_id] = None if found is None else Row(self._clock, *found)
        if row is None or row.is_over(self._wall):
            raise RunNotFound(run_id)
        return row
