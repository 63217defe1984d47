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
    error_in,
    is_stream_cancelled,
    not_an_end,
    set_traceback,
    was_thrown_at_yield,
    without,
)
from .outcome import OutcomeKind
from .signal import Signal


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
    :param signal: the typed cancellation that it was told, or was about to be told
    :param failure: the error of a stage
    :param left: whether the consumer has left

    """
    error, untold = raised, None
    if not isinstance(raised, StreamCancelled):
        error = error_in(raised)
        if error is not None and (signal is not None or left):
            # Closing an inner generator may have turned it into this.
            error = without(error, was_thrown_at_yield)
        untold = None if error is None else without(error, is_stream_cancelled)
    if signal is not None and not signal.is_left:
        error = untold if failure is None else failure
        raises = error
        if error is None and not exhausted:
            raises = _told(signal, raised)
        cleanup_error = None if failure is None else untold
        return Ending(signal.kind, raises, signal.reason, error, cleanup_error)
    if failure is not None:
        return Ending("failed", failure, error=failure, cleanup_error=untold)
    if left:
        return Ending("closed", cleanup_error=untold)
    if exhausted:
        return Ending("completed")
    if error is not None:
        return _after_error(error)
    broken = anyio.BrokenResourceError(
        "the source raised a cancellation that no cancel scope had asked for"
    )
    broken.__cause__ = raised
    return Ending("failed", broken, error=raised)


def _after_error(error: BaseException) -> Ending:
    stop = cancelled_only(error)
    if stop is None:
        return Ending("failed", error, error=error)
    if type(error) is StreamCancelled:
        return Ending("cancelled", error, stop.reason)
    plain = set_traceback(StreamCancelled(stop.reason), error.__traceback__)
    return Ending("cancelled", plain, stop.reason)


def _told(signal: Signal, raised: BaseException | None) -> BaseException:
    """Return what the consumer sees of a signal, with the traceback of the source."""
    try:
        error = signal.error(signal.reason)
    except BaseException as exc:
        return not_an_end(exc)
    return set_traceback(error, None if raised is None else raised.__traceback__)
