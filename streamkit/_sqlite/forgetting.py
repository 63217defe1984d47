"""What is forgotten when its time is over, and how that makes a file smaller."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

from .._runs.log import AFTER_READ, DOUBT, REMEMBER
from .clock import Clock
from .row import COLUMNS, Row, to_text
from .transaction import Transaction

if TYPE_CHECKING:
    import sqlite3

# The most runs that are removed in one transaction: others want to write in between.
_RUNS = 50

# Free pages that the file may keep, and the most pages that are given back at once.
_SPARE = 64
_PAGES = 256


def forget(tx: Transaction) -> None:
    """Remove some of the runs, and all early cancellations, that were kept for long enough."""
    found = tx.connection.execute(
        "SELECT id FROM runs WHERE expires_at <= ? LIMIT ?", [tx.wall, _RUNS]
    ).fetchall()
    for (run_id,) in found:
        # Finding a run whose time is over removes it.
        tx.find(to_text(run_id))
    tx.connection.execute(
        "DELETE FROM early WHERE boot != ? OR until <= ? OR until > ?",
        [tx.clock.boot, tx.now, tx.now + REMEMBER],
    )


def long_dead(connection: sqlite3.Connection, clock: Clock) -> list[str]:
    """Return some runs that were lost so long ago that their end no longer matters."""
    found = connection.execute(
        f"SELECT {', '.join(COLUMNS)} FROM runs WHERE outcome IS NULL AND seen_on < ?",
        [clock.wall() - AFTER_READ],
    )
    dead = (
        to_text(row.id) for row in (Row(clock, *each) for each in found) if is_long_dead(row, clock)
    )
    return list(islice(dead, _RUNS))


def is_long_dead(row: Row, clock: Clock) -> bool:
    """
    Tell whether a lost run has lain unburied for as long as it would be kept after its burial.

    Both clocks must say so: setting the wall clock alone kills nothing.
    """
    patience = row.lease + DOUBT + max(row.keep, AFTER_READ)
    if row.outcome is not None or clock.wall() < row.seen_on + patience:
        return False
    return row.boot != clock.boot or not row.seen_at <= clock.now() < row.seen_at + patience


def until_due(connection: sqlite3.Connection, clock: Clock) -> float:
    """Return the seconds until there is something to forget: infinite if there is nothing."""
    (expires_at,) = connection.execute(
        "SELECT min(expires_at) FROM runs WHERE expires_at IS NOT NULL"
    ).fetchone()
    early = connection.execute("SELECT until FROM early ORDER BY number LIMIT 1").fetchone()
    return min(
        math.inf if expires_at is None else expires_at - clock.wall(),
        math.inf if early is None else min(early[0] - clock.now(), REMEMBER),
    )


def shrink(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the disk. Returns whether there are more."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free <= _SPARE:
        return False
    pages = min(free - _SPARE, _PAGES)
    # Each page is one step of the statement, and execute() makes only one step if there are no
    # columns.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    if free - pages > _SPARE:
        return True
    # The change is still in the write-ahead log: the file shrinks with the checkpoint.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return False
