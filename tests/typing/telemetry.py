"""Checked by mypy and pyright: a stream with telemetry, and who takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from streamkit import Stream, Telemetry, with_keepalive
from streamkit.asgi import StreamHost, StreamResponse
from streamkit.opentelemetry import OpenTelemetry, with_telemetry
from streamkit.runs import Runs
from streamkit.sse import EventStream
from streamkit.starlette import JsonLines, RunEvents


async def numbers() -> AsyncIterator[int]:
    yield 1


assert_type(with_telemetry(numbers(), "numbers"), Stream[int])
assert_type(with_telemetry(with_keepalive(numbers(), 15, None), "numbers"), Stream[int | None])
with_telemetry(numbers(), "numbers", item_gaps=True, meter_provider=NoOpMeterProvider())
with_telemetry(numbers())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

telemetry: Telemetry = OpenTelemetry("a", tracer_provider=NoOpTracerProvider())
runs = Runs(telemetry=telemetry)
StreamHost(telemetry=telemetry)
EventStream(numbers(), telemetry=telemetry)
JsonLines(numbers(), telemetry=telemetry)
RunEvents(runs, "id", telemetry=None)
StreamResponse(numbers(), telemetry="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
