"""Checks of what surfaces: errors bare and none lost, cancellations as the backend means them."""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from streamkit import StreamCancelled, StreamTimeout

from .checks import Problems, check
from .record import BodyError, CleanUpError, Record, SourceError, is_native, text


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
                # The time of on_end is over, since a jump was among it.
                or (isinstance(leaf, TimeoutError) and record.fired_any("jump"))
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
