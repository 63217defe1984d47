"""
Relays that see where their source waits: subclasses of the usual ones, around the same trampoline.

The source of the interrupted stream is observed, and so are the sources of the streams inside it.
What the first source is told counts. If an inner source goes on with the same wait after it was
told, it has swallowed that, too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

from .._core.exceptions import cancelled_only
from .._core.relay import Relay
from .._core.relay_asyncio import AsyncioRelay
from .._core.relay_trio import TrioRelay
from .._core.scopes import Scopes
from .._core.source import Source
from .._core.stepping import Steps
from .abandoned import Abandoned, abandon
from .eye import Eye
from .loops import running_task
from .places import Place, place_of, place_of_yield

T = TypeVar("T")


class Seen:
    """What is seen of one source that streamkit steps."""

    def __init__(self, eye: Eye, source: Source[object], steps: Steps, *, is_first: bool) -> None:
        self.eye: Eye = eye
        #: How many items the source had made when it was told.
        self.made_before: int | None = None
        #: Whether it has raised what it was told.
        self.let_out: bool = False
        self._source = source
        self._steps = steps
        self._is_first = is_first
        self._task = running_task()
        self._work: object = None
        self._told_at: Place | None = None
        self._told_after = 0
        #: Whether it has yielded, and waits for its consumer.
        self._waits_at_yield = False
        self._is_closing = False

    def begin(self, work: object) -> None:
        """Note what is driven: first the steps of the source, then its closing."""
        self._is_closing = self._work is not None
        self._work = work
        iterator = self._source.iterator
        if self._is_closing and getattr(iterator, "ag_frame", None) is not None:
            # It gets a GeneratorExit.
            self._tell(place_of_yield(iterator))

    def ended(self, raised: object) -> None:
        """Note that the driven work is over, and what the source has raised, if anything."""
        if isinstance(raised, BaseException):
            self.let_out = cancelled_only(raised) is not None

    def suspended(self, *, in_source: bool) -> None:
        """Note a wait, if it is the source that waits."""
        if in_source or self._is_closing:
            self._waits_at_yield = False
            place = place_of(self._work)
            if self._told_at is not None and len(self.eye.trace) == self._told_after:
                self._look_for_same(place)
        elif self._waits_at_yield or not self._steps.has_started:
            return
        else:
            self._waits_at_yield = True
            place = place_of_yield(self._source.iterator)
        self.eye.suspended(place, self._task)

    def told(self, *, in_source: bool) -> None:
        """Note that the source is being told."""
        at_yield = not in_source
        self._tell(place_of_yield(self._source.iterator) if at_yield else place_of(self._work))

    def _tell(self, place: Place) -> None:
        if self._told_at is None:
            self._told_at, self._told_after = place, len(self.eye.trace)
            if self._is_first:
                self.made_before = self._steps.items
                self.eye.told(place)

    def _look_for_same(self, place: Place) -> None:
        if place == self._told_at and not (place.is_an_exit or self.eye.swallowed_at):
            self.eye.swallowed_at = place


class _Observed(Relay):
    seen: Seen

    def exception(self) -> Any:
        self.seen.told(in_source=self.in_source)
        return super().exception()

    @coroutine
    def drive(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        driven: Any = super().drive(work)
        seen, eye = self.seen, self.seen.eye
        seen.begin(work)
        value: Any = None
        exc: BaseException | None = None
        try:
            while True:
                eye.is_running = True
                try:
                    yielded = driven.send(value) if exc is None else driven.throw(exc)
                except StopIteration as stop:
                    seen.ended(stop.value)
                    return cast("T", stop.value)
                finally:
                    eye.is_running = False
                    eye.pulse += 1
                value = exc = None
                try:
                    seen.suspended(in_source=self.in_source)
                    value = yield yielded
                except BaseException as thrown:
                    exc = thrown
                if eye.is_over:
                    abandon(driven)
                    raise Abandoned
        finally:
            value = exc = yielded = None


class _ObservedAsyncio(_Observed, AsyncioRelay):
    pass


class _ObservedTrio(_Observed, TrioRelay):
    pass


class Watch:
    """
    Watches all streams that are opened while it is set, with the same eye.

    :param eye: is told what is seen
    :param is_inside: whether the streams are inside something that is watched itself

    """

    def __init__(self, eye: Eye, *, is_inside: bool = False) -> None:
        #: What is seen of the first stream, without the streams inside it.
        self.first: Seen | None = None
        self._eye = eye
        self._is_inside = is_inside

    def __call__(
        self,
        kind: type[Relay],
        scopes: Scopes,
        consumer: object,
        source: Source[object],
        steps: Steps,
    ) -> Relay:
        make: Callable[[Scopes, Any], _Observed]
        make = _ObservedTrio if kind is TrioRelay else _ObservedAsyncio
        relay = make(scopes, consumer)
        is_first = self.first is None and not self._is_inside
        relay.seen = Seen(self._eye, source, steps, is_first=is_first)
        if is_first:
            self.first = relay.seen
        return relay
