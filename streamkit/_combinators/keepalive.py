"""``with_keepalive``: something for the consumer while the source is silent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import anyio

from .._core.arguments import check_made, check_plain, seconds
from .._core.control import Control
from .._core.source import AsyncSource
from .._core.stage import Stage
from .._core.stream import Stream, with_stage
from .._core.timer import Timer

T = TypeVar("T")
B = TypeVar("B")
A = TypeVar("A", bound=Callable[..., Coroutine[Any, Any, Any]])
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Idle(Generic[T_co]):
    """What a beat may tell of the silence that it breaks."""

    #: The last item of the source, or ``None`` if there was none yet.
    last: T_co | None
    #: Seconds since that item, or since the consumer's first ask.
    silent_for: float
    #: How many beats there were in this silence, this one included.
    count: int


# mypy finds no type for a callable that fits two parts of a union and would get different types
# from them, so the union rejects it. That keeps async beats out of both of these, and other
# callables out of the second: a lambda would fit both, and be `Any`.


@overload
def with_keepalive(
    source: AsyncSource[T],
    interval: float,
    beat: Callable[[Idle[T]], B] | A,  # pyright: ignore[reportInvalidTypeVarUse]
    *,
    initial: bool = False,
) -> Stream[T | B]: ...


@overload
def with_keepalive(
    source: AsyncSource[T],
    interval: float,
    beat: Callable[[Idle[T]], B] | Coroutine[Any, Any, B] | B,
    *,
    initial: bool = False,
) -> Stream[T | B]: ...


def with_keepalive(
    source: AsyncSource[Any], interval: float, beat: Any, *, initial: bool = False
) -> Stream[Any]:
    """
    Give the consumer a beat whenever it has been waiting for ``interval`` seconds.

    The source is not touched: no beat cancels it, delays it or ends it, and beats go on through the
    grace of a cancellation. The clock starts anew with each ask, so there is no beat while the
    consumer is busy, and never more than one at a time. An item that is ready wins over a beat.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream
    :param interval: seconds of waiting before each beat: finite, and more than 0
    :param beat: the item to send, or a callable that receives an :class:`Idle` and returns it. What
        the callable raises ends the stream.
    :param initial: whether the first ask is answered with a beat, before the source starts. An item
        that is already there wins, as after :meth:`StatusStream.head`.
    :return: a stream of items and beats
    :raises TypeError: if ``source`` is not a source, ``interval`` is not a number, or ``beat`` is
        async
    :raises ValueError: if ``interval`` is not finite, or not positive

    """
    return with_stage(source, beats_of(interval, beat, initial=initial))


def beats_of(interval: float, beat: Any, *, initial: bool = False) -> Stage[Any, Any]:
    """Return the stage of :func:`with_keepalive`, for a stream that has others, too."""
    interval = seconds("interval", interval, positive=True)
    if callable(beat):
        check_plain("beat", beat)
        return _TellingKeepalive(interval, beat, initial)
    check_made("beat", beat)
    return _Keepalive(interval, beat, initial)


class _Keepalive(Stage[Any, Any]):
    def __init__(self, interval: float, beat: Any, initial: bool) -> None:
        self._interval = interval
        self._beat = beat
        self._initial = initial
        #: The wait that should end no later than the timer.
        self._wait = 0
        self._control: Control | None = None
        self._timer: Timer | None = None

    def on_open(self, control: Control) -> None:
        if self._initial:
            control.beat_first(self._make(control))
        self._control = control
        self._timer = control.timer(self._look)
        # Whatever the consumer waits for then, no beat is due before that.
        self._timer.set(control.now() + self._interval)

    def on_close(self) -> None:
        self._control = self._timer = None

    def _look(self) -> None:
        """See whether a beat is due, and when to look again."""
        control, timer = self._control, self._timer
        assert control is not None
        assert timer is not None
        since = control.waiting_since
        # Not by the clock, which may be coarse: is it still the same wait?
        if since is None or control.waits == self._wait:
            # Else it has something to receive, or the source is closed and on_end is not done.
            if control.is_waiting(self._wait):
                control.beat(self._make(control))
            self._wait = 0
            timer.set(control.now() + self._interval)
        else:
            self._wait = control.waits
            timer.set(since + self._interval)

    def _make(self, control: Control) -> Any:
        return self._beat


class _TellingKeepalive(_Keepalive):
    """Notes each item, to tell of the silence since."""

    def __init__(self, interval: float, beat: Callable[[Idle[Any]], Any], initial: bool) -> None:
        super().__init__(interval, beat, initial)
        self._last: Any = None
        self._silent_since: float | None = None
        self._count = 0
        self._now: Callable[[], float] = anyio.current_time

    def on_open(self, control: Control) -> None:
        self._now = control.now
        super().on_open(control)

    def on_item(self, item: Any) -> Any:
        self._last = item
        self._silent_since = self._now()
        self._count = 0
        return item

    def _make(self, control: Control) -> Any:
        self._count += 1
        if self._silent_since is None:
            self._silent_since = control.asked_at
        silent_for = 0.0 if self._silent_since is None else self._now() - self._silent_since
        beat = self._beat(Idle(self._last, silent_for, self._count))
        check_made("beat", beat)
        return beat
