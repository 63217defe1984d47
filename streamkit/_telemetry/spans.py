"""
Which stream a span tells of: the outermost one of those that are open in it. And which spans tell
of a stream: the current one, and that of its request.

A source may read another stream, and make good what went wrong there: that is not a failure of the
request. To see it, put a span of its own around it.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span

# By the number of a span: where it is said. That holds the span, so that the number is not that of
# another. Any thread may take one, in one step.
_taken: dict[int, Place] = {}


class Place:
    """
    Where one stream tells how it goes: each span that no stream around it has.

    :param request: that of the request, which may be further out than the current one

    """

    __slots__ = ("context", "spans")

    def __init__(self, request: Span | None = None) -> None:
        #: For what is measured: an exemplar shows the trace.
        self.context: Context = get_current()
        #: Where it is said.
        self.spans: list[Span] = []
        spans = trace.get_current_span(self.context), request
        # All are asked before any is taken: that may raise.
        for span in [span for span in spans if span is not None and span.is_recording()]:
            if _taken.setdefault(id(span), self) is self and span not in self.spans:
                self.spans.append(span)

    def leave(self) -> None:
        """Let the spans tell of another stream."""
        while self.spans:
            del _taken[id(self.spans.pop())]
