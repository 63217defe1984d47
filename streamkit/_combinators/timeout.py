"""``with_timeout``: limits on how long a source may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .._core.arguments import seconds
from .._core.control import Control
from .._core.source import DEFAULT_GRACE, AsyncSource
from .._core.stage import Stage
from .._core.stream import Stream, with_stage

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

# Passes of the event loop in which an item that is ready at a deadline wins. Each stream inside
# the source takes one or two to hand an item on.
_LAST_CHANCE = 4


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The reason of the cancellation: which limit of :func:`with_timeout` was reached."""

    #: The name of the limit.
    limit: Literal["first", "idle", "total"]
    #: How long it was.
    seconds: float

    def __str__(self) -> str:
        what = {"first": "no first item", "idle": "no item", "total": "no end"}[self.limit]
        return f"{what} within {self.seconds} seconds"


class StreamTimeout(TimeoutError):
    """
    Raised by a stream whose source took too long, and did not handle that.

    Inside the source it is a :exc:`StreamCancelled` with the same reason.

    :param reason: which limit was reached

    """

    def __init__(self, reason: TimedOut) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.reason)


def _named_limits(function: Callable[P, R]) -> Callable[P, R]:
    """Name the limits when a number is given without saying which one it is."""

    @wraps(function)
    def with_names(*args: P.args, **kwargs: P.kwargs) -> R:
        if len(args) > 1:
            raise TypeError(
                f"with_timeout takes its limits by name, got {args[1]!r} without one: write "
                "with_timeout(source, idle=30.0), for instance; or first=30.0, or total=30.0"
            )
        return function(*args, **kwargs)

    return with_names


@_named_limits
def with_timeout(
    source: AsyncSource[T],
    *,
    first: float | None = None,
    idle: float | None = None,
    total: float | None = None,
    grace: float = DEFAULT_GRACE,
) -> Stream[T]:
    """
    End a stream whose source takes too long.

    ``first`` and ``idle`` limit how long the consumer waits for an item. Only the time in which it
    waits counts, also in :meth:`StatusStream.head`, and all of its waits for the same item add up:
    neither a beat nor a cancelled wait restarts the clock. A :class:`Head` is not an item.
    ``total`` limits the whole life of the stream, from entering the block, and goes on while the
    consumer is busy. An item or an end that is ready when the time is up comes first.

    When a limit is reached, :exc:`StreamCancelled` is raised inside the source, as by
    :func:`with_cancellation`, with a :class:`TimedOut` as its reason. The source then has ``grace``
    seconds to clean up and to yield last items. If it lets the exception out, the consumer receives
    :exc:`StreamTimeout`; if it ends, the iteration ends. ``outcome.kind`` is ``"timed_out"`` either
    way. If something else has ended the stream, the limits no longer count.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream
    :param first: seconds of waiting for the first item
    :param idle: seconds of waiting for any item; without ``first`` it limits the first one, too
    :param total: seconds from entering the block to the end of the source
    :param grace: seconds that the source has to react to a limit. It does not limit any other
        closing, which is up to :func:`with_cancellation`.
    :return: a stream of the same items
    :raises TypeError: if ``source`` is not a source, or a limit is not a number
    :raises ValueError: if there is no limit, or one is not finite, or not positive; if ``grace`` is
        negative or not finite

    """
    for name, value in ("first", first), ("idle", idle), ("total", total):
        if value is not None:
            seconds(name, value, positive=True)
    grace = seconds("grace", grace)
    if first is not None or idle is not None:
        return with_stage(source, _WaitingTimeout[T](first, idle, total, grace))
    if total is not None:
        return with_stage(source, _Timeout[T](total, grace))
    raise ValueError(
        "with_timeout needs a limit: write with_timeout(source, idle=30.0), for instance; or "
        "first=30.0 for the first item alone, or total=30.0 for the whole stream"
    )


class _Timeout(Stage[T, T]):
    def __init__(self, total: float | None, grace: float) -> None:
        self._total = None if total is None else TimedOut("total", total)
        self._grace = grace

    async def run(self, control: Control) -> None:
        limit = self._total
        end = math.inf if limit is None else control.started_at + limit.seconds
        with anyio.CancelScope(deadline=end):
            limit = await self._too_long_a_wait(control)
        if limit is self._total:
            await _last_chance()
        assert limit is not None
        control.cancel(limit, grace=self._grace, kind="timed_out", error=StreamTimeout)

    async def _too_long_a_wait(self, control: Control) -> TimedOut:
        """Wait until a limit on the wait for an item is reached: this class has none."""
        while True:
            await anyio.sleep_forever()


class _WaitingTimeout(_Timeout[T]):
    def __init__(
        self, first: float | None, idle: float | None, total: float | None, grace: float
    ) -> None:
        super().__init__(total, grace)
        self._idle = None if idle is None else TimedOut("idle", idle)
        self._first = self._idle if first is None else TimedOut("first", first)
        self._shortest = min(limit for limit in (first, idle) if limit is not None)
        self._control: Control | None = None
        self._items = 0
        # The reading of the clock of the consumer's waits at the last item.
        self._shown = 0.0

    def on_open(self, control: Control) -> None:
        self._control = control
        self._shown = control.waited

    def on_close(self) -> None:
        self._control = None

    def on_item(self, item: T) -> T:
        assert self._control is not None
        self._items += 1
        self._shown = self._control.waited
        return item

    async def _too_long_a_wait(self, control: Control) -> TimedOut:
        while limit := self._idle if self._items else self._first:
            items, due = self._items, self._shown + limit.seconds
            # The limit on the next item may be shorter: look again before it can be reached.
            soon = control.waited + self._shortest
            await control.until_waited(min(due, soon))
            await _last_chance()
            if items == self._items and due <= soon:
                return limit
        return await super()._too_long_a_wait(control)


async def _last_chance() -> None:
    for _ in range(_LAST_CHANCE):
        await checkpoint()
