"""OpenTelemetry's own SDK, which keeps in memory what it is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamkit.opentelemetry import OpenTelemetry

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pytest
    from opentelemetry.trace import Span

DURATION = "streamkit.stream.duration"
FIRST = "streamkit.stream.time_to_first_item"
ITEMS = "streamkit.stream.items"
BEATS = "streamkit.stream.beats"
ACTIVE = "streamkit.active_streams"


class Told:
    """What was told: of streams, and of the requests of FastAPI."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    def telemetry(self, name: str | None = None, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(
            name, meter_provider=self.meters, tracer_provider=self.tracers, **options
        )

    def span(self, name: str = "request") -> AbstractContextManager[Span]:
        """Make a span the current one, of which nothing is said that nobody says."""
        return self.tracers.get_tracer("tests").start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in that order."""
        spans = list(self._exporter.get_finished_spans())
        # Deprecated in favour of logs.
        assert all(not span.events for span in spans)
        return spans

    @property
    def said(self) -> list[tuple[str, dict[str, Any]]]:
        """What is said on each span: its status, and what it has of streamkit's and of errors."""
        return [(span.status.status_code.name, ours(span.attributes)) for span in self.spans]

    def metrics(self) -> dict[str, Any]:
        """Everything that was measured until now, by name."""
        data: Any = self._reader.get_metrics_data()
        resources = [] if data is None else data.resource_metrics
        return {
            metric.name: metric
            for resource in resources
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[Any]:
        found = self.metrics().get(name)
        return [] if found is None else list(found.data.data_points)

    def sums(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """What was measured under a name: the attributes and the sum of each series."""
        return [
            (dict(point.attributes), point.sum if hasattr(point, "sum") else point.value)
            for point in self.points(name)
        ]

    def counts(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """How often it was measured, in each series of a histogram."""
        return [(dict(point.attributes), point.count) for point in self.points(name)]

    @property
    def ends(self) -> list[tuple[str, str | None]]:
        """How each stream has ended, and with which error: they are measured under that."""
        return [
            (point.attributes["streamkit.outcome"], point.attributes.get("error.type"))
            for point in self.points(DURATION)
            for _ in range(point.count)
        ]

    @property
    def active(self) -> int:
        """How many streams are open. None is left over if what was added is taken off again."""
        return sum(point.value for point in self.points(ACTIVE))


def ours(attributes: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in attributes.items()
        if name.startswith("streamkit.") or name == "error.type"
    }


class Broken(MeterProvider):
    """A provider of which one call fails.

    :param call: "get_meter", "add" or "record"

    """

    def __init__(self, call: str) -> None:
        super().__init__(shutdown_on_exit=False)
        self._call = call
        #: how often it has failed
        self.failed = 0

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        if self._call == "get_meter":
            self.fail()
        return BrokenMeter(self)

    def fail_in(self, call: str) -> None:
        if call == self._call:
            self.fail()

    def fail(self) -> None:
        self.failed += 1
        raise RuntimeError("the meter is broken")


class BrokenMeter:
    def __init__(self, provider: Broken) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        assert name.startswith("create_")
        return lambda *args, **kwargs: BrokenInstrument(self._provider)


class BrokenInstrument:
    def __init__(self, provider: Broken) -> None:
        self._provider = provider

    def add(self, *args: Any) -> None:
        self._provider.fail_in("add")

    def record(self, *args: Any) -> None:
        self._provider.fail_in("record")


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what was logged as an error. Other things may be, on a machine that is busy."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]
