"""
Which stream a span tells of: the outermost one of those that are open in it.

A source may read another stream, and make good what went wrong there: that is no failure of the
request. For who wants to see it, a span of its own goes around it.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span

# Held, so that the number of one is not that of another.
_taken: dict[int, Span] = {}


class Place:
    """Where one stream tells how it goes: the current span, if no stream around it has that."""

    __slots__ = ("context", "span")

    def __init__(self) -> None:
        #: For what is measured: an exemplar shows the trace.
        self.context: Context = get_current()
        #: Where it is said.
        self.span: Span | None = None
        span = trace.get_current_span(self.context)
        if span.is_recording() and id(span) not in _taken:
            _taken[id(span)] = self.span = span

    def leave(self) -> None:
        """Let the span tell of another stream."""
        span, self.span = self.span, None
        if span is not None:
            del _taken[id(span)]
