"""
What runs report: each in a span of its own, because the request that started it may be over.

The span is a child of that request's span, and what the source traces is a child of the run's span.
The span's context goes into the log, beside what the run was started with. So the readers of any
process can link to it, and whoever buries the run can report its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .._core.outcome import Outcome
from .._core.telemetry import Resumed
from .instruments import Active, Instruments, Lag, lags
from .safely import SAFELY
from .saying import FOUND, NAME, said_of, said_of_lost, say
from .spans import Place

# The key of a run's name, beside its span's context.
_NAME = "name"

_NANOSECONDS = 1_000_000_000

_propagator = TraceContextTextMapPropagator()


class ToldByRuns:
    """
    What the runs of one program report.

    :param name: of the runs, or ``None`` for the names of their sources
    :param provider: where they are measured, or ``None`` for the global one
    :param find: returns what to measure them with
    :param find_tracer: returns where to trace them
    :param held: returns how many items are not in the log yet

    """

    def __init__(
        self,
        name: str | None,
        provider: MeterProvider | None,
        find: Callable[[], Instruments],
        find_tracer: Callable[[], Tracer],
        held: Callable[[], int],
    ) -> None:
        self._name = name
        self._find = find
        self._find_tracer = find_tracer
        self._lag = Lag(name or "runs", provider, held)

    def run(self, source_name: str) -> ToldByRun:
        lags.add(self._lag)
        return ToldByRun(self._name or source_name, self._find, self._find_tracer)

    def read(self, note: Mapping[str, str]) -> None:
        with SAFELY:
            span = trace.get_current_span(_propagator.extract(note)).get_span_context()
            if span.is_valid:
                trace.get_current_span().add_link(span)

    def resumed(self, note: Mapping[str, str], found: Resumed) -> None:
        with SAFELY:
            self._find().resumed.add(1, {NAME: self._name_in(note), FOUND: found})

    def buried(self, note: Mapping[str, str], seconds: float, items: int) -> None:
        with SAFELY:
            attributes = {NAME: self._name_in(note), **said_of_lost()}
            instruments = self._find()
            instruments.buried.add(1, {NAME: attributes[NAME]})
            # In place of the span that died with its process.
            now = time.time_ns()
            span = self._find_tracer().start_span(
                f"run {attributes[NAME]}",
                _propagator.extract(note),
                start_time=now - round(seconds * _NANOSECONDS),
            )
            say(span, attributes, items)
            span.end(now)
            instruments.duration.record(seconds, attributes)
            instruments.items.record(items, attributes)

    def _name_in(self, note: Mapping[str, str]) -> str:
        return note.get(_NAME) or self._lag.name


class ToldByRun:
    """
    What one run reports.

    :param name: of the run
    :param find: returns what to measure it with
    :param find_tracer: returns where to trace it

    """

    def __init__(
        self, name: str, find: Callable[[], Instruments], find_tracer: Callable[[], Tracer]
    ) -> None:
        self.note: dict[str, str] = {}
        self._name = name
        self._find = find
        self._find_tracer = find_tracer
        self._span: Span | None = None
        self._place: Place | None = None
        self._active: Active | None = None
        self._has_ended = False

    def begin(self) -> None:
        with SAFELY:
            self._span = self._find_tracer().start_span(f"run {self._name}")
            # Never detached: the run's task ends with the run, and its context with it.
            attach(trace.set_span_in_context(self._span))
            self._place = Place()
            note: dict[str, str] = {}
            _propagator.inject(note)
            self.note = {**note, _NAME: self._name}

    def start(self) -> None:
        with SAFELY:
            self._active = Active(self._find(), self._name)

    def end(self, outcome: Outcome, *, fenced: bool = False) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        with SAFELY:
            attributes = {NAME: self._name, **said_of(outcome)}
            if self._span is not None:
                say(self._span, attributes, outcome.items, outcome.beats)
            instruments = self._find()
            if fenced:
                instruments.fenced.add(1, {NAME: self._name})
            instruments.duration.record(outcome.ended_at - outcome.started_at, attributes)
            if outcome.first_item_at is not None:
                instruments.first.record(outcome.first_item_at - outcome.started_at, attributes)
            instruments.items.record(outcome.items, attributes)
            instruments.beats.record(outcome.beats, attributes)

    def close(self) -> None:
        if self._place is not None:
            self._place.leave()
        with SAFELY:
            if self._active is not None:
                self._active.leave()
        with SAFELY:
            if self._span is not None:
                self._span.end()
