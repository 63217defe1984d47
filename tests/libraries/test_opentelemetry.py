"""OpenTelemetry: spans that are current across the yields of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from opentelemetry.context import Context

    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]


class Open(SpanProcessor):
    """Knows the spans that have not ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.names.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self.names.remove(span.name)


async def test_spans(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """V5, Y1: a span in each of two generators; both end, in the context that they began in."""
    spans = Open()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    tracer = provider.get_tracer("tests")
    before = trace.get_current_span()

    async def words() -> AsyncGenerator[str, None]:
        with tracer.start_as_current_span("model"):
            yield "To"
            await anyio.sleep_forever()

    async def answer() -> AsyncGenerator[str, None]:
        with tracer.start_as_current_span("answer"):
            async for word in words():
                yield word

    await way.leave(Library(answer, held=spans.names.copy), caplog)
    # What the source makes current is so in its own context alone.
    assert trace.get_current_span() is before
