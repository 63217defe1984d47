"""
One run in the process that it was started in: an ordinary stream, whose consumer is the log.

The life of a producer, in one task, which nothing but the end of the program cancels::

    create ──▶ wait for start() ──▶ record ──▶ conclude ──▶ gone
       │              │            (the block   (renew, on_end, end)
    refused        given up        of the stream)
       └──────────────┴──▶ the source is closed unstarted

While the log takes a batch, the source goes on, and what it makes waits in the stream. When the
batch is written, all that waits is the next one: so a store that takes a millisecond for each call
is called a thousand times a second, however many items there are, and an item that comes alone is
written at once.

A log that takes nothing more (it is full, or away, or the run was taken from this producer) has the
source told, as by a token. What it still says is dropped from then on: a hole must not be written.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import anyio

from .._combinators.cancellation import with_cancellation
from .._combinators.status import StatusStream, with_status
from .._core.exceptions import StreamCancelled, bare, is_backend_cancellation
from .._core.outcome import Outcome
from .._core.scopes import leave_streams
from .._core.source import AsyncSource
from .._core.stream import with_stage
from .._signals.token import CancelToken
from .budget import budget
from .codec import from_json
from .errors import LogFull, LogUnavailable, RunsClosed
from .info import RunInfo, RunOutcome, RunOutcomeKind
from .log import Requests, RunLog, Terms
from .reasons import (
    Fenced,
    LogLost,
    Shutdown,
    Unwatched,
    decode_outcome,
    decode_reason,
    encode_outcome,
    encode_reason,
)
from .recorder import Recorder

_logger = logging.getLogger("streamkit")

#: Called when a run has ended, before that can be seen.
OnEnd: TypeAlias = Callable[[Outcome, RunInfo], Awaitable[object]]

# What a source may raise without ending the program.
_HANDLED = (Exception, StreamCancelled)

# Seconds until another look where somebody was there a moment ago.
_SOON = 0.05

#: The producer whose source, or ``on_end``, is running.
running: ContextVar[Producer | None] = ContextVar("streamkit_run", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said of a run."""

    keep: float
    grace: float
    on_end_timeout: float
    max_items: int
    max_bytes: int
    when_full: Literal["trim", "end"]
    unwatched: float | None


