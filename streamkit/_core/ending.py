"""
What the end of a source means: the part of the outcome that follows from what was done to it and
what it raised.

The first of these that happened decides: a signal that was delivered, a failure of a stage, the
consumer that left, the end or the error of the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from .exceptions import (
    StreamCancelled,
    cancelled_only,
    is_stream_cancelled,
    was_thrown_at_yield,
    without,
)
from .outcome import OutcomeKind
from .scopes import Signal


@dataclass(slots=True)
class Ending:
    """How a source ended, and what that raises in the consumer."""

    kind: OutcomeKind
    raises: BaseException | None = None
    reason: object = None
    error: BaseException | None = None
    cleanup_error: BaseException | None = None


def judge(
    raised: BaseException | None,
    *,
    exhausted: bool,
    signal: Signal | None,
    failure: BaseException | None,
    left: bool,
) -> Ending:
    """
    Decide how a source ended.

    :param raised: what the source raised
    :param exhausted: whether it came to its own end
    :param signal: the typed cancellation that it was, or was about to be, told of
    :param failure: the error of a stage
    :param left: whether the consumer has left

    """
    error = raised and without(raised, is_backend_cancellation)
    if signal is not None or left:
        # What closing an inner generator has made of it, by the way.
        error = error and without(error, was_thrown_at_yield)
    if signal is not None:
        error = failure or (error and without(error, is_stream_cancelled))
        raises = error
        if error is None and not exhausted:
            raises = _told(signal, raised)
        return Ending(signal.kind, raises, signal.reason, error)
    cleanup_error = error and without(error, is_stream_cancelled)
    if failure is not None:
        return Ending("failed", failure, error=failure, cleanup_error=cleanup_error)
    if left:
        return Ending("closed", cleanup_error=cleanup_error)
    if exhausted:
        return Ending("completed")
    if error is not None:
        return _after_error(error)
    if anyio.get_current_task().has_pending_cancellation():
        # A scope around the stream. The consumer is in it, too, and gets its own.
        lost = anyio.ClosedResourceError("a cancel scope around the stream was cancelled")
        return Ending("closed", lost)
    broken = anyio.BrokenResourceError(
        "the source raised a cancellation that no cancel scope had asked for"
    )
    broken.__cause__ = raised
    return Ending("failed", broken, error=raised)


def _after_error(error: BaseException) -> Ending:
    stop = cancelled_only(error)
    if stop is None:
        return Ending("failed", error, error=error)
    plain = StreamCancelled(stop.reason).with_traceback(error.__traceback__)
    return Ending("cancelled", error if type(error) is StreamCancelled else plain, stop.reason)


def is_backend_cancellation(exc: BaseException) -> bool:
    """Tell whether an exception is asyncio's or trio's own."""
    return isinstance(exc, anyio.get_cancelled_exc_class()) and not is_stream_cancelled(exc)


def only_backend_cancellation(exc: BaseException | None) -> bool:
    """Tell whether an exception is such a cancellation, or a group of nothing else."""
    return exc is not None and without(exc, is_backend_cancellation) is None


def was_cancelled_before(exc: BaseException) -> bool:
    """Tell whether an error was raised while a cancellation of the backend was on its way."""
    seen: set[int] = set()
    context = exc.__context__
    while context is not None and id(context) not in seen:
        if only_backend_cancellation(context):
            return True
        seen.add(id(context))
        context = context.__context__
    return False


def _told(signal: Signal, raised: BaseException | None) -> BaseException:
    """Return what the consumer sees of a signal, with the traceback of the source."""
    try:
        error = signal.error(signal.reason)
    except BaseException as exc:
        return exc
    return error.with_traceback(None if raised is None else raised.__traceback__)
