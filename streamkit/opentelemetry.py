"""
Tell OpenTelemetry how streams go: how long they last, how soon their first item comes, how many
they have, how many are open, and how they end.

:class:`OpenTelemetry` is given as ``telemetry`` to responses, to a host or to runs.
:func:`with_telemetry` is for a stream that is none of these.
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
    Tells OpenTelemetry how streams go. One may serve any number of them.

    Of each stream, when its source is closed:

    * the histograms ``streamkit.stream.duration`` and ``streamkit.stream.time_to_first_item``, in
      seconds, ``streamkit.stream.items`` and ``streamkit.stream.beats``;
    * the attributes ``streamkit.stream.name``, ``streamkit.outcome``, which is the kind of its
      :class:`~streamkit.Outcome`, ``http.route`` where that is known, and ``error.type`` where
      there was an error;
    * on the span that was current when the stream was entered the same attributes, and the counts.
      The status of the span is ERROR if the stream has failed, has timed out or was lost, and is
      left alone else: a client that has gone is no error. If several streams are open in one span,
      it is told of the first one.

    While it is open, it counts in ``streamkit.active_streams``, by its name.

    Of each run of :class:`~streamkit.runs.Runs` the same, with a span of its own, which is current
    in its source; and ``streamkit.runs.lag``, ``streamkit.runs.buried``, ``streamkit.runs.fenced``
    and ``streamkit.runs.resumed``. The span of a reader links to that of its run.

    Nothing is done for each item, unless ``item_gaps`` is true. What OpenTelemetry raises is logged
    once, and breaks no stream.

    :param name: of the streams: one for all of a kind, as for each name there are series of its
        own. With ``None``, it is the name of the source: of the function that has made it
    :param item_gaps: whether to measure the time between items,
        ``streamkit.stream.item_gap``, which costs each of them some microseconds
    :param meter_provider: where it is measured; with ``None``, the global one
    :param tracer_provider: where the spans of runs are made; with ``None``, the global one
    :raises TypeError: if the name is no text

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

    What is told, and on which span, is told of :class:`OpenTelemetry`.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream
    :param name: of the stream: one for all of a kind
    :param item_gaps: whether to measure the time between items, which costs each of them
    :param meter_provider: where it is measured; with ``None``, the global one
    :return: a stream of the same items
    :raises TypeError: if the source is none, or the name is no text

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
