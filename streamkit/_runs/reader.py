"""
A reader: the source of an attached stream. It holds a cursor, and nothing else.

It reads the entries after its cursor, a page at a time, and waits for a change when there are no
more. It is never told what has changed: it reads that. So it does not matter how far behind it is,
and nobody waits for it.

It reads ahead of its consumer, by so few entries that nothing grows. But the end and any error
reach only a consumer that has taken all entries before and asks for another one. A consumer that
leaves before that should not get them: if they were read ahead, they would be raised where its
block ends.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import anyio

from .._core.control import Control
from .._core.metadata import Head
from .._core.source import Batches
from .._core.stage import Stage
from .._core.stream import Stream, with_stage
from .._core.telemetry import RunsTold
from .attendance import Attendance
from .codec import decode
from .cursor import Cursor
from .entry import Entry
from .errors import CursorMismatch, Gap, RunsClosed, UnknownVersion
from .info import RunInfo
from .log import Page, Record, RunLog, Watch
from .records import check_owner, end_of, info_of
from .visit import Visit

# Entries that are handed to the consumer of an attached stream at once.
_BATCH = 100

# The reader goes on when fewer entries than this wait for the consumer.
_READ_AHEAD = 100

# In seconds. A consumer that waits at all waits for longer than this.
_AT_ALL = 1e-9


class ReadAhead(Stage[Any, Any]):
    """Lets a reader read ahead, and tells it when its consumer waits."""

    def __init__(self, read_ahead: float = 0) -> None:
        self.read_ahead: float = read_ahead
        #: What is known of the run, once its end was read.
        self.ended: RunInfo | None = None
        #: Whether a run was found and reported to telemetry.
        self.has_looked: bool = False
        self._control: Control | None = None

    def on_open(self, control: Control) -> None:
        self._control = control

    def on_close(self) -> None:
        self._control = None

    async def until_asked(self) -> None:
        """Wait until the consumer has taken everything, and waits for more."""
        control = self._control
        assert control is not None
        if not control.is_waiting(control.waits):
            await control.until_waited(control.waited + _AT_ALL)


def attached(
    log: RunLog,
    attendance: Attendance,
    run_id: str,
    owner: str | None,
    after: Cursor | Literal["now"] | None,
    told: RunsTold | None = None,
) -> Stream[Entry[Any]]:
    """
    Return the stream of a reader. Its first ask raises what is wrong.

    It raises :exc:`RunEnded` at the end of a run that did not complete; :exc:`RunNotFound` if there
    is no such run, or it was removed meanwhile; :exc:`Gap` if entries are missing;
    :exc:`CursorMismatch` if the cursor is not of this run.
    """
    ahead = ReadAhead(_READ_AHEAD)
    batches = Batches(
        read(ahead, log, attendance, run_id, owner, after, made_of=_entries_of, told=told)
    )
    return with_stage(cast("Any", batches), ahead)


async def read(
    ahead: ReadAhead,
    log: RunLog,
    attendance: Attendance,
    run_id: str,
    owner: str | None,
    after: Cursor | Literal["now"] | None,
    *,
    made_of: Callable[[int, Sequence[bytes], str], tuple[Any, int]],
    until: float = math.inf,
    for_a_response: bool = False,
    told: RunsTold | None = None,
) -> AsyncGenerator[Any, None]:
    """
    Yield the entries of a run, the existing ones and those that follow, until its end.

    :param made_of: takes the position of an entry, the entries from there on, and the epoch.
        Returns what to yield for them, and how many entries that covers
    :param until: when to leave at the latest, as if nobody was left to tell of changes
    :param for_a_response: whether to yield a :class:`Head` first: that of the run, if it is read
        from its beginning, or else 200 before a wait, because the status can no longer be another
        one; and whether to raise errors at once, because there is a client to answer
    :param told: hears of the reader, or ``None``

    """
    end: Exception | None
    visit: Visit | None = None
    try:
        record = await log.get(run_id)
        check_owner(run_id, record, owner)
        epoch = record.epoch
        if told is not None:
            visit = Visit(told, record, after, is_new=not ahead.has_looked)
            ahead.has_looked = True
        position = _position(after, record)
        async with attendance.reading(run_id, record, until) as seat, log.watch(run_id) as watch:
            page = await log.read(run_id, 0 if position is None else position)
            if position is None:
                position = page.first - 1
                if position:
                    page = await log.read(run_id, position)
            if visit is not None:
                visit.has_found(page, position, epoch)
            tells_status = for_a_response
            is_resumed = position > 0
            is_over = False
            with seat.scope:
                while not is_over:
                    if page.epoch != epoch:
                        raise CursorMismatch
                    if page.last < position:
                        page = await _wait_for_tail(log, run_id, page, watch, position)
                        continue
                    if page.first > position + 1:
                        raise Gap(page.first, page.last)
                    if tells_status and page.head is not None and not is_resumed:
                        tells_status = False
                        yield Head(page.head)
                    entries = page.entries
                    while entries:
                        made, count = made_of(position + 1, entries, epoch)
                        position += count
                        entries = entries[count:]
                        yield made
                    if position == page.last:
                        is_over = page.outcome is not None
                        if page.lapsed:
                            attendance.suspect(run_id, epoch)
                        if tells_status and is_resumed and not is_over:
                            tells_status = False
                            yield Head(200)
                        if not is_over:
                            await seat.wait(watch)
                    if not is_over:
                        page = await log.read(run_id, position)
            if not is_over:
                # The reader was sent away while it waited. It still gets what came at that moment.
                page = await log.read(run_id, position)
                if page.epoch != epoch or page.first > position + 1:
                    # A reader that goes on elsewhere is told there.
                    raise RunsClosed
                entries = page.entries
                while entries:
                    made, count = made_of(position + 1, entries, epoch)
                    position += count
                    entries = entries[count:]
                    yield made
                if page.outcome is None or position < page.last:
                    raise RunsClosed
            record = replace(record, first=page.first, last=page.last, outcome=page.outcome)
        ahead.ended = info_of(run_id, record)
        end = end_of(ahead.ended)
    except Exception as exc:
        end = exc
        if visit is not None:
            visit.has_failed(exc)
    if end is not None:
        try:
            if not for_a_response:
                await ahead.until_asked()
            raise end
        finally:
            # Its traceback includes this frame.
            del end


def _entries_of(position: int, data: Sequence[bytes], epoch: str) -> tuple[list[Entry[Any]], int]:
    """
    Return some entries, and how many.

    :raises UnknownVersion: if the first of them cannot be read. A later one that cannot be read is
        left to the next call, because the entries before it can

    """
    # What Entry() does, but faster.
    new = cast("Any", tuple).__new__
    entries: list[Entry[Any]] = []
    try:
        for each in data[:_BATCH]:
            entries.append(new(Entry, (position, decode(each), epoch)))
            position += 1
    except UnknownVersion:
        if not entries:
            raise
    return entries, len(entries)


def _position(after: Cursor | Literal["now"] | None, record: Record) -> int | None:
    """Return the position of the last entry that was seen, or ``None`` for the first kept."""
    if after is None:
        return None
    if after == "now":
        return record.last
    if after.epoch not in (None, record.epoch):
        raise CursorMismatch
    if after.is_end and (record.outcome is None or after.position != record.last):
        raise CursorMismatch("it is of an end that this run has not had")
    return after.position


async def _wait_for_tail(log: RunLog, run_id: str, page: Page, watch: Watch, position: int) -> Page:
    """Wait until a log that has lost its tail has again what the reader has seen."""
    with anyio.move_on_after(log.outage):
        while page.outcome is None and page.last < position:
            await watch.wait()
            page = await log.read(run_id, position)
    if page.last < position:
        raise CursorMismatch(f"it is beyond {page.last}, the last entry")
    return page
