"""
Tell OpenTelemetry how streams go: how long they last, how soon their first item comes, how many
items they have, how many streams are open, and how they end.

:class:`OpenTelemetry` is given as ``telemetry`` to responses, to a host or to runs.
:func:`with_telemetry` is for any other stream.
"""

from __future__ import annotations

from typing import TypeVar

from ._core.extras import without_extra
from ._core.source import AsyncSource
from ._core.stream import Stream, with_stage
from ._core.telemetry import Telemetry

try:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from ._telemetry.hooks import OpenTelemetryHooks as _OpenTelemetryHooks
except ImportError as _error:
    raise without_extra(
        "streamkit.opentelemetry", "opentelemetry", "opentelemetry", _error
    ) from _error

__all__ = ["OpenTelemetry", "with_telemetry"]

T = TypeVar("T")


class OpenTelemetry(Telemetry):
    """
    Tells OpenTelemetry how streams go. One object may serve any number of them.

    For each stream, when its source is closed, it records

    * the histograms ``streamkit.stream.duration`` and ``streamkit.stream.time_to_first_item``, in
      seconds, ``streamkit.stream.items`` and ``streamkit.stream.beats``;
    * the attributes ``streamkit.stream.name``, ``streamkit.outcome``, which is the kind of its
      :class:`~streamkit.Outcome`, ``http.route`` where that is known, and ``error.type`` where
      there was an error;
    * on the span that was current when the stream was entered: the same attributes, and the counts.
      The status of the span is ERROR if the stream has failed, has timed out or was lost. Otherwise
      it is left alone: a client that has gone is not an error. If several streams are open in one
      span, it describes the first one.

    While a stream is open, it is counted in ``streamkit.active_streams``, by its name.

    It does the same for each run of :class:`~streamkit.runs.Runs`, with a span of its own, which is
    current in its source. It also counts ``streamkit.runs.lag``, ``streamkit.runs.buried``,
    ``streamkit.runs.fenced`` and ``streamkit.runs.resumed``. The span of a reader links to the span
    of its run.

    Nothing is done for each item, unless ``item_gaps`` is true. What OpenTelemetry raises is logged
    once, and breaks no stream.

    :param name: of the streams: one name for all of a kind, because each name has its own series.
        With ``None``, it is the name of the source: that of the function that made it
    :param item_gaps: whether to measure the time between items,
        ``streamkit.stream.item_gap``, which costs some microseconds for each item
    :param meter_provider: makes the instruments; with ``None``, the global one
    :param tracer_provider: makes the spans of runs; with ``None``, the global one
    :raises TypeError: if the name is not text

    """

    def __init__(
        self,
        name: str | None = None,
        *,
        item_gaps: bool = False,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if name is not None:
            _check_name("OpenTelemetry", name)
        super().__init__(_OpenTelemetryHooks(name, item_gaps, meter_provider, tracer_provider))


def with_telemetry(
    source: AsyncSource[T],
    name: str,
    *,
    item_gaps: bool = False,
    meter_provider: MeterProvider | None = None,
) -> Stream[T]:
    """
    Tell OpenTelemetry how a stream goes.

    :class:`OpenTelemetry` says what is told, and on which span.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream
    :param name: of the stream: one name for all of a kind
    :param item_gaps: whether to measure the time between items, which costs some time for each of
        them
    :param meter_provider: makes the instruments; with ``None``, the global one
    :return: a stream of the same items
    :raises TypeError: if ``source`` is not a source, or the name is not text

    """
    _check_name("with_telemetry", name)
    hooks = _OpenTelemetryHooks(name, item_gaps, meter_provider, None)
    return with_stage(source, hooks.stage())


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(
            f"{what} takes the name of a kind of streams, got {name!r}: write one that is the same "
            "for all of them, 'chat' for instance"
        )
