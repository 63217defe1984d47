"""What every run is checked for, when it is over. Each check has a name, for reports.

Some things are seen on the spot, and are in ``record.problems`` by then: ``hang``, ``loop-error``,
``loop-fails``, ``unraisable``, ``warning``, ``live-task``, ``generator-left``, ``wrong-task``,
``wrong-context``, ``on-end``, ``ran-on``, ``cancellation-lost``, ``fault-raises``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .cases import Case
from .frame import Frame
from .record import (
    GRACE,
    Record,
    is_native,
    text,
)

#: What may pass between the end of the grace and the end of the clean-up: a beat, and little else.
SLACK = 0.2

Problems = Iterator[str]
Check = Callable[[Record], Problems]
CHECKS: dict[str, Check] = {}


@dataclass(frozen=True)
class Finding:
    """What one check has to say of one run."""

    check: str
    case: Case
    details: str

    @property
    def kind(self) -> tuple[str, ...]:
        """What findings have in common that are about the same thing."""
        return (self.check, self.case.source, *self.case.causes)


def find(case: Case, record: Record) -> list[Finding]:
    """Return what is wrong with a run that is over, each check once."""
    found: dict[str, Finding] = {}
    for name, details in record.problems:
        found.setdefault(name, Finding(name, case, details))
    if not record.steps.hung:
        for name, function in CHECKS.items():
            for details in function(record):
                found.setdefault(name, Finding(name, case, details))
    return list(found.values())


def check(name: str) -> Callable[[Check], Check]:
    """Put a check on the list."""

    def add(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return add


@check("order")
def _order(record: Record) -> Problems:
    """Each item at most once, in the order of its source, and none left out before another."""
    for producer in dict.fromkeys(record.producers):
        produced = [item for item in record.produced if record.producers[item] == producer]
        received = [item for item in record.received if record.producers[item] == producer]
        if received != produced[: len(received)]:
            yield f"received {received} of {produced}"


@check("loss")
def _loss(record: Record) -> Problems:
    """Who is told of the end has received everything."""
    outcome = record.outcome
    if outcome is None or not record.saw_end or outcome.grace_exceeded:
        return
    if record.fired_any("aclose", "other-aclose", "scope", "native", "source-native"):
        return
    due = set(record.produced)
    if record.source == "merged_failing" and record.raised:
        # The other one is told of it some time later, and what it yields then is dropped.
        due = set(record.produced[: record.produced_before_error])
    elif record.source == "merged_streams" and record.fired_any("inner-token"):
        return
    if not due <= set(record.received):
        yield f"received {record.received} of {record.produced}, and then the end"


@check("clean-up-once")
def _clean_up_once(record: Record) -> Problems:
    for frame in record.frames:
        if frame.begun != 1:
            yield f"{frame.name} was cleaned up {frame.begun} times"


@check("clean-up-order")
def _clean_up_order(record: Record) -> Problems:
    """The innermost first: a generator begins before those that it iterates."""
    over = [frame.over_at for frame in record.frames if not frame.child and frame.over_at]
    if any(frame.saw and not isinstance(frame.saw, GeneratorExit) for frame in record.frames[:-1]):
        # An exception in the body of a loop leaves it before what it iterates can be closed.
        return
    if record.source in ("two_deep", "three_deep") and over != sorted(over, reverse=True):
        yield f"{[frame.name for frame in record.frames]} were closed at {over}"


@check("clean-up-lost")
def _clean_up_lost(record: Record) -> Problems:
    """A clean-up that takes less than the grace comes to its end, however the stream ended."""
    for frame in record.frames:
        if frame.begun > frame.ended and frame.lasts < GRACE / 3 and not _may_be_cut(record, frame):
            yield f"{frame.name} was interrupted by {text(frame.was_interrupted_by)}"


def _may_be_cut(record: Record, frame: Frame) -> bool:
    if record.fired_any("source-native") and isinstance(
        frame.was_interrupted_by, asyncio.CancelledError
    ):
        # One that comes while the source cleans up ends the await that it meets.
        return True
    if frame.ends_by_itself:
        # It is told in its clean-up, for the first time. See told-natively for how.
        return True
    if frame.in_own_scope and record.fired_any("own-scope"):
        return True
    return _may_be_over(record)


def _may_be_over(record: Record) -> bool:
    """Tell whether the grace may be over: it was ended, or a jump of time has come after this."""
    if record.fired_any("end-grace"):
        return True
    told_by_error = record.source == "merged_failing" and bool(record.raised)
    return record.fired_any("jump") and (len(record.fired) > 1 or record.left or told_by_error)


@check("unbounded")
def _unbounded(record: Record) -> Problems:
    """A clean-up that hangs is cut when the grace is over."""
    # What the source is told natively does not begin a grace while the consumer is there.
    if record.fired_any("jump", "source-native"):
        return
    for frame in record.frames:
        lasted = frame.over_at - frame.begun_at
        if frame.saw is not None and lasted > GRACE + SLACK:
            yield f"the clean-up of {frame.name} was cut after {lasted} s"


@check("told-natively")
def _told_natively(record: Record) -> Problems:
    """What a source sees first is typed, or GeneratorExit at a yield: not the backend's own."""
    if record.fired_any("source-native", "own-scope") or _may_be_over(record):
        return
    for frame in record.frames:
        told = frame.was_interrupted_by if frame.ends_by_itself else frame.saw
        if not frame.child and is_native(told):
            yield f"{frame.name} saw {text(told)}"


@check("told-twice")
def _told_twice(record: Record) -> Problems:
    for frame in record.frames:
        if len(frame.told) > 1:
            yield f"{frame.name} was told {frame.told}"
