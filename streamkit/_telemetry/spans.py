"""
Which stream a span describes: the outermost of those that are open in it. And which spans describe
a stream: the current span, and that of its request.

A source may read another stream and recover from its failure, so that the request has not failed.
To see such a failure, put a span around the inner stream.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span

# By ``id()`` of the span: where it is told of. That holds the span, so that no other span gets the
# same id. Any thread may take one, in one step.
_taken: dict[int, Place] = {}


class Place:
    """
    The spans that describe one stream: those that no outer stream has taken.

    :param request: the request's span, which may be further out than the current one

    """

    __slots__ = ("context", "spans")

    def __init__(self, request: Span | None = None) -> None:
        #: For measurements: exemplars point to the trace.
        self.context: Context = get_current()
        #: The spans that were taken.
        self.spans: list[Span] = []
        spans = trace.get_current_span(self.context), request
        # All are asked before any is taken: that may raise.
        for span in [span for span in spans if span is not None and span.is_recording()]:
            if _taken.setdefault(id(span), self) is self and span not in self.spans:
                self.spans.append(span)

    def leave(self) -> None:
        """Free the spans for another stream."""
        while self.spans:
            del _taken[id(self.spans.pop())]
