"""
One run in the process in which it was started: an ordinary stream, whose consumer is the log.

The life of a producer, in one task, which nothing but the end of the program cancels::

    create ──▶ wait for start() ──▶ record ──▶ conclude ──▶ gone
       │              │            (the block   (renew, on_end, end)
    refused        given up        of the stream)
       └──────────────┴──▶ the source is closed unstarted

Its items are written in batches by a writer, which also obeys what the log replies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, cast

import anyio

from .._combinators.cancellation import with_cancellation
from .._combinators.status import StatusStream, with_status
from .._core.backend import error_of_stray
from .._core.exceptions import bare, is_backend_cancellation, is_failure
from .._core.outcome import Outcome
from .._core.scopes import leave_streams
from .._core.source import AsyncSource
from .._core.stream import with_stage
from .._core.telemetry import RunsTold, RunTold
from .._signals.token import CancelToken
from .errors import RunsClosed
from .info import RunInfo, RunOutcome, RunOutcomeKind
from .lease import Lease
from .log import RunLog, Terms
from .options import OnEnd, Options
from .reasons import Fenced, Shutdown, decode_outcome, encode_outcome
from .recorder import Recorder
from .records import data_of, noted
from .writer import Writer

_logger = logging.getLogger("streamkit")

#: The producer whose source, or ``on_end``, is running.
running: ContextVar[Producer | None] = ContextVar("streamkit_run", default=None)


class Producer:
    """
    One run, from its creation in the log to its end there.

    :param run_id: its id
    :param epoch: its random name
    :param source: what it yields is kept
    :param terms: what the log is told of it
    :param options: its other options
    :param on_end: called before the end can be read
    :param log: where it is kept
    :param telemetry: receives how it goes, or ``None``

    """

    def __init__(
        self,
        run_id: str,
        epoch: str,
        source: AsyncSource[Any],
        terms: Terms,
        options: Options,
        on_end: OnEnd | None,
        log: RunLog,
        telemetry: RunsTold | None = None,
    ) -> None:
        self.run_id: str = run_id
        self.epoch: str = epoch
        #: Set when the end can be read, or nothing more comes.
        self.gone: anyio.Event = anyio.Event()
        self._terms = terms
        self._options = options
        self._on_end = on_end
        self._log = log
        self._token = CancelToken()
        self._recorder = Recorder(options.max_bytes, log.max_held)
        self._writer = Writer(run_id, epoch, log, self._token, options)
        #: Its sign of life, with a task of its own if one is needed.
        self.lease: Lease = Lease(run_id, epoch, log, self._token, self._writer, options.unwatched)
        cancellable = with_cancellation(source, self._token, grace=options.grace)
        self._stream: StatusStream[bytes] = with_status(with_stage(cancellable, self._recorder))
        self._told: RunTold | None = (
            None if telemetry is None else telemetry.run(self._stream.source_name)
        )
        # Between start() and the task.
        self._created = anyio.Event()
        self._decided = anyio.Event()
        self._is_given_up = False
        self._refusal: BaseException | None = None
        #: How it has ended, once it has.
        self._ended: RunOutcome | None = None
        #: What was raised out of the block of the stream.
        self._raised: BaseException | None = None

    def __repr__(self) -> str:
        return f"<run {self.run_id!r} of {self._stream!r}>"

    @property
    def held(self) -> int:
        """How many items were made, but are not in the log yet."""
        return self._recorder.made - self._writer.position

    @property
    def is_cancelled(self) -> bool:
        """Whether the source was told to stop, or will never start."""
        return self._token.cancelled

    def info(self) -> RunInfo:
        """Return what is known of the run here."""
        return RunInfo(
            id=self.run_id,
            owner=self._terms.owner,
            data=data_of(self._terms),
            epoch=self.epoch,
            first=self._writer.first,
            last=self._writer.position,
            outcome=self._ended,
            cancel_requested=self._token.cancelled,
            started_at=self._terms.started_at,
        )

    def cancel(self, reason: object) -> None:
        """Tell the source. The first reason stays."""
        self._token.cancel(reason)

    # The task of start()

    async def discard(self) -> None:
        """Close the source of a run that will not be."""
        try:
            await self._stream.aclose()
        except Exception:
            _logger.exception("the source of a run that was not started could not be closed")

    async def created(self) -> None:
        """
        Wait until the log has the run, and let its source start.

        If this is cancelled, the run is given up: nothing of it remains.

        :raises BaseException: the log's error

        """
        try:
            await self._created.wait()
        except BaseException:
            self._is_given_up = True
            self._decided.set()
            raise
        self._decided.set()
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            try:
                raise refusal
            finally:
                # Its traceback includes this frame.
                del refusal, self

    # The task of the run

    async def run(self, on_created: Callable[[], object]) -> None:
        """
        Do all that the run does. Raises only what should end the program.

        :param on_created: called when the log has the run

        """
        leave_streams()
        running.set(self)
        if self._told is not None:
            self._told.begin()
            self._terms = replace(self._terms, data=noted(self._terms.data, self._told.note))
        try:
            # The runs of a program are told of its end; no cancellation reaches them by itself.
            with anyio.CancelScope(shield=True):
                if await self._create(on_created):
                    if self._told is not None:
                        self._told.start()
                    await self._record()
                    await self._conclude()
        finally:
            if self._told is not None:
                if self._stream.ended:
                    # The first call counts. This one is the first if the run was cut short.
                    self._told.end(self._stream.outcome)
                self._told.close()
            self.lease.close()
            self._created.set()
            self.gone.set()
        raised, self._raised = self._raised, None
        # A run that was cancelled natively has ended by now. It should not end the others.
        try:
            if raised is not None and not (is_failure(raised) or _is_native(raised)):
                raise raised
        finally:
            # Its traceback includes this frame; from Python 3.12 on, it leads here in any case.
            del raised, self

    async def _create(self, on_created: Callable[[], object]) -> bool:
        """Create the run in the log. Returns whether its source may start."""
        is_there = False
        try:
            if not self._is_given_up:
                requests = await self._log.create(
                    self.run_id, self.epoch, self._terms, self._writer.heed
                )
                is_there = True
                on_created()
                self._writer.heed(requests)
        except BaseException as exc:
            self._refusal = RunsClosed() if _is_native(exc) else exc
        if is_there:
            self._created.set()
            await self._decided.wait()
            if not self._is_given_up:
                return True
            await self._remove()
        await self.discard()
        return False

    async def _remove(self) -> None:
        """Remove a run that nobody was told of."""
        try:
            outcome = RunOutcome(kind="cancelled", ended_at=time.time())
            await self._log.end(self.run_id, self.epoch, encode_outcome(outcome))
            await self._log.delete(self.run_id, self.epoch)
        except Exception:
            _logger.exception(
                "a run whose start was cancelled could not be removed: %r", self.run_id
            )

    async def _record(self) -> None:
        """Consume the stream, and write what it yields."""
        recorder, writer, stream = self._recorder, self._writer, self._stream
        count = 0
        try:
            async with stream:
                head = await stream.head()
                if head.decided_by == "head":
                    writer.head = head.status
                    await writer.write()
                async for entry in stream:
                    writer.taken.append(entry)
                    count += 1
                    # The items that are ready: without a wait, and without those that are made
                    # meanwhile.
                    made = recorder.made
                    while count < made:
                        writer.taken.append(await anext(stream))
                        count += 1
                    await writer.write()
        except BaseException as exc:
            # The outcome tells what it was.
            self._raised = bare(exc)
        # The traceback of an error includes this frame.
        del self, stream
        await writer.write_all()

    async def _conclude(self) -> None:
        """Run ``on_end``, write the end, and let it be read."""
        refused = self._writer.refused
        if refused is None:
            try:
                self._writer.heed(await self._writer.renew())
            except Exception as exc:
                self._writer.refuse_after(exc)
        outcome = self._outcome()
        outcome = await self._call_on_end(outcome)
        is_fenced = isinstance(self._writer.refused, Fenced)
        if self._told is not None:
            self._told.end(outcome, fenced=is_fenced)
        if is_fenced:
            return
        ended = RunOutcome(
            kind=cast("RunOutcomeKind", outcome.kind),
            reason=outcome.reason,
            error=None if outcome.error is None else type(bare(outcome.error)).__qualname__,
            grace_exceeded=outcome.grace_exceeded,
            ended_at=time.time(),
        )
        data = encode_outcome(ended)
        # As it is read by others.
        self._ended = decode_outcome(data)
        try:
            await self._log.end(self.run_id, self.epoch, data, acknowledged=self._writer.position)
        except Exception:
            _logger.exception("the end of the run %r could not be written", self.run_id)

    def _outcome(self) -> Outcome:
        if self._stream.ended:
            outcome = self._stream.outcome
        else:
            # The stream could not be entered.
            now = anyio.current_time()
            outcome = Outcome(kind="failed", error=self._raised, started_at=now, ended_at=now)
        if outcome.kind in ("closed", "failed") and _is_native(self._raised):
            # The program ends without waiting for the end of the block of its runs.
            outcome = replace(outcome, kind="cancelled", reason=Shutdown(), error=None)
        if outcome.kind == "failed" and self._on_end is None:
            _logger.error("the run %r has failed", self.run_id, exc_info=outcome.error)
        if self._writer.refused is not None:
            # However the source ended, the log does not have everything.
            outcome = replace(outcome, kind="cancelled", reason=self._writer.refused)
        return outcome

    async def _call_on_end(self, outcome: Outcome) -> Outcome:
        if self._on_end is None:
            return outcome
        error: BaseException | None = None
        timeout = self._options.on_end_timeout
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + timeout) as scope:
                ending: Any = self._on_end(outcome, self.info())
                if not isinstance(ending, Awaitable):
                    raise TypeError(
                        f"on_end must be async, but it returned {type(ending).__qualname__}: write "
                        "'async def on_end(outcome, info): ...'"
                    )
                await ending
            if scope.cancelled_caught:
                raise TimeoutError(f"on_end took longer than {timeout} seconds")
        except BaseException as exc:
            error = error_of_stray(exc, "on_end") or exc
            if is_backend_cancellation(error):
                # At the end of asyncio.run(), for instance: no shield helps.
                self._raised = self._raised or exc
                return outcome
            if not is_failure(error):
                self._raised = exc
            _logger.error("on_end of the run %r has failed", self.run_id, exc_info=error)
        return outcome if error is None else replace(outcome, kind="failed", error=error)


def _is_native(exc: BaseException | None) -> bool:
    """Tell whether a producer was cancelled: by Task.cancel(), at the end of asyncio.run()."""
    return exc is not None and is_backend_cancellation(exc)
