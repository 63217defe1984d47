"""What every run is checked for, when it is over. Each check has a name, for reports.

Some things are seen on the spot, and are in ``record.problems`` by then: ``hang``, ``loop-error``,
``loop-fails``, ``unraisable``, ``warning``, ``live-task``, ``generator-left``, ``wrong-task``,
``wrong-context``, ``on-end``, ``ran-on``, ``cancellation-lost``, ``fault-raises``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import anyio

from streamkit import StreamCancelled, StreamTimeout

from .cases import Case
from .frame import Frame
from .record import (
    GRACE,
    BodyError,
    CleanUpError,
    Record,
    SourceError,
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
    """Each item at most once, in order, and none left out before another."""
    if record.received != record.produced[: len(record.received)]:
        yield f"received {record.received} of {record.produced}"


@check("loss")
def _loss(record: Record) -> Problems:
    """Who is told of the end has received everything."""
    outcome = record.outcome
    if outcome is None or not record.saw_end or outcome.grace_exceeded:
        return
    if record.fired_any("aclose", "other-aclose", "scope", "native", "source-native"):
        return
    if record.received != record.produced:
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
    """Tell whether the grace may be over, since a jump of time has come after something else."""
    return record.fired_any("jump") and (len(record.fired) > 1 or record.left)


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


@check("wrapped")
def _wrapped(record: Record) -> Problems:
    """An error comes bare; a group is of two errors at least, and each is the very one."""
    for error in _surfaced(record):
        all_leaves = list(leaves(error))
        errors = [leaf for leaf in all_leaves if not _is_cancellation(leaf)]
        if isinstance(error, BaseExceptionGroup) and len(errors) < 2:
            yield f"{text(error)}"
        if any(isinstance(leaf, _OURS) and not _is_in(leaf, record.raised) for leaf in all_leaves):
            yield f"not the same object: {text(error)}"


@check("error-lost")
def _error_lost(record: Record) -> Problems:
    """What was raised on purpose surfaces somewhere: itself, in a group, or as a context."""
    reached = [leaf for error in _surfaced(record) for leaf in leaves(error, chained=True)]
    for error in record.raised:
        if not _is_in(error, reached) and not _is_replaced(record, error):
            yield f"{text(error)} was seen by nobody"


def _is_replaced(record: Record, error: BaseException) -> bool:
    """Tell whether an error was on its way when the source was told."""
    return any(frame.saw is error and frame.was_interrupted_by for frame in record.frames)


@check("strange-error")
def _strange_error(record: Record) -> Problems:
    """Nothing surfaces that nobody raised."""
    for error in _surfaced(record):
        for leaf in leaves(error):
            known = isinstance(leaf, (*_OURS, StreamCancelled, StreamTimeout))
            closed = isinstance(leaf, anyio.ClosedResourceError)
            broken = isinstance(leaf, anyio.BrokenResourceError)
            if not (
                known
                or (closed and _was_closed(record))
                or (broken and record.fired_any("source-native"))
                or (is_native(leaf) and record.fired_any("native"))
            ):
                yield f"{text(error)}"


@check("cancellation-lost")
def _cancellation_lost(record: Record) -> Problems:
    """A native cancellation leaves the block, unless there was an error."""
    if record.fired_any("scope", "ask-scope", "body-scope"):
        # anyio takes a native cancellation in the context of its own for its own.
        return
    if record.fired_any("native") and (
        record.block_error is None or isinstance(record.block_error, StreamCancelled)
    ):
        yield f"after Task.cancel() the block was left with {text(record.block_error)}"


@check("cancelling")
def _cancelling(record: Record) -> Problems:
    """``Task.cancelling()`` is what it was."""
    asked = record.fired.count("native")
    # anyio itself does not keep the balance where both come together.
    if record.cancelling != asked and not (asked and record.fired_any("scope")):
        yield f"cancelling() is {record.cancelling} after {asked} requests"


def _was_closed(record: Record) -> bool:
    return record.fired_any("aclose", "other-aclose", "scope", "native")


def _surfaced(record: Record) -> list[BaseException]:
    """Return all that came out of the stream anywhere."""
    errors = [*record.asked_errors, record.block_error, record.closer_error]
    return [error for error in errors if error is not None]


def leaves(error: BaseException, *, chained: bool = False) -> Iterator[BaseException]:
    """Yield the exceptions that are no groups, with their contexts and causes if so wanted."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        if chained:
            todo += [exc.__context__, exc.__cause__]
        if isinstance(exc, BaseExceptionGroup):
            todo.extend(exc.exceptions)
        else:
            yield exc


_OURS = (SourceError, CleanUpError, BodyError)


def _is_cancellation(exc: BaseException) -> bool:
    return is_native(exc) or isinstance(exc, StreamCancelled)


def _is_in(exc: BaseException, errors: list[BaseException]) -> bool:
    return any(exc is error for error in errors)
