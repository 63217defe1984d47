"""``MemoryLog``: runs that are kept in the memory of one process."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Literal

import anyio

from .agenda import Agenda
from .early import EarlyCancels
from .errors import LogFull, RunNotFound
from .kept import OVERHEAD, KeptRun, KeptWatch
from .log import PAGE, Page, Record, Requests, Terms, Watch
from .siblings import has_siblings

_logger = logging.getLogger("streamkit")

_FENCED = Requests(fenced=True)


class MemoryLog:
    """
    Keeps runs in the memory of this process: nothing to install, and nothing survives the process.

    If a server has several workers, each has a log of its own, and a client that comes back to
    another worker finds nothing. A warning says so once.

    :param max_bytes: the bytes of all entries together, with some 128 bytes more for each. When it
        is reached, the run that ended first is dropped. If no run has ended, nothing more is
        taken, and the source is told :exc:`LogFull`
    :param lease: seconds after which a run whose producer has given no sign of life counts as lost.
        In one process, this is for tests: with ``math.inf``, none ever does
    :raises ValueError: if a number is not positive

    """

    reconcile: float = 0.5
    outage: float = 0.0
    max_held: int = 64

    def __init__(self, *, max_bytes: int = 256 * 1024 * 1024, lease: float = math.inf) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be > 0, got {max_bytes!r}: write max_bytes=2**28")
        if not lease > 0:
            raise ValueError(f"lease must be > 0, got {lease!r}: write lease=15.0")
        self.lease: float = lease
        self._max_bytes = max_bytes
        self._runs: dict[str, KeptRun] = {}
        #: In the order in which they ended.
        self._ended: dict[str, KeptRun] = {}
        self._bytes = 0
        self._ended_bytes = 0
        self._agenda = Agenda()
        self._early = EarlyCancels(self._agenda)
        self._has_looked_around = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._runs)} runs, {self._bytes:,} bytes>"

    def __len__(self) -> int:
        """Return how many runs are kept."""
        return len(self._runs)

    def __bool__(self) -> bool:
        return True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Forget what has expired, in a task, while the block is open. Opened by :class:`Runs`."""
        leaving: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._agenda.run, name=f"sweeper of {self!r}")
            try:
                yield
            except BaseException as exc:
                # Kept from the task group, which would raise it in a group.
                leaving = exc
            # A cancellation must not take its place.
            tasks.cancel_scope.shield = True
            tasks.cancel_scope.cancel()
        if leaving is not None:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving

    # For producers

    async def create(
        self, run_id: str, epoch: str, terms: Terms, notify: Callable[[Requests], object]
    ) -> Requests:
        """See :meth:`RunLog.create`."""
        now = anyio.current_time()
        run = self._find(run_id)
        if run is not None:
            return run.create_again(run_id, epoch, now)
        if not self._make_room(OVERHEAD + len(terms.data)):
            raise LogFull("the log has no room for another run: start it later")
        self._look_around()
        run = self._runs[run_id] = KeptRun(epoch, terms, notify, lease=self.lease, now=now)
        self._count(run, OVERHEAD + len(terms.data))
        run.cancel = self._early.take(run_id, terms.owner)
        return run.requests(now)

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
        """See :meth:`RunLog.append`."""
        run = self._writable(run_id, epoch, acknowledged)
        if run is None:
            return _FENCED
        new = run.new_entries(position, entries)
        size = sum(map(len, new)) + OVERHEAD * len(new)
        if self._bytes + size > self._max_bytes and not self._make_room(
            size - run.size_before(first)
        ):
            raise LogFull("the log has no room for more items: give it more max_bytes")
        run.entries += new
        run.last += len(new)
        if head is not None:
            run.head = head
        if first > run.first:
            size -= run.drop(first)
        self._count(run, size)
        run.change()
        if run.watches:
            await run.let_read()
        if self.lease == math.inf and run.terms.unwatched is None:
            # What happens for nearly every item.
            return run.plain_requests
        return run.renew(anyio.current_time())

    async def renew(self, run_id: str, epoch: str, *, acknowledged: int = 0) -> Requests:
        """See :meth:`RunLog.renew`."""
        run = self._writable(run_id, epoch, acknowledged)
        return _FENCED if run is None else run.renew(anyio.current_time())

    async def end(self, run_id: str, epoch: str, outcome: bytes, *, acknowledged: int = 0) -> bool:
        """See :meth:`RunLog.end`."""
        run = self._writable(run_id, epoch, acknowledged)
        if run is None:
            return False
        self._end(run_id, run, outcome)
        return True

    # For readers

    async def get(self, run_id: str) -> Record:
        """See :meth:`RunLog.get`."""
        return self._known(run_id).record(anyio.current_time())

    async def read(self, run_id: str, after: int, limit: int = PAGE) -> Page:
        """See :meth:`RunLog.read`."""
        run = self._runs.get(run_id)
        if run is None or run.outcome is not None:
            run = self._known(run_id)
            # Its place in the agenda is put right when its turn comes.
            run.keep_read(anyio.current_time())
        lapsed = self.lease < math.inf and run.has_lapsed(anyio.current_time())
        place = after, limit, lapsed
        if run.place != place:
            # Many readers are at the same place: they get the same page.
            start = run.dropped + after + 1 - run.first
            entries = run.entries[start : start + limit] if start >= run.dropped else []
            run.last_page = run.page(entries, lapsed=lapsed)
            run.place = place
        return run.last_page

    def watch(self, run_id: str) -> AbstractAsyncContextManager[Watch]:
        """See :meth:`RunLog.watch`."""
        # The end of a lease is not a change: it must be looked for.
        patience = math.inf if self.lease == math.inf else self.reconcile
        return KeptWatch(partial(self._known, run_id), patience)

    async def touch(self, run_id: str, epoch: str) -> None:
        """See :meth:`RunLog.touch`."""
        run = self._writable(run_id, epoch)
        if run is not None:
            run.watched_at = anyio.current_time()

    # For everybody

    async def request_cancel(
        self,
        run_id: str,
        reason: bytes,
        *,
        owner: str | None = None,
        epoch: str | None = None,
        unwatched_for: float | None = None,
    ) -> Literal["running", "ended", "unknown"]:
        """See :meth:`RunLog.request_cancel`."""
        now = anyio.current_time()
        run = self._find(run_id)
        if run is None and epoch is None:
            self._early.remember(run_id, reason, owner)
            return "unknown"
        if run is None:
            return "ended"
        before = run.cancel
        found = run.request_cancel(run_id, reason, now, owner, epoch, unwatched_for)
        if run.cancel is not before:
            run.notify(run.requests(now))
        return found

    async def bury(
        self, run_id: str, epoch: str, outcome: bytes
    ) -> Literal["alive", "doubted", "buried", "gone"]:
        """See :meth:`RunLog.bury`."""
        run = self._writable(run_id, epoch)
        if run is None:
            return "gone"
        found = run.doubt(anyio.current_time())
        if found != "dead":
            return found
        notify = run.notify
        self._end(run_id, run, outcome)
        notify(_FENCED)
        return "buried"

    async def delete(self, run_id: str, epoch: str) -> None:
        """See :meth:`RunLog.delete`."""
        run = self._known(run_id)
        run.check_removable(run_id, epoch)
        self._remove(run_id, run)

    # What is kept

    def _find(self, run_id: str) -> KeptRun | None:
        run = self._runs.get(run_id)
        if run is not None and run.is_over(anyio.current_time()):
            self._remove(run_id, run)
            return None
        return run

    def _known(self, run_id: str) -> KeptRun:
        run = self._find(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    def _writable(self, run_id: str, epoch: str, acknowledged: int = 0) -> KeptRun | None:
        run = self._runs.get(run_id)
        return run if run is not None and run.is_writable(epoch, acknowledged) else None

    def _count(self, run: KeptRun, size: int) -> None:
        run.size += size
        self._bytes += size

    def _make_room(self, size: int) -> bool:
        """Remove the runs that ended first, if that makes room for this many bytes."""
        missing = self._bytes + size - self._max_bytes
        if missing > self._ended_bytes:
            return False
        while self._bytes + size > self._max_bytes:
            self._remove(*next(iter(self._ended.items())))
        return True

    def _end(self, run_id: str, run: KeptRun, outcome: bytes) -> None:
        expires_at = run.end(outcome, anyio.current_time(), is_watched=run.watches > 0)
        run.notify = _nobody
        self._ended[run_id] = run
        self._ended_bytes += run.size
        self._agenda.add(expires_at, partial(self._expire, run_id, run.epoch))
        run.change()

    def _remove(self, run_id: str, run: KeptRun) -> None:
        del self._runs[run_id], self._ended[run_id]
        self._bytes -= run.size
        self._ended_bytes -= run.size
        run.change()

    def _expire(self, run_id: str, epoch: str, now: float) -> None:
        # By its epoch: a run that was removed before its time is not held until then.
        run = self._ended.get(run_id)
        if run is not None and run.epoch == epoch:
            assert run.expires_at is not None
            if run.expires_at <= now:
                self._remove(run_id, run)
            else:
                self._agenda.add(run.expires_at, partial(self._expire, run_id, epoch))

    def _look_around(self) -> None:
        if not self._has_looked_around:
            self._has_looked_around = True
            if has_siblings():
                _logger.warning(
                    "a MemoryLog keeps the runs of one process, and this seems to be one of "
                    "several workers: clients that come back to another find nothing. Run one "
                    "worker, or give Runs() a log that all of them share"
                )


def _nobody(requests: Requests) -> None:
    """Take the place of a producer that has gone, and ignore requests."""
