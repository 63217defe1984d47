"""What OpenTelemetry is told, and under which name. Providers are looked up only when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import Tracer, TracerProvider, get_tracer_provider

from .._core.stage import Stage
from .instruments import SCHEMA_URL, SCOPE, Instruments, instruments_of, own_version
from .runs import ToldByRuns
from .stage import GapStage, TelemetryStage


class OpenTelemetryHooks:
    """
    Tells OpenTelemetry.

    :param name: of the streams, or ``None`` for the name that each stream has itself
    :param item_gaps: whether to measure the time between items
    :param meter_provider: where to measure, or ``None`` for the global one
    :param tracer_provider: where to trace runs, or ``None`` for the global one

    """

    def __init__(
        self,
        name: str | None,
        item_gaps: bool,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
    ) -> None:
        self._name = name
        self._stage = GapStage if item_gaps else TelemetryStage
        self._meter_provider = meter_provider
        self._tracer_provider = tracer_provider

    def stage(
        self,
        name: str | None = None,
        scope: Mapping[str, Any] | None = None,
        told: Callable[[], BaseException | None] | None = None,
    ) -> Stage[Any, Any]:
        return self._stage(self._instruments, self._name or name, scope, told)

    def runs(self, held: Callable[[], int]) -> ToldByRuns:
        return ToldByRuns(self._name, self._meter_provider, self._instruments, self._tracer, held)

    def _instruments(self) -> Instruments:
        provider = self._meter_provider
        return instruments_of(get_meter_provider() if provider is None else provider)

    def _tracer(self) -> Tracer:
        provider = self._tracer_provider
        provider = get_tracer_provider() if provider is None else provider
        return provider.get_tracer(SCOPE, own_version(), SCHEMA_URL)
