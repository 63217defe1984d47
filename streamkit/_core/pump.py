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
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from .backend import Backend, error_of_stray
from .conclusion import Conclusion
from .ending import Ending, judge
from .exceptions import (
    both,
    cancelled_only,
    error_in,
    first_leaf,
    not_an_end,
    only_backend_cancellation,
    was_cancelled_before,
    without_own_frames,
)
from .generators import Generators
from .handoff import Handoff
from .metadata import Head
from .outcome import Outcome
from .pipeline import Pipeline
from .relay import Relay
from .scopes import Scopes
from .signal import Left, Signal, left
from .source import Source
from .stepping import Steps
from .timer import Timer
from .unwinding import close_all
from .watching import watcher

T = TypeVar("T")

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

    __slots__ = (
        "_conclusion",
        "_consumer",
        "_failure",
        "_finished",
        "_generators",
        "_is_abandoned",
        "_is_closing",
        "_late_failure",
        "_left",
        "_on_finished",
        "_pipeline",
        "_puts_off",
        "_relay",
        "_scopes",
        "_source",
        "_steps",
        "_task",
        "_timers",
        "backend",
        "beside",
        "grace",
        "handoff",
        "has_open_scope",
        "head",
        "is_finished",
        "outcome",
        "started_at",
        "tasks",
    )

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
        #: Whether the source has left a cancel scope open in its task.
        self.has_open_scope: bool = False
        #: What was given as the status of the stream.
        self.head: Head | None = None
        #: Whether the source task has nothing more to do.
        self.is_finished: bool = False
        self._on_finished: tuple[Callable[[], object], ...] = ()
        self._timers: tuple[Timer, ...] = ()
        #: The task group of the stream, while its block is open.
        self.tasks: TaskGroup | None = None
        #: End what runs beside the source until the block is left.
        self.beside: tuple[anyio.CancelScope, ...] = ()
        self.started_at: float = backend.now()
        self._finished: anyio.Event | None = None
        self.backend: Backend = backend
        #: Seconds that the source has to clean up.
        self.grace: float = source.grace
        self._source = source
        self._generators = Generators(backend.current_task)
        self._pipeline = pipeline
        self._scopes = Scopes(source.grace, backend.now, backend.loop, backend.make_scope)
        self._relay: Relay
        self._task: object = None
        self._consumer = backend.current_task()
        self._steps = Steps(
            source,
            self._generators,
            self._scopes,
            self.handoff,
            pipeline,
            backend.cancelled,
        )
        self._is_closing = False
        self._left = False
        self._is_abandoned = False
        #: Whether something was put off until the next pass.
        self._puts_off = False
        self._failure: BaseException | None = None
        #: What a stage raised when the stream was already ending.
        self._late_failure: BaseException | None = None
        self._conclusion: Conclusion | None = None

    # Called from the consumer and from stages: none of these block

    def cancel(self, signal: Signal) -> bool:
        """
        Deliver a signal into the source.

        :return: ``False`` if the stream is ending already

        """
        if self._scopes.signal is not None or self._is_closing:
            return False
        self._scopes.signal = signal
        self._steps.disturbed = True
        # Before it is told, which spares a wait that is over.
        self.handoff.wake()
        if self._steps.has_started:
            self._relay.tell()
        return True

    def cancel_at_yield(self, signal: Signal) -> bool:
        """
        Deliver a signal into the source at a ``yield``, when what it has yielded was taken.

        Anything else that tells the source before then counts instead.

        :return: ``False`` if the stream is ending already, or will be told so already

        """
        steps = self._steps
        if not steps.has_started:
            return self.cancel(signal)
        if self._scopes.signal is not None or self._is_closing or steps.at_yield is not None:
            return False
        steps.at_yield = signal
        steps.disturbed = True
        self.handoff.wake()
        return True

    def end_grace(self) -> None:
        """End the time that the source has to clean up, now or once it was told."""
        if self.outcome is None:
            if self._scopes.grace_has_begun:
                # It may wait for the consumer.
                self.handoff.wake()
            self._scopes.end_grace()

    def fail(self, error: BaseException) -> None:
        """End the stream with the error of a stage, or raise it at the end of one that ends."""
        error = not_an_end(error)
        if self._steps.stopping or self._is_closing:
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
        End the stream because nobody takes its items now.

        :param exc: what leaves the block: a typed cancellation is for the source, too. So is that
            of an enclosing stream, which reaches a task that is not a source as the backend's own

        """
        # At the end of asyncio.run(), what leaves this block may be what its task was told then.
        enclosing = self._scopes.enclosing
        is_native = enclosing is not None and enclosing.told_natively
        if exc is not None:
            stop = cancelled_only(exc)
            if stop is not None:
                # A source that was told so also leaves the streams inside it: they are closed.
                if not isinstance(stop.reason, Left):
                    self.cancel(Signal(stop.reason, self._scopes.grace))
            elif type(exc) is self.backend.cancelled or only_backend_cancellation(exc):
                is_native = is_native or self.backend.relay.is_native(first_leaf(exc))
                signal = self._scopes.signal_around()
                if signal is not None:
                    self.cancel(signal)
        if not self._left:
            self._left = True
            self.handoff.close()
            self._stop(is_native=is_native)

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function in the next pass of the event loop, if the block is open then."""
        if not self.is_finished:
            self._puts_off = True
            self.backend.soon(self._consumer, partial(self._call_if_open, function))

    def _call_if_open(self, function: Callable[[], object]) -> None:
        if self.tasks is not None:
            function()

    def abandon(self) -> None:
        """End the stream, because the task that should leave its block has ended."""
        _logger.error(
            "the block of a stream of %s was never left: close the generator that holds it, with "
            "contextlib.aclosing()",
            self._source.name,
        )
        self._is_abandoned = True
        # Nothing more can be started in the group of a task that has ended.
        self.tasks = None
        self.leave()

    async def wait_abandoned(self) -> object:
        """Wait until the source task has nothing more to do. Returns that task."""
        await self.wait_finished()
        task, self._task = self._task, None
        return task

    def release(self) -> Outcome | None:
        """Return the outcome, and let go of every error: frames that errors hold lead to here."""
        outcome, self.outcome, self._failure, self._conclusion = self.outcome, None, None, None
        self.handoff.release()
        self._timers = ()
        return outcome

    @property
    def source_name(self) -> str:
        """What the source is called."""
        return self._source.name

    @property
    def has_item(self) -> bool:
        """Whether an item has been handed over."""
        return self._steps.items > 0

    def pausing(self, wait: Awaitable[T]) -> Awaitable[T]:
        """Let the clock of the grace of a stream around stand still while something is awaited."""
        waiting = self._scopes.waiting
        return wait if waiting is None else self._wait_pausing(waiting, wait)

    def in_source_task(self) -> bool:
        """Tell whether the caller is the source, or something that it awaits."""
        return self.backend.current_task() is self._task

    def when_finished(self, call: Callable[[], object]) -> None:
        """Call a function when the source task has nothing more to do."""
        self._on_finished = (*self._on_finished, call)

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
        for call in self._on_finished:
            call()
        self._on_finished = ()

    async def settle(self) -> None:
        """Wait until no task of a finished stream outlives what waits for the caller."""
        timers, self._timers = self._timers, ()
        for timer in timers:
            await timer.settle()
        if self._puts_off:
            await self.backend.settle()

    async def wait_finished(self) -> None:
        """Wait until the source task has nothing more to do."""
        if self._finished is None:
            self._finished = anyio.Event()
            if self.is_finished:
                self._finished.set()
        await self._finished.wait()

    def take_error(self) -> BaseException | None:
        """Return the failure that was not raised yet: in the closing, or unseen before it."""
        error = None if self._conclusion is None else self._conclusion.take_error()
        late, self._late_failure = self._late_failure, None
        return both(error, late)

    def take_raises(self) -> BaseException | None:
        """Return what the source's end raises in the consumer, which then no longer receives it."""
        return None if self._conclusion is None else self._conclusion.take_raises()

    @property
    def has_failed(self) -> bool:
        """Whether the end has something to raise in the consumer."""
        return self._conclusion is not None and self._conclusion.failed

    async def _wait_pausing(self, waiting: Scopes, wait: Awaitable[T]) -> T:
        waiting.wait_for(self._scopes, self.end_grace)
        try:
            return await wait
        finally:
            waiting.has_waited_for(self.end_grace)

    def _stop(self, *, is_native: bool = False) -> None:
        self._steps.stopping = self._steps.disturbed = True
        self.handoff.wake()
        scopes = self._scopes
        if scopes.signal is not None or self._is_closing:
            return
        scopes.signal = left(scopes.grace)
        if not self._steps.has_started:
            return
        if is_native and self._relay.tell_if_native():
            scopes.deliver()
        elif self._steps.is_tidying:
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
                    self._relay = self._make_relay()
                    steps = self._steps.run(self._relay, self.fail)
                    ending = self._judge(await self._relay.drive(steps))
                    self._is_closing = True
                    await self._relay.drive(self._close(ending))
            except RuntimeError as exc:
                assert ending is not None
                self._note_open_scope(ending, exc)
            self.outcome = self._outcome_of(ending)
            self._conclusion = Conclusion(ending, self.handoff, self.backend.cancelled)
            await self._conclusion.run(self._pipeline, self.outcome)
        finally:
            self.finish()
            # The frame of a source that raised leads back to this one.
            del ending
        await self.settle()

    def _make_relay(self) -> Relay:
        kind, watched = self.backend.relay, watcher.get()
        if watched is None:
            return kind(self._scopes, self._consumer)
        return watched(kind, self._scopes, self._consumer, self._source, self._steps)

    def _judge(self, raised: BaseException | None) -> Ending:
        scopes = self._scopes
        signal = scopes.signal
        # A signal that fired too late to be raised in the source has changed nothing, unless it
        # kept the source from starting, or was seen as the backend's own.
        if signal is not None and not (
            scopes.delivered or not self._steps.has_started or only_backend_cancellation(raised)
        ):
            signal = None
        if raised is not None and scopes.delivered and not scopes.told_natively:
            # Its clean-up has ended there.
            raised = error_of_stray(raised, self._source.name) or raised
        return judge(
            raised,
            exhausted=self._steps.exhausted,
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
                stray = error_of_stray(exc, source.name)
                error = error_in(without_own_frames(exc)) if stray is None else stray
                was_cut = error is not exc or was_cancelled_before(exc)
                self._scopes.cut = self._scopes.cut or (was_cut and self._scopes.expired)
                ending.cleanup_error = both(ending.cleanup_error, error)
                del error, stray
        generators.end()
        del ending, failed

    def _note_open_scope(self, ending: Ending, exc: RuntimeError) -> None:
        """Note that a scope of the source was in the way when the two around it were left."""
        self.has_open_scope = True
        error = RuntimeError(
            f"{self._source.name} has ended, and left a cancel scope or a task group open: in a "
            "generator inside of it, which was not closed; write 'async with aclosing(inner()) as "
            "items:' around the loop over that"
        )
        error.__cause__ = without_own_frames(exc)
        ending.cleanup_error = both(ending.cleanup_error, error)

    def _outcome_of(self, ending: Ending) -> Outcome:
        self.handoff.stop_beats()
        scopes = self._scopes
        if scopes.cut:
            # A source that waits for inner streams has no place of its own: they report theirs.
            _logger.warning(
                "%s was cut when its grace of %s seconds was over%s",
                self._source.name,
                scopes.grace if scopes.signal is None else scopes.signal.grace,
                "" if scopes.stuck_at is None else f", at {scopes.stuck_at}",
            )
        return Outcome(
            kind=ending.kind,
            reason=ending.reason,
            error=ending.error,
            cleanup_error=ending.cleanup_error,
            grace_exceeded=scopes.cut,
            stuck_at=scopes.stuck_at if scopes.cut else None,
            head=self.head,
            items=self._steps.items - self.handoff.dropped,
            beats=self.handoff.beats,
            started_at=self.started_at,
            first_item_at=self._steps.first_item_at,
            ended_at=self.backend.now(),
        )
