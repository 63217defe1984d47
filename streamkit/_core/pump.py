"""
The source task: it steps the source, hands its items over, and closes it.

The life of a source, and what moves it on::

    new ──first ask──▶ running ──yield──▶ idle ──ask──▶ running …
     │                   │  ▲              │
     │                   │  └────signal────┤   resumed without an ask: the first await raises it,
     │                   │                 │   or the next yield, whichever comes first
     │           ended or raised     consumer left, failure, grace over
     ▼                   ▼                 ▼
    closing ───────────────────────────────▶ closed: outcome, on_end, final items, end

The task never raises: what the source raises is kept, and handed to the consumer after the items
that came before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal

import anyio

from .backend import Backend
from .closing import OWN_MODULES
from .ending import Ending, judge
from .exceptions import (
    both,
    cancelled_only,
    error_in,
    first_leaf,
    is_stream_cancelled,
    not_an_end,
    only_backend_cancellation,
    set_traceback,
    was_cancelled_before,
)
from .generators import Generators
from .handoff import Handoff
from .outcome import Outcome
from .pipeline import SKIP, Pipeline
from .relay import Relay
from .scopes import Scopes
from .signal import Left, Signal, left
from .source import Source
from .timer import Timer
from .unwinding import close_abandoned, close_all

_logger = logging.getLogger("streamkit")


class Pump:
    """
    Owns a source from its first step to the end of its closing.

    :param source: the source, which nobody else touches from now on
    :param pipeline: the stages
    :param backend: the backend of the running event loop
    :param read_ahead: how many items the source may be ahead of the consumer
    :param in_a_row: how many of them the consumer may take without a turn for other tasks

    """

    def __init__(
        self,
        source: Source[Any],
        pipeline: Pipeline,
        backend: Backend,
        read_ahead: float,
        in_a_row: int,
    ) -> None:
        self.handoff: Handoff = Handoff(backend, read_ahead, in_a_row)
        #: How the stream ended, written once, when the source has been closed.
        self.outcome: Outcome | None = None
        #: Whether the end has something to raise in the consumer.
        self.has_failed: bool = False
        #: Whether the source has left a cancel scope open in its task.
        self.has_open_scope: bool = False
        #: Whether the source task has nothing more to do.
        self.is_finished: bool = False
        #: Called when it has finished.
        self.on_finished: tuple[Callable[[], object], ...] = ()
        self._timers: tuple[Timer, ...] = ()
        self.started_at: float = backend.now()
        self._finished: anyio.Event | None = None
        self.backend = backend
        self._source = source
        self._generators = Generators(backend.current_task)
        self._pipeline = pipeline
        self._scopes = Scopes(source.grace, backend.now)
        self._relay: Relay
        self._task: object = None
        self._consumer = backend.current_task()
        self._state: Literal["new", "started", "closing"] = "new"
        self._items = 0
        self._first_item_at: float | None = None
        self._exhausted = False
        self._left = False
        #: Something that the source has abandoned is being closed, while it is at a yield.
        self._is_tidying = False
        self._is_abandoned = False
        #: The consumer has left, or a stage has failed: the source is not stepped any more.
        self._stopping = False
        self._failure: BaseException | None = None
        #: What a stage raised when the stream was ending already.
        self._late_failure: BaseException | None = None
        self._raises: BaseException | None = None
        # What remains of the error at the end if the consumer does not meet it.
        self._unseen: BaseException | None = None
        self._cleanup_error: BaseException | None = None

    # Called from the consumer and from stages: none of these block

    def cancel(self, signal: Signal) -> bool:
        """
        Deliver a signal into the source.

        :return: ``False`` if the stream is ending already

        """
        if self._scopes.signal is not None or self._stopping or self._state == "closing":
            return False
        self._scopes.signal = signal
        # Before the scope is cancelled, which on trio spares a wait that is over.
        self.handoff.wake()
        if self._state != "new":
            self._relay.tell()
        return True

    def fail(self, error: BaseException) -> None:
        """End the stream with the error of a stage, or raise it at the end of one that ends."""
        error = not_an_end(error)
        if self._stopping or self._state == "closing":
            self._late_failure = both(self._late_failure, error)
        else:
            self._failure = error
            self._stop()

    def make_timer(self, function: Callable[[], object]) -> Timer:
        """Return a timer that lives as long as the source."""

        timer = self.backend.make_timer(function, self.fail)
        if self.is_finished:
            timer.close()
        else:
            self._timers = (*self._timers, timer)
        return timer

    def leave(self, exc: BaseException | None = None) -> None:
        """
        End the stream because nobody takes its items any more.

        :param exc: what leaves the block: a typed cancellation is for the source, too, and so is
            that of a stream around, which reaches a task that is no source as the backend's own

        """
        # At the end of asyncio.run(), what leaves this block may be what its task was told then.
        enclosing = self._scopes.enclosing
        is_native = enclosing is not None and enclosing.told_natively
        if exc is not None:
            stop = cancelled_only(exc)
            if stop is not None:
                # A source that was told so leaves the streams inside of it, too: they are closed.
                if not isinstance(stop.reason, Left):
                    self.cancel(Signal(stop.reason, self._scopes.grace))
            elif only_backend_cancellation(exc):
                is_native = is_native or self.backend.relay.is_native(first_leaf(exc))
                signal = self._scopes.signal_around()
                if signal is not None:
                    self.cancel(signal)
        if not self._left:
            self._left = True
            self.handoff.close()
            self._stop(is_native=is_native)

    def abandon(self) -> None:
        """End the stream, for the task that is to leave its block has ended."""
        _logger.error(
            "the block of a stream of %s was never left: close the generator that holds it, with "
            "contextlib.aclosing()",
            self._source.name,
        )
        self._is_abandoned = True
        self.leave()

    async def wait_abandoned(self) -> object:
        """Wait until the source task has nothing more to do. Returns that task."""
        await self.wait_finished()
        task, self._task = self._task, None
        return task

    def release(self) -> Outcome | None:
        """Return the outcome, and let go of every error: frames that errors hold lead to here."""
        outcome, self.outcome, self._failure, self._unseen = self.outcome, None, None, None
        self.handoff.on_interrupted = None
        if self.is_finished:
            self._timers = ()
        return outcome

    @property
    def has_item(self) -> bool:
        """Whether an item has been handed over."""
        return self._items > 0

    @contextmanager
    def pausing_around(self) -> Generator[None, None, None]:
        """Let the grace of a stream around, if there is one, stand still."""
        enclosing = self._scopes.enclosing
        if enclosing is None:
            yield
            return
        enclosing.pause()
        try:
            yield
        finally:
            enclosing.resume()

    def in_source_task(self) -> bool:
        """Tell whether the caller is the source, or something that it awaits."""
        return self.backend.current_task() is self._task

    def finish(self) -> None:
        """Say that the source task has nothing more to do, or was never started."""
        self.is_finished, self._consumer = True, None
        if not self._is_abandoned:
            self._task = None
        self.handoff.end_if_open()
        if self._finished is not None:
            self._finished.set()
        for timer in self._timers:
            timer.close()
        for call in self.on_finished:
            call()
        self.on_finished = ()

    async def settle(self) -> None:
        """Wait until a finished stream has left no task but the one that is in here."""
        timers, self._timers = self._timers, ()
        for timer in timers:
            await timer.settle()

    async def wait_finished(self) -> None:
        """Wait until the source task has nothing more to do."""
        if self._finished is None:
            self._finished = anyio.Event()
            if self.is_finished:
                self._finished.set()
        await self._finished.wait()

    def take_error(self) -> BaseException | None:
        """Return what failed and was raised nowhere yet: in the closing, or before it unseen."""
        error, self._cleanup_error, self._raises = self._cleanup_error, None, None
        if self.handoff.take_error() is not None:
            error = both(self._unseen, error)
        late, self._late_failure = self._late_failure, None
        return both(error, late)

    def take_raises(self) -> BaseException | None:
        """Return what the source's end raises in the consumer, which then receives it no more."""
        error, raises, self._raises = self.handoff.take_error(), self._raises, None
        return raises if error is None else error

    def _stop(self, *, is_native: bool = False) -> None:
        self._stopping = True
        self.handoff.wake()
        scopes = self._scopes
        if scopes.signal is not None or self._state == "closing":
            return
        scopes.signal = left(scopes.grace)
        if self._state != "started":
            return
        if is_native and self._relay.tell_if_native():
            scopes.deliver()
        elif self._is_tidying:
            # It is at a yield: what it has abandoned is closed within the grace, and then it is.
            scopes.begin_grace()
        elif self._relay.in_source:
            self._relay.tell()

    # The source task

    async def run(self) -> None:
        """Do all that the source task does. Never raises."""
        self._task = self.backend.current_task()
        ending = None
        try:
            try:
                with self._scopes:
                    self._relay = self.backend.relay(self._scopes, self._consumer)
                    ending = self._judge(await self._relay.drive(self._drive()))
                    self._state = "closing"
                    await self._close(ending)
            except RuntimeError as exc:
                assert ending is not None
                self._note_open_scope(ending, exc)
            self._write_outcome(ending)
            await self._hand_over_last(ending)
        finally:
            self.finish()
            # The frame of a source that raised leads back to this one.
            del ending
        await self.settle()

    async def _drive(self) -> BaseException | None:
        """Step the source until it ends or must not be stepped again. Returns what it raised."""
        source, relay, scopes, handoff = self._source, self._relay, self._scopes, self.handoff
        transform, cancelled = self._pipeline.transform, self.backend.cancelled
        abandoned = self._generators.abandoned
        throw = await self._next_demand()
        if not self._may_start(throw):
            return throw
        try:
            relay.in_source = True
            source.start(self._generators)
            while True:
                item = await (source.next() if throw is None else source.throw(throw))
                relay.in_source = False
                throw = None
                try:
                    outgoing = transform(item)
                except BaseException as exc:
                    self.fail(exc)
                    outgoing = SKIP
                if self._stopping:
                    must_wait = False
                elif outgoing is SKIP:
                    must_wait = handoff.skip()
                else:
                    if not self._items:
                        self._first_item_at = handoff.now()
                    self._items += 1
                    must_wait = handoff.put(outgoing)
                if abandoned and not self._stopping:
                    throw = await self._close_abandoned()
                if throw is not None:
                    pass
                elif scopes.armed and not self._is_left():
                    # It came to a yield before it blocked: the signal is raised at that yield.
                    scopes.deliver()
                    throw = relay.exception()
                elif must_wait:
                    if self._stopping or scopes.signal is not None:
                        throw = await self._next_demand()
                    else:
                        # The same, for nearly every item.
                        try:
                            await handoff.demand()
                        except cancelled as exc:
                            throw = exc
                        if throw is not None:
                            throw = await self._demand_again(throw)
                disturbed = self._stopping or scopes.signal is not None or throw is not None
                if disturbed and not self._may_go_on(throw):
                    return throw
                relay.in_source = True
        except StopAsyncIteration:
            self._exhausted = True
            return None
        except BaseException as exc:
            return _from_source(exc)
        finally:
            relay.in_source = False
            del throw

    async def _close_abandoned(self) -> BaseException | None:
        """Close what the source has abandoned on its way, as if it had done so itself."""
        relay = self._relay
        relay.in_source = self._is_tidying = True
        interrupted = await close_abandoned(self._generators)
        relay.in_source = self._is_tidying = False
        try:
            if interrupted is None or is_stream_cancelled(interrupted):
                return interrupted
            return relay.put_off(interrupted)
        finally:
            del interrupted

    def _may_start(self, throw: BaseException | None) -> bool:
        if throw is not None or self._stopping or self._scopes.signal is not None:
            return False
        self._state = "started"
        return True

    def _may_go_on(self, throw: BaseException | None) -> bool:
        if throw is not None:
            return self._source.can_throw
        if self._scopes.armed and not self._is_left():
            return True
        if self._scopes.delivered and self._scopes.expired:
            self._scopes.cut = True
        return not (self._stopping or self._scopes.cut)

    async def _next_demand(self) -> BaseException | None:
        """
        Wait until the source is to be stepped, or to be left alone.

        :return: a native cancellation of asyncio, which comes only once, to be raised in the source

        """
        if self._must_act():
            return None
        scopes = self._scopes
        interrupted: BaseException | None = None
        if scopes.delivered:
            scopes.pause()
        try:
            try:
                await self.handoff.demand()
            except self.backend.cancelled as exc:
                interrupted = exc
            return None if interrupted is None else await self._demand_again(interrupted)
        finally:
            interrupted = None
            if scopes.delivered:
                scopes.resume()

    async def _demand_again(self, interrupted: BaseException) -> BaseException | None:
        """
        Go on with a wait for the consumer that was cancelled, unless that is to end it.

        The wait may be inside scopes and task groups that the source holds across its yield. When
        one of them is cancelled, that is the source's business and not the consumer's, so the
        source finds it at its next await and the wait goes on.
        """
        try:
            native = self._relay.put_off(interrupted)
            if native is not None or self._must_act():
                return native
            try:
                # Entered on top of the source's scopes, and left before the source runs again.
                with anyio.CancelScope(shield=True):
                    await self.handoff.demand()
            except self.backend.cancelled as exc:
                return self._relay.put_off(exc)
            return None
        finally:
            del interrupted

    def _must_act(self) -> bool:
        """Tell whether the source is to be told or closed, and not to wait for the consumer."""
        return self._stopping or self._scopes.has_pending_signal

    def _is_left(self) -> bool:
        """Tell whether what the source is told is that nobody takes its items any more."""
        signal = self._scopes.signal
        return signal is not None and signal.is_left

    def _judge(self, raised: BaseException | None) -> Ending:
        scopes = self._scopes
        signal = scopes.signal
        # One that fired, but came too late to be raised in the source, has changed nothing: unless
        # it kept the source from starting, or was seen as the backend's own (trio's nurseries).
        if signal is not None and not (
            scopes.delivered or self._state == "new" or only_backend_cancellation(raised)
        ):
            signal = None
        return judge(
            raised,
            exhausted=self._exhausted,
            signal=signal,
            failure=self._failure,
            left=self._left,
        )

    async def _close(self, ending: Ending) -> None:
        """Close the source, and what it has begun, shielded and bounded."""
        source, generators = self._source, self._generators
        failed = ending.raises, ending.error, ending.cleanup_error
        if not source.is_finished or generators.must_close(failed):
            self._scopes.begin_closing()
            try:
                if generators.are_left:
                    await close_all(source.close, generators, failed)
                else:
                    await source.close()
            except BaseException as exc:
                error = error_in(_from_source(exc))
                was_cut = error is not exc or was_cancelled_before(exc)
                self._scopes.cut = self._scopes.cut or (was_cut and self._scopes.expired)
                ending.cleanup_error = both(ending.cleanup_error, error)
                del error
        generators.end()
        self._cleanup_error = ending.cleanup_error
        del ending, failed

    def _note_open_scope(self, ending: Ending, exc: RuntimeError) -> None:
        """Take note that a scope of the source's was in the way when its own were left."""
        self.has_open_scope = True
        error = RuntimeError(
            f"{self._source.name} has ended, and left a cancel scope or a task group open: in a "
            "generator inside of it, which was not closed; write 'async with aclosing(inner()) as "
            "items:' around the loop over that"
        )
        error.__cause__ = _from_source(exc)
        ending.cleanup_error = self._cleanup_error = both(ending.cleanup_error, error)

    def _write_outcome(self, ending: Ending) -> None:
        self.handoff.stop_beats()
        self.outcome = Outcome(
            kind=ending.kind,
            reason=ending.reason,
            error=ending.error,
            cleanup_error=ending.cleanup_error,
            grace_exceeded=self._scopes.cut,
            items=self._items - self.handoff.dropped,
            beats=self.handoff.beats,
            started_at=self.started_at,
            first_item_at=self._first_item_at,
            ended_at=self.backend.now(),
        )

    async def _hand_over_last(self, ending: Ending) -> None:
        """Run what the stages do at the end, hand their last items over, and end the stream."""
        assert self.outcome is not None
        self._raises = raises = ending.raises
        self.has_failed = raises is not None
        failed: BaseException | None = None
        try:
            await self._run_on_end(self.outcome)
            last = None if self._left else self._pipeline.final(self.outcome)
            if last is None:
                # A stage may have taken it meanwhile.
                raises, self._raises = self._raises, None
            else:
                raises = None
                for item in last:
                    if self._left:
                        break
                    # The source is closed and its scopes are left, so a scope is safe here.
                    with anyio.CancelScope(shield=True):
                        await self.handoff.demand()
                    self.handoff.put(item)
        except self.backend.cancelled:
            failed = anyio.BrokenResourceError("the source task was cancelled before the last item")
        except BaseException as exc:
            failed = not_an_end(exc)
        # What only says how the source was ended is no failure.
        failure = raises if raises is ending.error else None
        if self._left:
            self._cleanup_error = both(failure, both(self._cleanup_error, failed))
        else:
            self._unseen = both(failure, failed)
            self.handoff.end(both(raises, failed))
        del ending, raises, failure, failed

    async def _run_on_end(self, outcome: Outcome) -> None:
        try:
            await self._pipeline.end(outcome)
        except self.backend.cancelled:
            # By Task.cancel(), at the end of asyncio.run() for instance: no shield helps, and the
            # consumer is not being cancelled with it.
            return


def _from_source(exc: BaseException) -> BaseException:
    """Drop the frames of the source task, which would keep the whole stream alive."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals["__name__"] in _OWN_MODULES:
        traceback = traceback.tb_next
    return set_traceback(exc, traceback)


_OWN_MODULES = (__name__, Relay.__module__, Source.__module__, *OWN_MODULES)
