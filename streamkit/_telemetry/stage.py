"""
The stage of one stream. It is called when the stream is entered and when its source is closed, and
not for items.

It reports in ``on_end``, before the last word: a framework may end its span within the last
message. The time of the first item is in the outcome. The time between items is not, so measuring
it costs something for each item, and is done only on request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._core.control import Control
from .._core.outcome import Outcome
from .._core.stage import Stage
from .._runs.errors import RunEnded
from .instruments import Active, Instruments
from .route import route_of, span_of
from .safely import SAFELY
from .saying import NAME, ROUTE, said_of, said_of_run, say
from .spans import Place


class TelemetryStage(Stage[Any, Any]):
    """
    Reports how one stream goes.

    :param find: returns what to measure it with
    :param name: of the stream, or ``None`` for the name of its source
    :param scope: of the request, if there is one
    :param told: returns the error that the client was told, where the outcome does not have it

    """

    def __init__(
        self,
        find: Callable[[], Instruments],
        name: str | None,
        scope: Mapping[str, Any] | None,
        told: Callable[[], BaseException | None] | None,
    ) -> None:
        self._find = find
        #: ``None`` before the stream is entered, or if telemetry has failed.
        self._instruments: Instruments | None = None
        self._name = name
        self._scope = scope
        self._told = told
        self._place: Place | None = None
        self._active: Active | None = None
        #: The attributes that do not depend on the end.
        self._attributes: dict[str, str] = {}

    def on_open(self, control: Control) -> None:
        with SAFELY:
            instruments = self._find()
            name = control.source_name if self._name is None else self._name
            self._attributes = {NAME: name}
            route, request = route_of(self._scope), span_of(self._scope)
            # Do not keep the request alive.
            self._scope = None
            if route is not None:
                self._attributes[ROUTE] = route
            # In the consumer's task, where the source's own spans are not current.
            self._place, self._instruments = Place(request), instruments
            self._active = Active(instruments, name)

    def on_close(self) -> None:
        # Done already, unless the stream could not be entered.
        self._leave()

    async def on_end(self, outcome: Outcome) -> None:
        with SAFELY:
            self._end(outcome)
        self._leave()

    def _end(self, outcome: Outcome) -> None:
        place, instruments = self._place, self._instruments
        if place is None or instruments is None:
            return
        error = outcome.error
        if self._told is not None and outcome.kind == "completed":
            error = self._told()
        said = said_of_run(error) if isinstance(error, RunEnded) else said_of(outcome)
        attributes, context = {**self._attributes, **said}, place.context
        # First, because a meter may fail.
        for span in place.spans:
            if span.is_recording():
                say(span, attributes, outcome.items, outcome.beats)
        seconds = outcome.ended_at - outcome.started_at
        instruments.duration.record(seconds, attributes, context)
        if outcome.first_item_at is not None:
            seconds = outcome.first_item_at - outcome.started_at
            instruments.first.record(seconds, attributes, context)
        instruments.items.record(outcome.items, attributes, context)
        instruments.beats.record(outcome.beats, attributes, context)

    def _leave(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()
        active, self._active = self._active, None
        if active is not None:
            with SAFELY:
                active.leave()


class GapStage(TelemetryStage):
    """Also reports the time between items, which costs something for each item."""

    _control: Control | None = None
    _last: float | None = None

    def on_open(self, control: Control) -> None:
        super().on_open(control)
        self._control = control

    def on_close(self) -> None:
        super().on_close()
        self._control = None

    async def on_end(self, outcome: Outcome) -> None:
        # What comes after the end does not count as an item.
        self._control = None
        await super().on_end(outcome)

    def on_item(self, item: Any) -> Any:
        control, instruments, last = self._control, self._instruments, self._last
        if control is not None and instruments is not None:
            self._last = control.now()
            if last is not None:
                with SAFELY:
                    instruments.gap.record(self._last - last, self._attributes)
        return item
