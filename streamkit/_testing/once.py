"""One run from its beginning to its end, in the running event loop."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeAlias

import anyio

from .backend import Clock, running_backend
from .eye import Eye
from .leftovers import Leftovers
from .outside import nothing, outside_of_virtual_time, waits_outside
from .places import A_THREAD, name_of
from .points import Point
from .record import Fault, Record, says_that_it_fails
from .run import Kind, Run
from .subject import Subject, made_by
from .visit import Visit, visit_to

#: Where a run is interrupted, and how.
Strikes: TypeAlias = tuple[tuple[Point, Kind], ...]

# Virtual seconds, longer than any real wait: whatever waits longer waits for ever.
_FOR_EVER = 1e9
# Real seconds.
_A_WHILE = 0.001
# Real seconds in which other threads may wake a run that does not say that it waits for them. Some
# are idle, so that they never do.
_OTHER_THREADS = 1.0


@dataclass
class Terms:
    """
    What holds for each run of a campaign.

    :ivar make: makes what is interrupted
    :ivar steps: how often a run may wait after it was told
    :ivar clock: virtual or real time
    :ivar patience: seconds that a run may take in real time, and in which the outside may answer
    :ivar owns_loop: whether the event loop is only for one run
    :ivar undisturbed: what the consumer receives if nothing interrupts it
    """

    make: Callable[[], Any]
    steps: int
    clock: Clock
    patience: float = _FOR_EVER
    owns_loop: bool = True
    undisturbed: list[Any] = field(default_factory=list[Any])
    #: Where a function cancels itself if nothing interrupts it.
    own: frozenset[Point] = frozenset()
    #: The threads that have nothing to do with it.
    threads: frozenset[Thread] = field(default_factory=lambda: frozenset(threading.enumerate()))
    #: The current visit, for the watchdog outside.
    visit: Visit | None = None


@asynccontextmanager
async def one_run(
    terms: Terms, strikes: Strikes
) -> AsyncGenerator[tuple[Record, tuple[Any, ...]], None]:
    """
    Make the subject, visit it, and yield the record, with the other arguments of the check.

    What it holds is torn down after that. Everything that is left is in the record when the garbage
    of the run was collected.
    """
    record = Record(Run(strikes[0][1] if strikes else None, running_backend()), strikes)
    left: Leftovers | None = None
    try:
        async with made_by(terms.make) as subject:
            left = Leftovers(owns_loop=terms.owns_loop)
            record.heard = left.heard
            with left.watched():
                await _visit(subject, record, terms)
                record.left = left.found()
            yield record, subject.given
    except Exception as exc:
        if left is None:
            # There is nothing to interrupt.
            raise
        record.teardown_error = Fault.of(exc)
    record.forget()


async def _visit(subject: Subject, record: Record, terms: Terms) -> None:
    outside = outside_of_virtual_time if terms.clock == "virtual" else nothing
    visit = terms.visit = visit_to(
        subject, record.strikes, terms.steps, terms.patience, outside, terms.own
    )
    await visit.go(lambda event: _within_reason(event, visit, terms))
    terms.visit = None
    _note(record, visit, terms.undisturbed)


def _note(record: Record, visit: Visit, undisturbed: list[Any]) -> None:
    eye, run = visit.eye, record.run
    record.trace, record.asked_at, record.outside = eye.trace, eye.asked_at, eye.outside
    record.asked_in, record.cancelled_at = eye.asked_in, eye.cancelled_at
    if eye.told_after is not None:
        record.trace_after = eye.trace[eye.told_after :]
    record.was_told, record.let_out, record.made_before = (
        eye.was_told,
        visit.let_out,
        visit.made_before,
    )
    record.swallowed_at, record.stuck_at = eye.swallowed_at, eye.stuck_at
    unexpected = visit.unexpected()
    record.unexpected = None if unexpected is None else Fault.of(unexpected)
    record.has_lost_error = visit.has_lost_error
    run.asked_at = str(eye.asked_at[0]) if eye.asked_at else None
    run.arrived_at = None if eye.arrived_at is None else name_of(eye.arrived_at.spot)
    run.told = eye.was_told and bool(eye.asked_at)
    run.items, run.undisturbed = visit.items, list(undisturbed)
    run.outcome, run.error, run.result = visit.outcome, visit.error, visit.result


async def check_run(
    check: Callable[..., Any] | None, record: Record, given: tuple[Any, ...]
) -> None:
    """Let the check look at a run. What it raises is kept."""
    if check is None or record.stuck_at is not None:
        return
    try:
        result = check(record.run, *given)
        if inspect.isawaitable(result):
            await result
    except BaseException as exc:
        if not says_that_it_fails(exc):
            raise
        record.check_error = Fault.of(exc)


async def _within_reason(event: anyio.Event, visit: Visit, terms: Terms) -> None:
    is_virtual = terms.clock == "virtual"
    seconds = _FOR_EVER if is_virtual else terms.patience
    waiting = _Waiting(visit.eye, terms)
    try:
        while True:
            with anyio.move_on_after(seconds):
                await event.wait()
                return
            if not (is_virtual and waiting.may_be_answered()):
                break
            # Blocks on purpose: nothing else can happen here until the outside answers.
            time.sleep(_A_WHILE)  # noqa: ASYNC251
        visit.eye.give_up(visit.task)
        await event.wait()
    except BaseException:
        # The test itself was cancelled. The end of the run is waited for, so it is bounded.
        visit.eye.count_steps()
        raise


class _Waiting:
    """Tells whether the outside may still wake a run whose virtual time is up."""

    def __init__(self, eye: Eye, terms: Terms) -> None:
        self._eye = eye
        self._terms = terms
        self._pulse: int | None = None
        self._since = 0.0
        self._was_at_work: str | None = None

    def may_be_answered(self) -> bool:
        now = time.monotonic()
        if self._eye.pulse != self._pulse:
            self._pulse, self._since = self._eye.pulse, now
        took_real_time, seconds = self._eye.took_real_time(), now - self._since
        if seconds >= max(self._terms.patience, _OTHER_THREADS):
            return False
        if took_real_time:
            return True
        is_at_work = waits_outside()
        if is_at_work is None and seconds < _OTHER_THREADS and self._has_threads():
            is_at_work = A_THREAD
        # Also if it was at work at the last call, and has answered in this very pass.
        what, self._was_at_work = is_at_work or self._was_at_work, is_at_work
        if what is None:
            return False
        # By now, any limit on the wait has expired.
        self._eye.note_outside(what)
        return True

    def _has_threads(self) -> bool:
        return not self._terms.threads.issuperset(threading.enumerate())
