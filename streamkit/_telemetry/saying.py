"""How an end is described: in attributes, and as the status of a span."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.trace import Span, StatusCode

from .._combinators.timeout import StreamTimeout
from .._core.exceptions import bare
from .._core.outcome import Outcome
from .._runs.errors import RunEnded, RunLost

#: The name of a stream: one name for all streams of a kind.
NAME: Final = "streamkit.stream.name"
OUTCOME: Final = "streamkit.outcome"
ITEMS: Final = "streamkit.stream.items"
BEATS: Final = "streamkit.stream.beats"
FOUND: Final = "streamkit.resumed"
ROUTE: Final = "http.route"
ERROR_TYPE: Final = "error.type"

# What counts as an error. A client that goes does not, nor does a stream that was told to stop.
_ERRORS = frozenset(("failed", "timed_out", "lost"))


def said_of(outcome: Outcome) -> dict[str, str]:
    """Return the attributes of an end."""
    errors = outcome.error, outcome.on_end_error, outcome.cleanup_error
    error = next((error for error in errors if error is not None), None)
    if error is None and outcome.kind == "timed_out":
        return _said(outcome.kind, StreamTimeout)
    return _said(outcome.kind, None if error is None else type(bare(error)))


def said_of_run(ended: RunEnded) -> dict[str, str]:
    """Return the attributes of a reader's end, which is the end of its run."""
    outcome = ended.info.outcome
    assert outcome is not None
    return _said(outcome.kind, type(ended) if outcome.kind in _ERRORS else None)


def said_of_lost() -> dict[str, str]:
    """Return the attributes of a run whose process has died."""
    return _said("lost", RunLost)


def _said(kind: str, error: type[BaseException] | None) -> dict[str, str]:
    if error is None:
        return {OUTCOME: kind}
    # As OpenTelemetry does it: built-in errors are named without their module.
    module = "" if error.__module__ == "builtins" else f"{error.__module__}."
    return {OUTCOME: kind, ERROR_TYPE: f"{module}{error.__qualname__}"}


def say(span: Span, said: Mapping[str, str], items: int, beats: int | None = None) -> None:
    """Set the attributes, counts and status of a span."""
    span.set_attributes(said)
    span.set_attribute(ITEMS, items)
    if beats is not None:
        span.set_attribute(BEATS, beats)
    if said[OUTCOME] in _ERRORS:
        span.set_status(StatusCode.ERROR)
