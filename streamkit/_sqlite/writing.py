"""How a log writes: what each call does to the runs of a transaction. See ``RunLog``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .._runs.errors import LogFull, RunNotFound
from .._runs.log import REMEMBER, Requests, Terms
from .row import Row, to_bytes
from .transaction import ENTRY_OVERHEAD, Transaction, size_of_run

# The entries and bytes that are removed together: removing each one alone would cost as much as
# adding it.
_TOGETHER = 64
_TOGETHER_BYTES = 256 * 1024

# The most early cancellations that are remembered. The oldest are dropped.
_MOST_EARLY = 10_000

FENCED = Requests(fenced=True)


def create(tx: Transaction, run_id: str, epoch: str, terms: Terms, lease: float) -> Requests:
    row = tx.find(run_id)
    if row is not None:
        if row.is_writable(epoch):
            # First, because it counts the time since the last sign of life.
            tx.sign_of_life(row)
        return row.create_again(run_id, epoch, tx.now)
    if not tx.make_room(size_of_run(terms)):
        raise LogFull("the log has no room for another run: give it more max_bytes")
    row = tx.add(run_id, epoch, terms, lease)
    _take_early(tx, row)
    return row.requests(tx.now)


def undo(tx: Transaction, run_id: str, epoch: str) -> None:
    """Remove a run that was created, if nobody has heard about it."""
    row = tx.writable(run_id, epoch)
    if row is not None and not row.last:
        tx.remove(row)
        tx.tell(row, FENCED)


def append(
    tx: Transaction,
    run_id: str,
    epoch: str,
    position: int,
    entries: Sequence[bytes],
    acknowledged: int,
    first: int,
    head: int | None,
) -> Requests:
    # A file that was restored has lost what was written since, and readers may have seen that.
    row = tx.writable(run_id, epoch, acknowledged)
    if row is None:
        return FENCED
    new = list(row.new_entries(position, entries))
    start, last = row.last + 1, row.last + len(new)
    first = max(min(first, last + 1), row.first)
    if first > start:
        # These entries alone are more than is kept of the run.
        del new[: first - start]
        start = first
    size = sum(map(len, new)) + ENTRY_OVERHEAD * len(new)
    if not tx.has_room(size) and not tx.make_room(size - tx.size_before(row, first)):
        raise LogFull("the log has no room for more items: give it more max_bytes")
    tx.add_entries(row, start, new, size)
    row.first, row.last = first, last
    if head is not None:
        row.head = head
    if _is_worthwhile(row) or not tx.has_room(0):
        tx.trim(row, first)
    if entries or head is not None:
        tx.change(row)
    tx.sign_of_life(row)
    return row.requests(tx.now)


def renew(tx: Transaction, run_id: str, epoch: str, acknowledged: int) -> Requests:
    row = tx.writable(run_id, epoch, acknowledged)
    if row is None:
        return FENCED
    tx.sign_of_life(row)
    return row.requests(tx.now)


def end(tx: Transaction, run_id: str, epoch: str, outcome: bytes, acknowledged: int) -> bool:
    row = tx.find(run_id)
    if row is None:
        return False
    if row.is_writable(epoch, acknowledged):
        tx.end(row, outcome)
        return True
    # An earlier attempt at this call may have written the end, without seeing its success.
    return row.epoch == epoch and row.outcome == outcome


def touch(tx: Transaction, run_id: str, epoch: str) -> None:
    row = tx.writable(run_id, epoch)
    if row is not None:
        row.watched_at = tx.now
        tx.save(row)


def request_cancel(
    tx: Transaction,
    run_id: str,
    reason: bytes,
    owner: str | None,
    epoch: str | None,
    unwatched_for: float | None,
) -> Literal["running", "ended", "unknown"]:
    row = tx.find(run_id)
    if row is None and epoch is None:
        _remember(tx, run_id, reason, owner)
        return "unknown"
    if row is None:
        return "ended"
    before = row.cancel
    found = row.request_cancel(run_id, reason, tx.now, owner, epoch, unwatched_for)
    if row.cancel is not before:
        tx.change(row)
        tx.tell(row, row.requests(tx.now))
    return found


def bury(
    tx: Transaction, run_id: str, epoch: str, outcome: bytes
) -> Literal["alive", "doubted", "buried", "gone"]:
    row = tx.writable(run_id, epoch)
    if row is None:
        return "gone"
    before = row.doubted_at
    found = row.doubt(tx.now)
    if row.doubted_at != before:
        tx.save(row)
    if found != "dead":
        return found
    tx.end(row, outcome)
    tx.tell(row, FENCED)
    return "buried"


def delete(tx: Transaction, run_id: str, epoch: str) -> None:
    row = tx.find(run_id)
    if row is None:
        raise RunNotFound(run_id)
    row.check_removable(run_id, epoch)
    tx.remove(row)


def keep_longer(tx: Transaction, run_ids: Sequence[str], seconds: float) -> None:
    """Keep runs for a while longer, because they were read."""
    for run_id in run_ids:
        row = tx.find(run_id)
        if row is not None and row.expires_at is not None:
            row.expires_at = max(row.expires_at, tx.wall + seconds)
            tx.save(row)


def follow(tx: Transaction, run_ids: Sequence[str], seconds: float) -> None:
    """Note that runs of other processes are followed here."""
    for run_id in run_ids:
        row = tx.find(run_id)
        if row is not None and row.outcome is None:
            row.followed_until = tx.now + seconds
            tx.save(row)


def _is_worthwhile(row: Row) -> bool:
    dropped = row.first - row.stored
    if dropped <= 0:
        return False
    # An estimate of the bytes of the entries before ``first``.
    share = row.size * dropped // (row.last + 1 - row.stored)
    return dropped >= _TOGETHER or share >= _TOGETHER_BYTES


def _remember(tx: Transaction, run_id: str, reason: bytes, owner: str | None) -> None:
    if _early(tx, "id = ? AND owner IS ?", to_bytes(run_id), _owner(owner)) is not None:
        # The first reason is kept.
        return
    number = tx.connection.execute(
        "INSERT INTO early (id, owner, reason, boot, until) VALUES (?, ?, ?, ?, ?)",
        [to_bytes(run_id), _owner(owner), reason, tx.clock.boot, tx.now + REMEMBER],
    ).lastrowid
    assert number is not None
    tx.connection.execute("DELETE FROM early WHERE number <= ?", [number - _MOST_EARLY])


def _take_early(tx: Transaction, row: Row) -> None:
    """Cancel a run if that was asked before the run was there."""
    asked = "id = ? AND (owner IS NULL OR owner = ?)"
    reason = _early(tx, asked, row.id, row.owner)
    if reason is not None:
        row.cancel = reason
        tx.save(row)
    tx.connection.execute(f"DELETE FROM early WHERE {asked}", [row.id, row.owner])


def _early(tx: Transaction, asked: str, run_id: bytes, owner: bytes | None) -> bytes | None:
    # The first reason counts.
    found = tx.connection.execute(
        f"SELECT reason FROM early "
        f"WHERE {asked} AND boot = ? AND until > ? AND until <= ? ORDER BY number LIMIT 1",
        [run_id, owner, tx.clock.boot, tx.now, tx.now + REMEMBER],
    ).fetchone()
    return None if found is None else bytes(found[0])


def _owner(owner: str | None) -> bytes | None:
    return None if owner is None else to_bytes(owner)
