"""
What is counted: the instruments of a meter provider, made once for each provider.

If no provider is set yet, they are the proxies of OpenTelemetry, which wait for one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from weakref import WeakSet

from opentelemetry.metrics import (
    CallbackOptions,
    Counter,
    Histogram,
    MeterProvider,
    Observation,
    UpDownCounter,
    get_meter_provider,
)

from .safely import SAFELY
from .saying import NAME

#: The scope of what is measured and traced.
SCOPE = "streamkit"

#: The semantic conventions that the names follow.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

# Seconds: the first for what a user waits for, the second for what may take an hour.
_FIRST = tuple(0.01 * 2**power for power in range(14))
_LONG = (*(0.01 * 2**power for power in range(19)), 3600.0)
_COUNTS = (0.0, *(float(4**power) for power in range(10)))


def own_version() -> str | None:
    """Return the version of this package, or ``None`` if it is importable but not installed."""
    try:
        return version("anyio-streamkit")
    except PackageNotFoundError:
        return None


class Lag:
    """
    How far the log is behind the runs of one ``Runs``.

    :param name: the name of these runs
    :param provider: where it is measured, or ``None`` for the global one
    :param held: returns how many of their items are not in the log

    """

    def __init__(self, name: str, provider: MeterProvider | None, held: Callable[[], int]) -> None:
        self.name: str = name
        self.held: Callable[[], int] = held
        self._provider = provider

    @property
    def provider(self) -> MeterProvider:
        """Where it is measured."""
        return get_meter_provider() if self._provider is None else self._provider


#: All that are alive, to be asked how far behind they are.
lags: WeakSet[Lag] = WeakSet()


class Instruments:
    """
    What is measured.

    :param provider: where

    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(SCOPE, own_version(), schema_url=SCHEMA_URL)

        def histogram(name: str, unit: str, what: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                name, unit, what, explicit_bucket_boundaries_advisory=bounds
            )

        self.duration: Histogram = histogram(
            "streamkit.stream.duration",
            "s",
            "Time from the entering of a stream until its source was closed.",
            _LONG,
        )
        self.first: Histogram = histogram(
            "streamkit.stream.time_to_first_item",
            "s",
            "Time from the entering of a stream to its first item.",
            _FIRST,
        )
        self.gap: Histogram = histogram(
            "streamkit.stream.item_gap", "s", "Time between two items of a stream.", _FIRST
        )
        self.items: Histogram = histogram(
            "streamkit.stream.items", "{item}", "Items that a stream has had.", _COUNTS
        )
        self.beats: Histogram = histogram(
            "streamkit.stream.beats", "{beat}", "Beats that a stream has had.", _COUNTS
        )
        self.active: UpDownCounter = meter.create_up_down_counter(
            "streamkit.active_streams", "{stream}", "Streams that are open."
        )
        self.buried: Counter = meter.create_counter(
            "streamkit.runs.buried", "{run}", "Runs that were found to be lost, and were ended."
        )
        self.fenced: Counter = meter.create_counter(
            "streamkit.runs.fenced", "{run}", "Runs that were ended by another process."
        )
        self.resumed: Counter = meter.create_counter(
            "streamkit.runs.resumed", "{reader}", "Readers of runs that have come back."
        )
        self._provider = provider
        # Until a provider is set, this is the proxy that waits for it. From then on, the proxy's
        # instruments are those of the provider.
        self._is_global = provider is get_meter_provider()
        meter.create_observable_up_down_counter(
            "streamkit.runs.lag",
            [self._observe_lag],
            "{item}",
            "Items of runs that were made and are not in the log yet.",
        )

    @property
    def in_effect(self) -> MeterProvider:
        """The provider that receives what is measured now."""
        return get_meter_provider() if self._is_global else self._provider

    def _observe_lag(self, options: CallbackOptions) -> Iterable[Observation]:
        """Return how far the logs are behind. Called by the metric reader, in its thread."""
        behind: defaultdict[str, int] = defaultdict(int)
        with SAFELY:
            for lag in tuple(lags):
                if lag.provider is self.in_effect:
                    behind[lag.name] += lag.held()
        return [Observation(count, {NAME: name}) for name, count in behind.items()]


class Active:
    """
    A stream that counts as open. It is counted by its name alone, so that leaving takes off exactly
    what entering added.

    :param instruments: what to measure it with
    :param name: of the stream

    """

    __slots__ = ("_counted_in", "_instruments", "_name")

    def __init__(self, instruments: Instruments, name: str) -> None:
        self._instruments = instruments
        self._name = name
        self._counted_in = instruments.in_effect
        instruments.active.add(1, {NAME: name})

    def leave(self) -> None:
        """Stop counting it."""
        # A stream that was entered before a provider was set has been counted nowhere.
        if self._instruments.in_effect is self._counted_in:
            self._instruments.active.add(-1, {NAME: self._name})


@lru_cache(maxsize=64)
def instruments_of(provider: MeterProvider) -> Instruments:
    """Return the instruments of a provider, and make them only once."""
    return Instruments(provider)
