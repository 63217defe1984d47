"""What becomes of an error: it is either raised to the server or logged, never both."""

from __future__ import annotations

import logging
from typing import Any

from .._combinators.status import StatusStream
from .._core.exceptions import bare, cancelled_only, is_stream_cancelled, without
from .._signals.shutdown import Shutdown
from .terms import ResponseCancelled, Terms

_logger = logging.getLogger("streamkit")


def for_the_server(
    error: BaseException, stream: StatusStream[Any], *, gone: bool
) -> BaseException | None:
    """
    Return what to raise for an error: servers only expect an :exc:`Exception`.

    :param error: what came out of the stream
    :param stream: the stream
    :param gone: whether the client has gone

    """
    stop = cancelled_only(error)
    if stop is None:
        rest = without(error, is_stream_cancelled)
        assert rest is not None
        return rest if rest is error else bare(rest)
    if gone:
        # The client went after the end of the stream, and cannot be told.
        return None
    if isinstance(stop.reason, Shutdown):
        # One for each stream that is open when a program ends, so neither an error nor a traceback.
        _logger.warning(
            "%r was cut off: the program ends, and there is no last word to say so", stream
        )
        return None
    cancelled = ResponseCancelled(stop.reason)
    cancelled.__cause__ = error
    return cancelled


def log_failure(
    stream: StatusStream[Any], terms: Terms, error: BaseException, *, gone: bool
) -> None:
    """Log a failure that is not raised, because the client was told of it, or has gone."""
    if terms.logs_failures:
        told = "its client has gone" if gone else "told its client so"
        _logger.error("%r failed, and %s", stream, told, exc_info=error)
