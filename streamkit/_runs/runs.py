"""
``Runs``: a program starts runs with it, and stops them.

Its parts have a module each: the household is the block that runs live in, the shelf is where they
are read; a producer is one run in this process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from .._core.arguments import seconds
from .._core.source import AsyncSource
from .._core.telemetry import Telemetry, check_telemetry
from .._http.host import StreamHost
from .arguments import Defaults, check_text
from .burial import Burial
from .codec import to_json
from .info import RunInfo
from .log import RunLog, Terms
from .memory import MemoryLog
from .options import OnEnd
from .producer import Producer, running
from .reasons import check_reason, decode_reason, encode_reason
from .records import info_of
from .shelf import Shelf

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStats:
    """What is going on in one :class:`Runs`."""

    #: Runs that go on here.
    running: int
    #: Streams that are attached here, to runs of any process.
    readers: int
    #: Items of these runs that are on their way to the log.
    held: int


class Runs(Shelf):
    """
    Streams that go on in the background while clients come, go and come back.

    An async context manager for the lifespan of a program: all of its runs live in the block,
    whichever request has started them. At the end of the block, runs may go on for ``finish``
    seconds, and are then told ``StreamCancelled(Shutdown())``; the block is left when all of them
    have ended, which their grace bounds. The object belongs to the event loop in which it was
    entered, and may be entered again after it was left.

    Anyone who knows the id of a run may read and cancel it, unless it was started with an
    ``owner``. Generated ids cannot be guessed.

    Like a :class:`~streamkit.asgi.StreamHost`, it notices by itself that the server of this process
    is asked to end, once a :class:`~streamkit.sse.RunEvents` was requested: readers of runs that
    go on elsewhere are then sent away, because they can read on there, and readers of runs that are
    here get everything up to the end.

    :param log: where runs are kept; a :class:`MemoryLog` if there is none
    :param host: its notice of a shutdown and its ``finish`` hold for runs, too. It is entered
        first
    :param keep: seconds for which a run is kept after its end
    :param finish: seconds that runs may go on when the program is asked to end
    :param grace: seconds that a source has to clean up, once it was told to stop
    :param on_end_timeout: seconds after which ``on_end`` is cancelled, which fails the run
    :param max_items: the most entries that are kept of a run
    :param max_bytes: the most bytes that are kept of a run, and in one item
    :param max_runs: the most runs that may go on here at once, or ``None``
    :param when_full: what happens when a run has more than is kept of it. With ``"trim"``, its
        oldest entries are dropped. With ``"end"``, its source is told ``LogFull()``; up to 100
        items that it still yields are kept
    :param unwatched: seconds after which a run to which nobody was attached, in any process, is
        told ``Unwatched()``; ``None`` to let it go on whoever leaves. At least twice the log's
        ``reconcile``
    :param on_lost: an async callable that takes a :class:`RunInfo`, called when a run is found
        whose process has died: at most once, in one process, and only if anybody asks for the run
    :param telemetry: receives how runs go:
        :class:`streamkit.opentelemetry.OpenTelemetry`, for instance
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
        telemetry: Telemetry | None = None,
    ) -> None:
        check_telemetry(telemetry)
        told = None if telemetry is None else telemetry.hooks.runs(self._count_held)
        log = MemoryLog() if log is None else log
        self._defaults = Defaults(
            log,
            keep=keep,
            grace=grace,
            on_end_timeout=on_end_timeout,
            max_items=max_items,
            max_bytes=max_bytes,
            when_full=when_full,
            unwatched=unwatched,
        )
        options = self._defaults.options
        super().__init__(
            log,
            host,
            seconds("finish", finish),
            options.grace,
            self._defaults.limit("max_runs", max_runs),
            Burial(log, on_lost, options.on_end_timeout, told),
            told,
        )

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

        Its source is stepped in a task of this object, in the context of the call, like that of
        any stream; its items go to the log as they are made, whether or not anybody reads. The run
        outlives the request that started it. What that request opened, such as a database session,
        is closed by then, so the source must open its own.

        All or nothing: when this raises, even because it was cancelled, there is no run, and the
        source is closed or being closed.

        At the end, in this order: the source is closed, all items are in the log, ``on_end`` is
        awaited, the end can be read.

        :param source: an async iterable, an async context manager that yields one, or a stream. It
            may yield a :class:`~streamkit.Head` first. Owned and closed by the run
        :param id: a name for the run, instead of one that cannot be guessed
        :param owner: who alone may read and cancel it
        :param data: kept with the run, and found in its :class:`RunInfo`: anything with a JSON
            form
        :param on_end: called with the :class:`~streamkit.Outcome` and the :class:`RunInfo` and
            awaited, before the end can be read. What it raises is logged, and fails the run
        :param keep: as in :class:`Runs`, like all that follow
        :param unwatched: ``math.inf`` to let it go on whoever leaves
        :return: what is known of the run
        :raises RunExists: if there is a run of this id, in any process
        :raises RunsClosed: if the program ends
        :raises LogFull: if the log has no room, or ``max_runs`` go on here
        :raises LogUnavailable: if the log could not be reached
        :raises TypeError: if ``source`` is not a source, or an argument is of the wrong type
        :raises ValueError: if a number is out of its range, or ``data`` is not JSON
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
            data=to_json(data, is_data=True),
            keep=options.keep,
            unwatched=options.unwatched,
            started_at=time.time(),
        )
        if on_end is not None and not callable(on_end):
            raise TypeError(
                f"on_end must be callable, got {type(on_end).__qualname__}: write 'async def "
                "on_end(outcome, info): ...'"
            )
        self.check_open()
        epoch = secrets.token_hex(8)
        producer = Producer(run_id, epoch, source, terms, options, on_end, self._log, self._told)
        await self._admit(producer)
        return producer.info()

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

        Its source is told :exc:`~streamkit.StreamCancelled` and has its grace, and its last items
        are kept. If there is no run of this id, the call is remembered for 30 seconds: a run that
        is started meanwhile ends at once, its source unstarted.

        :param run_id: the id
        :param reason: why: text of up to :data:`MAX_REASON` bytes, or one of streamkit's own
            reasons. For anything else, the run and its readers are told the name of its class
        :param owner: who asks
        :param epoch: the run that is meant, if an id may be used again
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
        Tell a run to stop, and wait until it has ended: its source is closed, ``on_end`` is done,
        and the end can be read.

        If this wait is cancelled, the run is still told.

        :param timeout: seconds to wait at most, or ``None`` for no limit
        :return: ``True`` if it has ended; ``False`` if the time was up before, or if there is no
            such run: then the cancellation is remembered, as by :meth:`cancel`
        :raises RunNotFound: if the run has another owner
        :raises LogUnavailable: if the log could not be reached
        :raises ValueError: if the reason is too long, or the timeout is negative or not finite
        :raises RuntimeError: if the block was not entered, or the run itself calls this, which
            would wait for ever

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
        """Return what is going on here."""
        return RunStats(
            running=len(self._own),
            readers=0 if self._state == "closed" else len(self._attendance),
            held=self._count_held(),
        )

    def _count_held(self) -> int:
        # Of a copy: another thread may ask, while runs come and go.
        return sum(producer.held for producer in tuple(self._own.values()))

    async def _cancel(
        self, run_id: str, reason: object, owner: str | None, epoch: str | None
    ) -> Literal["running", "ended", "unknown"]:
        check_text("run_id", run_id)
        check_reason(reason)
        self.check_open()
        data = encode_reason(reason)
        found = await self._log.request_cancel(run_id, data, owner=owner, epoch=epoch)
        producer = self._own.get(run_id)
        if found == "running" and producer is not None and epoch in (None, producer.epoch):
            # The log tells it, too, in a moment.
            producer.cancel(decode_reason(data))
        return found
