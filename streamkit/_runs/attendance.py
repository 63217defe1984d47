"""
The readers of one process, and what they report to their runs, in a task that none of them can
cancel.

A run that is cancelled when nobody reads it must know whether anybody does. So readers report when
they come, from time to time, and when they go. And a reader of a run whose producer gives no sign
of life wants that run buried, which takes two looks with some time in between.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
import anyio.lowlevel

from .errors import LogUnavailable
from .log import Record, RunLog, Watch

_logger = logging.getLogger("streamkit")

#: A run, and which incarnation of it.
Key: TypeAlias = tuple[str, str]


class Seat:
    """
    The place of one reader, from its first read to its last.

    :param key: the run that it reads
    :param until: when it should stop waiting

    """

    def __init__(self, key: Key, until: float = math.inf) -> None:
        self.key: Key = key
        self._until = until
        #: The reader reads and waits in this scope, across its yields: a scope around each wait
        #: would cost more than the wait. It is only cancelled during a wait.
        self.scope: anyio.CancelScope = anyio.CancelScope()
        #: Whether nobody is left to tell of a change.
        self.is_closed: bool = False
        self._waits = False

    async def wait(self, watch: Watch) -> None:
        """Wait for a change, in a reader that has all there is. Ends once the seat is closed."""
        if self.is_closed:
            self.scope.cancel()
        self._waits = True
        if self._until < math.inf:
            self.scope.deadline = self._until
            await watch.wait()
            self.scope.deadline = math.inf
        else:
            await watch.wait()
        self._waits = False
        if self.scope.cancel_called:
            # It was cancelled at the moment of the change. The cancellation should be raised here,
            # not where the reader yields.
            await anyio.lowlevel.checkpoint()

    def close(self) -> None:
        """Send the reader away, now or at its next wait."""
        self.is_closed = True
        if self._waits:
            self.scope.cancel()


class Attendance:
    """
    The readers of one :class:`Runs`.

    :param log: where they read
    :param bury: tries to bury a run, and returns whether to try again
    :param is_own: tells whether a run goes on in this process, which never buries its own

    """

    def __init__(
        self,
        log: RunLog,
        bury: Callable[[str, str], Awaitable[bool]],
        is_own: Callable[[str, str], bool],
    ) -> None:
        self._log = log
        self._bury = bury
        self._is_own = is_own
        self._seats: set[Seat] = set()
        #: How many readers each run with ``unwatched`` has.
        self._present: Counter[Key] = Counter()
        self._departed: set[Key] = set()
        self._suspects: set[Key] = set()
        self._woken = anyio.Event()
        self._empty: anyio.Event | None = None
        self._is_over = False

    def __len__(self) -> int:
        """Return how many readers there are."""
        return len(self._seats)

    @asynccontextmanager
    async def reading(
        self, run_id: str, record: Record, until: float = math.inf
    ) -> AsyncGenerator[Seat, None]:
        """Report, while the block is open, that a run is being read."""
        key = run_id, record.epoch
        wants_to_know = record.terms.unwatched is not None and record.outcome is None
        seat = Seat(key, until)
        seat.is_closed = self._empty is not None or (self._is_over and not self._is_own(*key))
        self._seats.add(seat)
        if wants_to_know:
            self._present[key] += 1
            self._woken.set()
        try:
            if wants_to_know:
                await self._log.touch(*key)
            yield seat
        finally:
            if wants_to_know:
                self._depart(key)
            self._seats.discard(seat)
            if not self._seats and self._empty is not None:
                self._empty.set()

    def suspect(self, run_id: str, epoch: str) -> None:
        """Note that the producer of a run has given no sign of life."""
        key = run_id, epoch
        if key not in self._suspects and not self._is_own(run_id, epoch):
            self._suspects.add(key)
            self._woken.set()

    def send_strangers_away(self) -> None:
        """
        Send away the readers that wait for a run of another process: it goes on, and they can read
        it there.
        """
        self._is_over = True
        for seat in tuple(self._seats):
            if not self._is_own(*seat.key):
                seat.close()

    async def close(self, patience: float) -> None:
        """Send away the readers that wait in vain, and give the others some seconds."""
        self._empty = anyio.Event()
        for seat in tuple(self._seats):
            seat.close()
        if self._seats:
            with anyio.move_on_after(patience):
                await self._empty.wait()

    async def run(self) -> None:
        """Report to the log, until cancelled."""
        due = math.inf
        while True:
            keys, self._departed = self._departed, set()
            if anyio.current_time() >= due:
                keys.update(self._present)
                due = math.inf
            # All at once: one after another, the first would be due again before the last is told.
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    tasks.start_soon(self._touch, *key)
            for key in tuple(self._suspects):
                if not await self._bury(*key):
                    self._suspects.discard(key)
            if self._present or self._suspects:
                due = min(due, anyio.current_time() + self._log.reconcile)
            with anyio.CancelScope(deadline=due):
                await self._woken.wait()
            self._woken = anyio.Event()

    def _depart(self, key: Key) -> None:
        self._present[key] -= 1
        if not self._present[key]:
            del self._present[key]
        # The clock of an unwatched run begins now, and not at the last report.
        self._departed.add(key)
        self._woken.set()

    async def _touch(self, run_id: str, epoch: str) -> None:
        try:
            await self._log.touch(run_id, epoch)
        except LogUnavailable:
            # The clock of an unwatched run stands still while the store is away.
            return
        except Exception:
            _logger.exception("the log could not be told of the readers of %r", run_id)
