"""
A log for runs, over a dictionary that stands for a table with a row for each run.

Where this one changes a row, yours begins a transaction. Needs ``anyio-streamkit``. Run it with
``python examples/dictionary_log.py``: a run is kept in it, and read.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import anyio

from streamkit.runs import Page, Record, Requests, RunExists, RunNotFound, RunRunning, Runs, Terms


@dataclass
class Row:
    epoch: str
    terms: Terms
    entries: dict[int, bytes] = field(default_factory=dict[int, bytes])
    first: int = 1
    last: int = 0
    head: int | None = None
    outcome: bytes | None = None
    cancel: bytes | None = None
    seen_at: float = field(default_factory=anyio.current_time)
    doubted_at: float | None = None
    watched_at: float = field(default_factory=anyio.current_time)
    watches: int = 0
    expires_at: float = math.inf

    def requests(self) -> Requests:
        return Requests(cancel=self.cancel, unwatched_for=anyio.current_time() - self.watched_at)


class DictionaryLog:
    lease, reconcile, outage, max_held = 15.0, 0.5, 0.0, 64

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        #: Cancellations that came before their run: the reason, and until when it counts.
        self.early: dict[tuple[str, str | None], tuple[bytes, float]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        yield  # here yours opens its connections

    def find(self, run_id: str) -> Row | None:
        row = self.rows.get(run_id)
        if row is not None and row.expires_at <= anyio.current_time():
            del self.rows[run_id]
            return None
        return row

    def known(self, run_id: str) -> Row:
        row = self.find(run_id)
        if row is None:
            raise RunNotFound(run_id)
        return row

    def running(self, run_id: str, epoch: str) -> Row | None:
        row = self.find(run_id)
        return row if row is not None and row.epoch == epoch and row.outcome is None else None

    def lapsed(self, row: Row) -> bool:
        return row.outcome is None and anyio.current_time() - row.seen_at >= self.lease

    async def create(
        self, run_id: str, epoch: str, terms: Terms, notify: Callable[[Requests], object]
    ) -> Requests:
        row = self.find(run_id)
        if row is None:
            row = self.rows[run_id] = Row(epoch, terms)
            for owner in {None, terms.owner}:
                reason, until = self.early.pop((run_id, owner), (None, 0.0))
                row.cancel = reason if anyio.current_time() < until else row.cancel
        elif row.epoch != epoch or row.outcome is not None:
            raise RunExists(run_id)
        return row.requests()

    async def append(
        self,
        run_id: str,
        epoch: str,
        position: int,
        entries: Sequence[bytes],
        *,
        acknowledged: int,
        first: int,
        head: int | None = None,
    ) -> Requests:
        row = self.running(run_id, epoch)
        if row is None or row.last < acknowledged:
            return Requests(fenced=True)  # it has lost what was written: nobody goes on
        row.entries.update(enumerate(entries, position))
        row.last = max(row.last, position + len(entries) - 1)
        for old in range(row.first, min(first, row.last + 1)):
            del row.entries[old]
            row.first = old + 1
        row.head = row.head if head is None else head
        return await self.renew(run_id, epoch)

    async def renew(self, run_id: str, epoch: str, *, acknowledged: int = 0) -> Requests:
        row = self.running(run_id, epoch)
        if row is None or row.last < acknowledged:
            return Requests(fenced=True)
        row.seen_at, row.doubted_at = anyio.current_time(), None
        return row.requests()

    async def end(self, run_id: str, epoch: str, outcome: bytes, *, acknowledged: int = 0) -> bool:
        row = self.running(run_id, epoch)
        if row is None or row.last < acknowledged:
            return False
        keep = max(row.terms.keep, 60.0) if row.watches else row.terms.keep
        row.outcome, row.expires_at = outcome, anyio.current_time() + keep
        return True

    async def get(self, run_id: str) -> Record:
        row = self.known(run_id)
        return Record(
            terms=row.terms,
            epoch=row.epoch,
            first=row.first,
            last=row.last,
            head=row.head,
            outcome=row.outcome,
            cancel_requested=row.cancel is not None,
            lapsed=self.lapsed(row),
        )

    async def read(self, run_id: str, after: int, limit: int = 200) -> Page:
        row = self.known(run_id)
        if row.outcome is not None:
            row.expires_at = max(row.expires_at, anyio.current_time() + 60.0)
        wanted = range(after + 1, min(after + limit, row.last) + 1)
        entries = [row.entries[at] for at in wanted] if after + 1 >= row.first else []
        return Page(
            entries, row.first, row.last, row.epoch, row.head, row.outcome, self.lapsed(row)
        )

    @asynccontextmanager
    async def watch(self, run_id: str) -> AsyncGenerator[DictionaryLog, None]:
        row = self.known(run_id)
        row.watches += 1
        try:
            yield self
        finally:
            row.watches -= 1

    async def wait(self) -> None:
        await anyio.sleep(0.05)  # LISTEN, if yours can

    async def touch(self, run_id: str, epoch: str) -> None:
        row = self.running(run_id, epoch)
        if row is not None:
            row.watched_at = anyio.current_time()

    async def request_cancel(
        self,
        run_id: str,
        reason: bytes,
        *,
        owner: str | None = None,
        epoch: str | None = None,
        unwatched_for: float | None = None,
    ) -> Literal["running", "ended", "unknown"]:
        row, now = self.find(run_id), anyio.current_time()
        if row is None and epoch is None:
            _, until = self.early.get((run_id, owner), (reason, 0.0))
            if until <= now:
                self.early[run_id, owner] = reason, now + 30.0
            return "unknown"
        if row is not None and owner not in (None, row.terms.owner):
            raise RunNotFound(run_id)
        if row is None or row.outcome is not None or epoch not in (None, row.epoch):
            return "ended"
        if unwatched_for is not None and now - row.watched_at < unwatched_for:
            return "ended"
        row.cancel = reason if row.cancel is None else row.cancel
        return "running"

    async def bury(
        self, run_id: str, epoch: str, outcome: bytes
    ) -> Literal["alive", "doubted", "buried", "gone"]:
        row, now = self.running(run_id, epoch), anyio.current_time()
        if row is None:
            return "gone"
        if not self.lapsed(row):
            return "alive"
        row.doubted_at = now if row.doubted_at is None else row.doubted_at
        if now - row.doubted_at < 5.0:
            return "doubted"
        await self.end(run_id, epoch, outcome)
        return "buried"

    async def delete(self, run_id: str, epoch: str) -> None:
        row = self.known(run_id)
        if row.epoch != epoch:
            raise RunNotFound(run_id)
        if row.outcome is None:
            raise RunRunning(run_id)
        del self.rows[run_id]


async def answer() -> AsyncGenerator[str, None]:
    for word in ("To", "be,", "or", "not", "to", "be"):
        await anyio.sleep(0.1)
        yield word


async def main() -> None:
    async with Runs(DictionaryLog()) as runs:
        run = await runs.start(answer())
        async with runs.attach(run.id) as stream:
            print(" ".join([str(entry.item) async for entry in stream]))


if __name__ == "__main__":
    anyio.run(main)