class Producer:
    """
    One run, from its creation in the log to its end there.

    :param run_id: its id
    :param epoch: its random name
    :param source: what it yields is kept
    :param terms: what the log is told of it
    :param options: what else was said
    :param on_end: called before the end can be seen
    :param log: where it is kept

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
        self._budget = budget(options.when_full, options.max_items, options.max_bytes)
        cancellable = with_cancellation(source, self._token, grace=options.grace)
        self._stream: StatusStream[bytes] = with_status(with_stage(cancellable, self._recorder))
        # Between start() and the task.
        self._created = anyio.Event()
        self._decided = anyio.Event()
        self._is_given_up = False
        self._refusal: BaseException | None = None
        # What was taken from the stream, what of that is being written, and what was.
        self._taken: list[bytes] = []
        self._pending: list[bytes] = []
        self._position = 0
        self._head: int | None = None
        #: Why nothing more can be written, once that is so.
        self._refused: object = None
        #: How it has ended, once it has.
        self._ended: RunOutcome | None = None
        #: What has left the block of the stream.
        self._raised: BaseException | None = None
        self._keeping = anyio.CancelScope(shield=True)

    def __repr__(self) -> str:
        return f"<run {self.run_id!r} of {self._stream!r}>"

    @property
    def held(self) -> int:
        """How many items were made that are not in the log."""
        return self._recorder.made - self._position

    @property
    def is_cancelled(self) -> bool:
        """Whether the source was told to stop, or is never to start."""
        return self._token.cancelled

    def info(self) -> RunInfo:
        """Return what is known of the run here."""
        return RunInfo(
            id=self.run_id,
            owner=self._terms.owner,
            data=from_json(self._terms.data),
            epoch=self.epoch,
            first=min(self._budget.first, self._position + 1),
            last=self._position,
            outcome=self._ended,
            cancel_requested=self._token.cancelled,
            started_at=self._terms.started_at,
        )

    def cancel(self, reason: object) -> None:
        """Tell the source. The first reason stays."""
        self._token.cancel(reason)

    # The task of start()

    async def discard(self) -> None:
        """Close the source of a run that is not to be."""
        try:
            await self._stream.aclose()
        except Exception:
            _logger.exception("the source of a run that was not started could not be closed")

    async def created(self) -> None:
        """
        Wait until the log has the run, and let its source start.

        If this is cancelled, the run is given up: nothing of it remains.

        :raises BaseException: what the log said to it

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
        Do all that the run does. Raises only what is to end the program.

        :param on_created: called when the log has the run

        """
        leave_streams()
        running.set(self)
        try:
            # The runs of a program are told of its end; no cancellation reaches them by itself.
            with anyio.CancelScope(shield=True):
                if await self._create(on_created):
                    await self._record()
                    await self._conclude()
        finally:
            self._keeping.cancel()
            self._created.set()
            self.gone.set()
        raised, self._raised = self._raised, None
        # Cancelled natively, it has ended by now: that is not to end the others.
        if raised is not None and not (isinstance(raised, _HANDLED) or _is_native(raised)):
            try:
                raise raised
            finally:
                # Its traceback includes this frame.
                del raised, self

    async def keep_up(self) -> None:
        """Renew the lease, and look whether anybody reads, where that is needed."""
        unwatched, lease = self._options.unwatched, self._log.lease
        with self._keeping:
            idle = 0.0
            while True:
                wait = lease / 3
                if unwatched is not None and not self._token.cancelled:
                    wait = min(wait, max(unwatched - idle, _SOON))
                # It may be for ever, which sleep() does not take.
                with anyio.move_on_after(wait):
                    await anyio.sleep_forever()
                try:
                    requests = await self._log.renew(self.run_id, self.epoch)
                except Exception as exc:
                    self._refuse_after(exc)
                    return
                self._heed(requests)
                idle = requests.unwatched_for
                if unwatched is not None and idle >= unwatched and not self._token.cancelled:
                    await self._cancel_unwatched(unwatched)

    @property
    def needs_keeping(self) -> bool:
        """Whether :meth:`keep_up` has anything to do."""
        return self._options.unwatched is not None or self._log.lease < math.inf

    async def _cancel_unwatched(self, unwatched: float) -> None:
        reason = Unwatched()
        try:
            # The store looks again: somebody may have come meanwhile, in another process.
            found = await self._log.request_cancel(
                self.run_id, encode_reason(reason), epoch=self.epoch, unwatched_for=unwatched
            )
        except LogUnavailable:
            # Nobody is unwatched while the store is away. It is asked again.
            return
        if found == "running":
            self.cancel(reason)

    async def _create(self, on_created: Callable[[], object]) -> bool:
        """Create the run in the log. Returns whether its source may start."""
        is_there = False
        try:
            if not self._is_given_up:
                requests = await self._log.create(self.run_id, self.epoch, self._terms, self._heed)
                is_there = True
                on_created()
                self._heed(requests)
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
        recorder = self._recorder
        count = 0
        try:
            async with self._stream as stream:
                head = await stream.head()
                if head.decided_by == "head":
                    self._head = head.status
                    await self._write()
                async for entry in stream:
                    self._taken.append(entry)
                    count += 1
                    # What is ready already: no wait.
                    while count < recorder.made:
                        self._taken.append(await anext(stream))
                        count += 1
                    await self._write()
        except BaseException as exc:
            # The outcome tells what it was.
            self._raised = bare(exc)
        while self._pending or self._taken:
            await self._write()

    async def _write(self) -> None:
        """Write what was taken. If it is cut short, the next call goes on with the same."""
        if not self._pending and self._taken:
            self._pending = self._budget.admit(self._taken)
            self._taken = []
            if self._budget.is_full:
                self.cancel(LogFull())
        pending = self._pending
        if self._refused is None:
            try:
                requests = await self._log.append(
                    self.run_id,
                    self.epoch,
                    self._position + 1,
                    pending,
                    acknowledged=self._position,
                    first=self._budget.first,
                    head=self._head,
                )
            except Exception as exc:
                self._refuse_after(exc)
            else:
                self._heed(requests)
                if self._refused is None:
                    self._position += len(pending)
        if self._budget.has_dropped:
            self._refuse(LogFull())
        self._pending = []

    def _heed(self, requests: Requests) -> None:
        """Do what others have asked for."""
        if requests.fenced:
            self._refuse(Fenced())
        elif requests.cancel is not None and not self._token.cancelled:
            self.cancel(decode_reason(requests.cancel))

    def _refuse(self, reason: object) -> None:
        """Write nothing more."""
        if self._refused is None:
            self._refused = reason
            self.cancel(reason)

    def _refuse_after(self, error: Exception) -> None:
        """Write nothing more, for the log has raised."""
        if isinstance(error, LogFull):
            self._refuse(LogFull())
            return
        if not isinstance(error, LogUnavailable):
            _logger.error("the log of the run %r has failed", self.run_id, exc_info=error)
        self._refuse(LogLost())

    async def _conclude(self) -> None:
        """Have the end taken note of, and let it be seen."""
        if self._refused is None:
            try:
                self._heed(await self._log.renew(self.run_id, self.epoch))
            except Exception as exc:
                self._refuse_after(exc)
        outcome = self._outcome()
        outcome = await self._call_on_end(outcome)
        if isinstance(self._refused, Fenced):
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
            await self._log.end(self.run_id, self.epoch, data)
        except Exception:
            _logger.exception("the end of the run %r could not be written", self.run_id)

    def _outcome(self) -> Outcome:
        if self._stream.ended:
            outcome = self._stream.outcome
        else:
            # It could not be entered.
            now = anyio.current_time()
            outcome = Outcome(kind="failed", error=self._raised, started_at=now, ended_at=now)
        if outcome.kind in ("closed", "failed") and _is_native(self._raised):
            # The program ends, and has not waited for the end of its block.
            outcome = replace(outcome, kind="cancelled", reason=Shutdown(), error=None)
        if outcome.kind == "failed" and self._on_end is None:
            _logger.error("the run %r has failed", self.run_id, exc_info=outcome.error)
        if self._refused is not None:
            # Whatever became of the source, the log does not have all of it.
            outcome = replace(outcome, kind="cancelled", reason=self._refused)
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
            if is_backend_cancellation(exc):
                # At the end of asyncio.run(), for instance: no shield helps.
                self._raised = self._raised or exc
                return outcome
            if not isinstance(exc, _HANDLED):
                self._raised = exc
            _logger.error("on_end of the run %r has failed", self.run_id, exc_info=exc)
            error = exc
        return outcome if error is None else replace(outcome, kind="failed", error=error)


def _is_native(exc: BaseException | None) -> bool:
    """Tell whether a producer was cancelled: by Task.cancel(), at the end of asyncio.run()."""
    return exc is not None and is_backend_cancellation(exc)
