"""``SQLiteLog``: runs that are kept in a file, for all processes of one machine."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Literal

from anyio.lowlevel import RunVar

from .._core.arguments import positive, seconds
from .._runs.log import PAGE, Page, Record, Requests, Terms, Watch
from . import writing
from .clock import Clock
from .session import Session
from .transaction import Transaction
from .worker import Worker

# For how many times ``reconcile`` a run counts as followed after another process has read it.
_FOLLOW = 3


class SQLiteLog:
    """
    Keeps runs in a file, which several processes of one machine may use at once. There is nothing
    to install, and runs that have ended survive a restart.

    A run does not survive its process: it is lost, and its next reader finds that out. When the log
    is opened, it makes the file and two beside it, whose names end in ``-wal`` and ``-shm``, and
    starts one thread, which ends when the log is left. None of that happens earlier, so the object
    may be made at import, before a fork. It may be used in several event loops, each with a thread
    of its own.

    :param path: the path of the file, in an existing directory, on a local disk
    :param max_bytes: the bytes of all entries together, with about 32 bytes more for each entry and
        512 for each run. When it is reached, the run that ended first is dropped. If no run has
        ended, nothing more is accepted, and the source is told :exc:`~streamkit.runs.LogFull`
    :param lease: seconds after which a run whose producer has given no sign of life counts as lost.
        After five more seconds, a process that reads the run buries it
    :param outage: seconds for which a call waits for a file that is locked or cannot be written,
        before it raises :exc:`~streamkit.runs.LogUnavailable`
    :param max_held: items of a run that may be on their way to the file
    :param reconcile: seconds after which a reader looks by itself, and reports that it is there
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a number is out of its range, or there is no path

    """

    # For tests, which have a clock of their own.
    _worker: type[Worker] = Worker
    _clock: type[Clock] = Clock

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 1024 * 1024 * 1024,
        lease: float = 15.0,
        outage: float = 30.0,
        max_held: int = 64,
        reconcile: float = 1.0,
    ) -> None:
        self._path = _checked(path)
        self._max_bytes = positive("max_bytes", max_bytes)
        self.lease: float = seconds("lease", lease, positive=True)
        self.reconcile: float = seconds("reconcile", reconcile, positive=True)
        self.outage: float = seconds("outage", outage, positive=True)
        self.max_held: int = positive("max_held", max_held)
        self._sessions: RunVar[Session] = RunVar("streamkit_sqlite")
        #: The sessions of all event loops.
        self._open: set[Session] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._path}>"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """
        Open the file while the block is open, and make it if it does not exist. Opened by
        :class:`~streamkit.runs.Runs`.

        :raises FileNotFoundError: if its directory does not exist
        :raises PermissionError: if it cannot be written
        :raises ValueError: if it is not an SQLite database, or belongs to another program or a
            later release, or if there can be no write-ahead log
        :raises LogUnavailable: if it is locked, or the disk is full
        :raises RuntimeError: if the process was forked while it was open

        """
        self._check_process()
        session = self._sessions.get(None)
        if session is None:
            session = Session(
                self._path,
                self._clock(),
                max_bytes=self._max_bytes,
                follow=_FOLLOW * self.reconcile,
                outage=self.outage,
                worker=self._worker,
            )
            session.unset = partial(self._sessions.reset, self._sessions.set(session))
            self._open.add(session)
        session.users += 1
        try:
            await session.open()
            yield
        finally:
            session.users -= 1
            if not session.users:
                session.unset()
                self._open.discard(session)
                await session.close()

    # For producers

    async def create(
        self, run_id: str, epoch: str, terms: Terms, notify: Callable[[Requests], object]
    ) -> Requests:
        """See :meth:`~streamkit.runs.RunLog.create`."""
        session = self._session
        write = partial(_create, run_id=run_id, epoch=epoch, terms=terms, lease=self.lease)
        return await session.write(
            write,
            lambda requests: session.keep_told(run_id, epoch, notify),
            # The caller has gone, and nobody would know about the run.
            lambda tx: writing.undo(tx, run_id, epoch),
        )

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
        """See :meth:`~streamkit.runs.RunLog.append`."""

        def append(tx: Transaction) -> Requests:
            return writing.append(tx, run_id, epoch, position, entries, acknowledged, first, head)

        return await self._session.write(append)

    async def renew(self, run_id: str, epoch: str, *, acknowledged: int = 0) -> Requests:
        """See :meth:`~streamkit.runs.RunLog.renew`."""
        return await self._session.write(lambda tx: writing.renew(tx, run_id, epoch, acknowledged))

    async def end(self, run_id: str, epoch: str, outcome: bytes, *, acknowledged: int = 0) -> bool:
        """See :meth:`~streamkit.runs.RunLog.end`."""
        session = self._session
        return await session.write(
            lambda tx: writing.end(tx, run_id, epoch, outcome, acknowledged),
            lambda is_ended: session.forget(run_id, epoch),
        )

    # For readers

    async def get(self, run_id: str) -> Record:
        """See :meth:`~streamkit.runs.RunLog.get`."""
        return await self._session.read(lambda reading: reading.get(run_id))

    async def read(self, run_id: str, after: int, limit: int = PAGE) -> Page:
        """
        See :meth:`~streamkit.runs.RunLog.read`. Returns at most 256 KiB, or one larger entry.
        """
        session = self._session
        is_own = session.is_own(run_id)
        return await session.read(lambda reading: reading.read(run_id, after, limit, is_own=is_own))

    def watch(self, run_id: str) -> AbstractAsyncContextManager[Watch]:
        """See :meth:`~streamkit.runs.RunLog.watch`."""
        session = self._session
        session.wake()
        return session.hints.watch(run_id, self.reconcile)

    async def touch(self, run_id: str, epoch: str) -> None:
        """See :meth:`~streamkit.runs.RunLog.touch`."""
        await self._session.write(lambda tx: writing.touch(tx, run_id, epoch))

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
        """See :meth:`~streamkit.runs.RunLog.request_cancel`."""
        return await self._session.write(
            lambda tx: writing.request_cancel(tx, run_id, reason, owner, epoch, unwatched_for)
        )

    async def bury(
        self, run_id: str, epoch: str, outcome: bytes
    ) -> Literal["alive", "doubted", "buried", "gone"]:
        """See :meth:`~streamkit.runs.RunLog.bury`."""
        return await self._session.write(lambda tx: writing.bury(tx, run_id, epoch, outcome))

    async def delete(self, run_id: str, epoch: str) -> None:
        """See :meth:`~streamkit.runs.RunLog.delete`."""
        await self._session.write(lambda tx: writing.delete(tx, run_id, epoch))

    @property
    def _session(self) -> Session:
        self._check_process()
        session = self._sessions.get(None)
        if session is None:
            raise RuntimeError(
                f"{self!r} is not open in this event loop: write 'async with Runs(log) as runs:', "
                "or 'async with log.open():'"
            )
        return session

    def _check_process(self) -> None:
        # First of all: in the fork of an asyncio loop, there is no running loop to ask.
        for session in tuple(self._open):
            session.check_process()


def _create(tx: Transaction, run_id: str, epoch: str, terms: Terms, lease: float) -> Requests:
    return writing.create(tx, run_id, epoch, terms, lease)


def _checked(path: object) -> str:
    what = "write SQLiteLog('runs.db')"
    text: object = path if isinstance(path, str) else getattr(path, "__fspath__", lambda: path)()
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a Path, got {path!r}: {what}")
    if not text or "\0" in text:
        raise ValueError(f"path must be that of a file, got {text!r}: {what}")
    if text == ":memory:" or text.startswith("file:"):
        raise ValueError(
            f"path must be that of a file, got {text!r}: {what}, or keep runs in a MemoryLog"
        )
    # The process may change its directory.
    return os.path.abspath(text)
