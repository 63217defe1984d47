"""What is forgotten when its time is over, and how a file gets smaller by that."""

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

# Runs that are removed in one transaction: others want to write in between.
_RUNS = 50

# Pages that the file may have in stock, and that are given back at once.
_SPARE = 64
_PAGES = 256


def forget(tx: Transaction) -> None:
    """Remove some of what was kept for long enough."""
    found = tx.connection.execute(
        "SELECT id FROM runs WHERE expires_at <= ? LIMIT ?", [tx.wall, _RUNS]
    ).fetchall()
    for (run_id,) in found:
        # What is over is removed where it is found.
        tx.find(to_text(run_id))
    tx.connection.execute(
        "DELETE FROM early WHERE boot != ? OR until <= ? OR until > ?",
        [tx.clock.boot, tx.now, tx.now + REMEMBER],
    )


def long_dead(connection: sqlite3.Connection, clock: Clock) -> list[str]:
    """Return some runs that were lost so long ago that it does not matter how they have ended."""
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
    Tell whether nobody has buried a run for as long as it would have been kept after that.

    Both clocks have to say so: one on the wall that is set kills nobody.
    """
    patience = row.lease + DOUBT + max(row.keep, AFTER_READ)
    if row.outcome is not None or clock.wall() < row.seen_on + patience:
        return False
    return row.boot != clock.boot or not row.seen_at <= clock.now() < row.seen_at + patience


def until_due(connection: sqlite3.Connection, clock: Clock) -> float:
    """Return for how many seconds nothing is to be forgotten: for ever if there is nothing."""
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
    # Each page is a step of it. execute() makes one step where there are no columns.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    if free - pages > _SPARE:
        return True
    # What was given back is still in the write-ahead log.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return False
