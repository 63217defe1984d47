"""
Runs: streams that outlive their request. What a run yields is kept in a log, and any number of
readers attach to it, at any position, while it goes on and when it has ended.

:class:`Runs` is what a program uses. Its parts have a private module each: a producer is one run in
this process, a reader the source of one attached stream, and the attendance tells the log who is
here. Where runs are kept is up to a log: :class:`MemoryLog`, or anything else that follows
:class:`RunLog`, which the suite in :mod:`streamkit.testing` tests.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio.abc import TaskGroup

from ._core.arguments import seconds
from ._core.exceptions import bare, both, error_in
from ._core.public import name_publicly
from ._core.source import AsyncSource
from ._core.stream import Stream
from ._http.host import StreamHost
from ._http.termination import Termination
from ._runs.arguments import Defaults, check_text
from ._runs.attendance import Attendance
from ._runs.codec import to_json
from ._runs.cursor import parse
from ._runs.entry import Entry as Entry
from ._runs.errors import (
    CursorMismatch as CursorMismatch,
    Gap as Gap,
    LogFull as LogFull,
    LogUnavailable as LogUnavailable,
    RunCancelled as RunCancelled,
    RunEnded as RunEnded,
    RunExists as RunExists,
    RunFailed as RunFailed,
    RunLost as RunLost,
    RunNotFound as RunNotFound,
    RunRunning as RunRunning,
    RunsClosed as RunsClosed,
    RunTimedOut as RunTimedOut,
    UnknownVersion as UnknownVersion,
)
from ._runs.info import (
    RunInfo as RunInfo,
    RunOutcome as RunOutcome,
)
from ._runs.log import (
    Page as Page,
    Record as Record,
    Requests as Requests,
    RunLog as RunLog,
    Terms as Terms,
    Watch as Watch,
)
from ._runs.memory import MemoryLog as MemoryLog
from ._runs.options import OnEnd
from ._runs.producer import Producer, running
from ._runs.readable import Shelf
from ._runs.reader import attached
from ._runs.reasons import (
    MAX_REASON as MAX_REASON,
    Fenced as Fenced,
    LogLost as LogLost,
    Shutdown,
    Unwatched as Unwatched,
    check_reason,
    decode_reason,
    encode_outcome,
    encode_reason,
)
from ._runs.records import check_owner, info_of
from ._signals.token import CancelToken

__all__ = [
    "MAX_REASON",
    "CursorMismatch",
    "Entry",
    "Fenced",
    "Gap",
    "LogFull",
    "LogLost",
    "LogUnavailable",
    "MemoryLog",
    "Page",
    "Record",
    "Requests",
    "RunCancelled",
    "RunEnded",
    "RunExists",
    "RunFailed",
    "RunInfo",
    "RunLog",
    "RunLost",
    "RunNotFound",
    "RunOutcome",
    "RunRunning",
    "RunStats",
    "RunTimedOut",
    "Runs",
    "RunsClosed",
    "Terms",
    "UnknownVersion",
    "Unwatched",
    "Watch",
]

_logger = logging.getLogger("streamkit")

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStats:
    """What goes on in one :class:`Runs`."""

    #: Runs that go on here.
    running: int
    #: Streams that are attached here, to runs of any process.
    readers: int
    #: Items of these runs that are on their way to the log.
    held: int


class Runs(Shelf):
    """
    Streams that go on in the background while clients come, go and come back.

    An async context manager for the lifespan of a program: what is started lives in it, whoever has
    started it. When the block ends, runs may go on for ``finish`` seconds, and are then told
    ``StreamCancelled(Shutdown())``; the block ends when all of them have ended, which their grace
    bounds. It belongs to the event loop in which it was entered, and may be entered again after it
    was left.

    Whoever knows the id of a run may read and cancel it, unless it was started with an ``owner``.
    The ids that are made cannot be guessed.

    As a :class:`~streamkit.asgi.StreamHost` does, it notices by itself that the server of this
    process is asked to end, once a :class:`~streamkit.sse.RunEvents` was asked for: readers of runs
    that go on elsewhere are then sent away, for they can read on there, and those of runs that are
    here get everything up to the end.

    :param log: where runs are kept; a :class:`MemoryLog` if there is none
    :param host: whose notice of a shutdown and whose ``finish`` hold for runs, too. It is entered
        first
    :param keep: seconds for which a run is kept after its end
    :param finish: seconds that runs may go on when the program is asked to end
    :param grace: seconds that a source has to clean up, once it was told to stop
    :param on_end_timeout: seconds after which ``on_end`` is cancelled, which fails the run
    :param max_items: entries that are kept of a run
    :param max_bytes: bytes that are kept of a run, and the most that one item may have
    :param max_runs: runs that may go on here at once, or ``None``
    :param when_full: what happens when a run has more than is kept of it. With ``"trim"`` its
        oldest entries go. With ``"end"`` its source is told ``LogFull()``; up to 100 items that it
        still says are kept
    :param unwatched: seconds after which a run that nobody has been attached to, in any process, is
        told ``Unwatched()``; ``None`` if it is to go on whoever leaves. At least twice the log's
        ``reconcile``
    :param on_lost: an async callable that takes a :class:`RunInfo`, called where a run is found
        whose process has died: once at most, in one process, and only if anybody asks for the run
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a number is out of its range

    """

    def __init__(
        self,
        log: RunLog | None = None,
        *,
        host: StreamHost | None = None,
        keep: float = 600.0,
        finish: float = 0.0,
        grace: float = 5.0,
        on_end_timeout: float = 5.0,
        max_items: int = 10_000,
        max_bytes: int = 16 * _MEBIBYTE,
        max_runs: int | None = None,
        when_full: Literal["trim", "end"] = "trim",
        unwatched: float | None = None,
        on_lost: Callable[[RunInfo], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__()
        _check_host(host, finish)
        self._log: RunLog = MemoryLog() if log is None else log
        self.host: StreamHost | None = host
        self._defaults = Defaults(
            self._log,
            keep=keep,
            grace=grace,
            on_end_timeout=on_end_timeout,
            max_items=max_items,
            max_bytes=max_bytes,
            when_full=when_full,
            unwatched=unwatched,
        )
        self._finish = seconds("finish", finish)
        self._grace = self._defaults.options.grace
        self._max_runs = self._defaults.limit("max_runs", max_runs)
        self._on_lost = on_lost
        self._state: Literal["closed", "open", "closing"] = "closed"
        #: Those that are in a task here, also before the log has them.
        self._producers: set[Producer] = set()
        #: Those that the log has.
        self._own: dict[str, Producer] = {}
        self._tasks: TaskGroup
        self._stack: AsyncExitStack
        self._attendance: Attendance
        self._notice = CancelToken()
        self._empty: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._log!r}, {self._state}, {len(self._own)} go on>"

    async def __aenter__(self) -> Self:
        """
        Open the log, and what runs live in.

        :raises RuntimeError: if the block is open already

        """
        if self._state != "closed":
            raise RuntimeError(f"{self!r} is entered once at a time: make another one")
        self._state = "closing"
        self._notice, self._empty = CancelToken(), None
        self._attendance = Attendance(self._log, self._bury, self._is_own)
        self._termination = None if self.host is not None else Termination()
        try:
            async with AsyncExitStack() as stack:
                if self.host is not None:
                    self._finish = self.host.join(self)
                    stack.callback(self.host.part, self)
                await stack.enter_async_context(self._log.open())
                self._tasks = await stack.enter_async_context(anyio.create_task_group())
                self._stack = stack.pop_all()
        except BaseException:
            self._state = "closed"
            raise
        self._tasks.start_soon(self._attendance.run, name=f"attendance of {self!r}")
        self._tasks.start_soon(self._tell_at_notice, name=f"notice of {self!r}")
        if self._termination is not None:
            self._tasks.start_soon(self._watch, self._termination, name=f"watcher of {self!r}")
        self._state = "open"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Shut down, and wait until every run has ended.

        Each has what is left of ``finish``, its grace, and the time of its ``on_end``. If this wait
        is cancelled, they are told at once. Attached streams then have ``grace`` seconds to read
        what is there; those that wait for a run of another process get :exc:`RunsClosed`.
        """
        self._state = "closing"
        self.shut_down()
        leaving: BaseException | None = exc
        try:
            await self._until_empty()
        except BaseException as interrupted:
            leaving = both(error_in(exc), interrupted)
        self._tell_all()
        try:
            # By now they are ending, which is bounded.
            with anyio.CancelScope(shield=True):
                await self._until_empty()
                await self._attendance.close(self._grace)
        except BaseException as interrupted:
            # By Task.cancel(), which comes through the shield. They are waited for below.
            leaving = both(error_in(leaving), interrupted)
        self._tasks.cancel_scope.shield = True
        self._tasks.cancel_scope.cancel()
        try:
            # The body's exception is not the business of the task group: it would come back in a
            # group.
            await self._stack.__aexit__(None, None, None)
        except BaseException as raised:
            leaving = both(error_in(leaving), bare(raised))
        self._state = "closed"
        if leaving is not None and leaving is not exc:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving, exc, traceback, self

    def shut_down(self) -> None:
        """
        Say that the program is to end: no run is started any more, and those that go on are told
        ``Shutdown()`` in ``finish`` seconds.

        Does not block, and does nothing the second time, or where the block is not open. May be
        called from any thread and from a signal handler.
        """
        self._notice.cancel(Shutdown())

    @property
    def is_shut_down(self) -> bool:
        """Whether the program is to end."""
        return self._notice.cancelled

    def notice(self) -> None:
        """Called by the host when the program is to end."""
        self.shut_down()

    def tell(self) -> None:
        """Called by the host when the time to finish is over."""
        self._tell_all()

    def check_open(self) -> None:
        """
        See that the block was entered.

        :raises RuntimeError: if it was not

        """
        if self._state == "closed":
            raise self._not_entered()

    async def start(
        self,
        source: AsyncSource[Any],
        *,
        id: str | None = None,
        owner: str | None = None,
        data: object = None,
        on_end: OnEnd | None = None,
        keep: float | None = None,
        grace: float | None = None,
        on_end_timeout: float | None = None,
        max_items: int | None = None,
        max_bytes: int | None = None,
        when_full: Literal["trim", "end"] | None = None,
        unwatched: float | None = None,
    ) -> RunInfo:
        """
        Start a run.

        Its source is stepped in a task of this object, in the context of the call, as that of any
        stream; what it yields goes to the log as it is made, whether or not anybody reads. It
        outlives the request that started it: what that opened, a session of a database for
        instance, is closed by then, so the source opens its own.

        All or nothing: when this raises, also because it was cancelled, there is no run, and the
        source is closed or being closed.

        At the end, in this order: the source is closed, all items are in the log, ``on_end`` is
        awaited, the end can be read.

        :param source: an async iterable, an async context manager that yields one, or a stream. It
            may yield a :class:`~streamkit.Head` first. Owned and closed by the run
        :param id: a name for the run, in place of one that cannot be guessed
        :param owner: who alone may read and cancel it
        :param data: kept with the run, and found in its :class:`RunInfo`: anything that JSON can
            say
        :param on_end: called with the :class:`~streamkit.Outcome` and the :class:`RunInfo` and
            awaited, before the end can be read. What it raises is logged, and fails the run
        :param keep: as in :class:`Runs`, like all that follow
        :param unwatched: ``math.inf`` for a run that is to go on whoever leaves
        :return: what is known of the run
        :raises RunExists: if there is a run of this id, in any process
        :raises RunsClosed: if the program is to end
        :raises LogFull: if the log has no room, or ``max_runs`` go on here
        :raises LogUnavailable: if the log could not be reached
        :raises TypeError: if the source is none, or an argument is of the wrong type
        :raises ValueError: if a number is out of its range, or ``data`` is no JSON
        :raises RuntimeError: if the block was not entered

        """
        options = self._defaults.replaced(
            keep=keep,
            grace=grace,
            on_end_timeout=on_end_timeout,
            max_items=max_items,
            max_bytes=max_bytes,
            when_full=when_full,
            unwatched=unwatched,
        )
        run_id = secrets.token_hex(16) if id is None else check_text("id", id)
        terms = Terms(
            owner=None if owner is None else check_text("owner", owner),
            data=to_json(data),
            keep=options.keep,
            unwatched=options.unwatched,
            started_at=time.time(),
        )
        if on_end is not None and not callable(on_end):
            raise TypeError(
                f"on_end must be callable, got {type(on_end).__qualname__}: write 'async def "
                "on_end(outcome, info): ...'"
            )
        if self._state == "closed":
            raise self._not_entered()
        epoch = secrets.token_hex(8)
        producer = Producer(run_id, epoch, source, terms, options, on_end, self._log)
        refusal = self._refusal()
        if refusal is not None:
            await producer.discard()
            raise refusal
        self._producers.add(producer)
        self._tasks.start_soon(self._run, producer, name=f"run {run_id}")
        await producer.created()
        if producer.lease.needs_keeping:
            self._tasks.start_soon(producer.lease.keep_up, name=f"lease of run {run_id}")
        if producer.is_cancelled:
            # Before it began. It never does, and ends at once: nothing but on_end is waited for.
            with anyio.CancelScope(shield=True):
                await producer.gone.wait()
        return producer.info()

    def attach(
        self, run_id: str, *, owner: str | None = None, after: int | str | None = None
    ) -> Stream[Entry[Any]]:
        """
        Return a stream of the entries of a run: those that are kept, then those that come.

        A stream like any other: enter it, iterate it, put combinators on it. To leave it never
        stops the run. It ends as the run did: the iteration ends if the run has completed, and else
        raises
        :exc:`RunEnded`, as :exc:`RunCancelled`, :exc:`RunTimedOut`, :exc:`RunFailed` or
        :exc:`RunLost`. A :exc:`~streamkit.StreamCancelled` that comes out of it is the reader's
        own.

        However many readers there are, none waits for another, and the run waits for none. Up to 64
        entries are read ahead, from the log; the source of the run does not notice. When a run has
        ended, what is read of it is kept for another minute at least.

        :param run_id: the id
        :param owner: who reads. If it is not the one that the run was started with, there is no
            such run
        :param after: where to begin. ``None``: with the first entry that is kept, and its position
            tells what is missing. A cursor, or a position: exactly after that. ``"now"``: with what
            comes next
        :return: a stream, which counts as a reader from its first ask on. It raises there
            :exc:`RunNotFound` if there is no such run, and :exc:`CursorMismatch` if ``after`` is
            none of its entries; and at any ask :exc:`Gap` if what comes next is kept no more,
            :exc:`LogUnavailable` if the log cannot be reached, and :exc:`RunsClosed` if this object
            is left while the run goes on elsewhere
        :raises TypeError: if an argument is of the wrong type
        :raises ValueError: if ``after`` is no cursor
        :raises RuntimeError: if the block was not entered

        """
        cursor = parse(after)
        check_text("run_id", run_id)
        self.check_open()
        return attached(self._log, self._attendance, run_id, owner, cursor)

    async def cancel(
        self,
        run_id: str,
        reason: object = None,
        *,
        owner: str | None = None,
        epoch: str | None = None,
    ) -> bool:
        """
        Tell a run to stop, in whichever process it is.

        Its source is told :exc:`~streamkit.StreamCancelled` and has its grace, and last items are
        kept. If there is no run of this id, that is remembered for 30 seconds: a run that is
        started meanwhile ends at once, its source unstarted.

        :param run_id: the id
        :param reason: why: text of up to :data:`MAX_REASON` bytes, or one of streamkit's own
            reasons. Of anything else, the run and its readers are told the name of its class
        :param owner: who asks
        :param epoch: the run that is meant, where an id may be used again
        :return: ``False`` if the run has ended, and nothing was changed; ``True`` if it was told,
            or will be
        :raises RunNotFound: if the run has another owner
        :raises LogUnavailable: if the log could not be reached
        :raises ValueError: if the reason is too long
        :raises RuntimeError: if the block was not entered

        """
        return await self._cancel(run_id, reason, owner, epoch) != "ended"

    async def cancel_and_wait(
        self,
        run_id: str,
        reason: object = None,
        *,
        owner: str | None = None,
        epoch: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  as in CancelRegistry
    ) -> bool:
        """
        Tell a run to stop, and wait until it has: its source is closed, ``on_end`` is done, and the
        end can be read.

        If this wait is cancelled, the run is told all the same.

        :param timeout: seconds to wait at most, or ``None`` for no limit
        :return: ``True`` if it has ended; ``False`` if the time was up before, or if there is no
            such run: then the cancellation is remembered, as by :meth:`cancel`
        :raises RunNotFound: if the run has another owner
        :raises LogUnavailable: if the log could not be reached
        :raises RuntimeError: if it is the run itself that calls this, which would wait for ever

        """
        if timeout is not None:
            seconds("timeout", timeout)
        own = running.get()
        if own is not None and own.run_id == run_id and self._own.get(run_id) is own:
            raise RuntimeError(
                f"the run {run_id!r} cannot wait for its own end: end it with 'return', or let "
                "another task cancel it"
            )
        found = await self._cancel(run_id, reason, owner, epoch)
        if found != "running":
            return found == "ended"
        with anyio.move_on_after(timeout):
            await self._until_ended(run_id, epoch)
            return True
        return False

    async def get(self, run_id: str, *, owner: str | None = None) -> RunInfo:
        """
        Return what is known of a run.

        :raises RunNotFound: if there is none, or it has another owner
        :raises LogUnavailable: if the log could not be reached

        """
        record = await self._get(run_id, owner)
        if record.lapsed:
            self._attendance.suspect(run_id, record.epoch)
        return info_of(run_id, record)

    async def delete(self, run_id: str, *, owner: str | None = None) -> None:
        """
        Remove a run that has ended. Its id may be used again.

        :raises RunNotFound: if there is none, or it has another owner
        :raises RunRunning: if it goes on
        :raises LogUnavailable: if the log could not be reached

        """
        record = await self._get(run_id, owner)
        await self._log.delete(run_id, record.epoch)

    def stats(self) -> RunStats:
        """Return what goes on here."""
        return RunStats(
            running=len(self._own),
            readers=0 if self._state == "closed" else len(self._attendance),
            held=sum(producer.held for producer in self._own.values()),
        )

    async def _get(self, run_id: str, owner: str | None) -> Record:
        check_text("run_id", run_id)
        if self._state == "closed":
            raise self._not_entered()
        record = await self._log.get(run_id)
        check_owner(run_id, record, owner)
        return record

    async def _cancel(
        self, run_id: str, reason: object, owner: str | None, epoch: str | None
    ) -> Literal["running", "ended", "unknown"]:
        check_text("run_id", run_id)
        check_reason(reason)
        if self._state == "closed":
            raise self._not_entered()
        data = encode_reason(reason)
        found = await self._log.request_cancel(run_id, data, owner=owner, epoch=epoch)
        producer = self._own.get(run_id)
        if found == "running" and producer is not None and epoch in (None, producer.epoch):
            # It hears of it from the log, too, in a moment.
            producer.cancel(decode_reason(data))
        return found

    async def _until_ended(self, run_id: str, epoch: str | None) -> None:
        try:
            async with self._log.watch(run_id) as watch:
                while True:
                    record = await self._log.get(run_id)
                    epoch = record.epoch if epoch is None else epoch
                    if record.outcome is not None or record.epoch != epoch:
                        return
                    if record.lapsed:
                        self._attendance.suspect(run_id, epoch)
                    await watch.wait()
        except RunNotFound:
            # It has ended, and was removed.
            return

    # What lives here

    async def _run(self, producer: Producer) -> None:
        try:
            await producer.run(partial(self._own.__setitem__, producer.run_id, producer))
        finally:
            self._producers.discard(producer)
            if self._own.get(producer.run_id) is producer:
                del self._own[producer.run_id]
            if not self._producers and self._empty is not None:
                self._empty.set()

    def _refusal(self) -> Exception | None:
        if self._state != "open" or self._notice.cancelled:
            return RunsClosed()
        if self._max_runs is not None and len(self._producers) >= self._max_runs:
            return LogFull(f"max_runs={self._max_runs} runs go on here: start another one later")
        return None

    def _not_entered(self) -> RuntimeError:
        return RuntimeError(
            f"{self!r} was not entered: write 'async with runs:' in the lifespan of the application"
        )

    async def _tell_at_notice(self) -> None:
        await self._notice.wait()
        self._attendance.send_strangers_away()
        await anyio.sleep(self._finish)
        self._tell_all()

    def _tell_all(self) -> None:
        for producer in tuple(self._producers):
            producer.cancel(Shutdown())

    async def _watch(self, termination: Termination) -> None:
        await termination.wait()
        self.shut_down()

    async def _until_empty(self) -> None:
        if self._producers:
            self._empty = anyio.Event()
            await self._empty.wait()

    def _is_own(self, run_id: str, epoch: str) -> bool:
        producer = self._own.get(run_id)
        return producer is not None and producer.epoch == epoch

    async def _bury(self, run_id: str, epoch: str) -> bool:
        """Look whether a run is dead, and bury it. Returns whether to look again."""
        outcome = encode_outcome(RunOutcome(kind="lost", ended_at=time.time()))
        try:
            found = await self._log.bury(run_id, epoch, outcome)
            if found != "buried":
                return found == "doubted"
            _logger.warning("the run %r was lost: its process has died, or was cut off", run_id)
            if self._on_lost is not None:
                info = info_of(run_id, await self._log.get(run_id))
                with anyio.fail_after(self._defaults.options.on_end_timeout):
                    await self._on_lost(info)
        except LogUnavailable:
            return True
        except Exception:
            _logger.exception("a run that was lost could not be seen to: %r", run_id)
        return False


def _check_host(given: object, finish: float) -> None:
    if given is None:
        return
    if not isinstance(given, StreamHost):
        raise TypeError(
            f"host must be a StreamHost, got {type(given).__qualname__}: write 'async with "
            "StreamHost() as host, Runs(host=host) as runs:' in the lifespan of the application"
        )
    if finish:
        raise ValueError(
            "the time to finish is that of the host: write StreamHost(finish=...), and none here"
        )


name_publicly(globals())
