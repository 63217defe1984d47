"""``with_status``: a status before the first item, and a last word after the end."""

from __future__ import annotations

import logging
import math
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar, cast, overload

from .._core.arguments import check_made, check_plain, seconds
from .._core.control import Control
from .._core.metadata import Head, Metadata
from .._core.outcome import Outcome
from .._core.source import AsyncSource
from .._core.stage import Stage
from .._core.stream import Stream

_logger = logging.getLogger("streamkit")

T = TypeVar("T")
F = TypeVar("F")
A = TypeVar("A", bound=Callable[..., Coroutine[Any, Any, Any]])
T_co = TypeVar("T_co", covariant=True)

#: Several items from ``final``. Anything else counts as one item.
Items: TypeAlias = list[T] | tuple[T, ...] | Iterator[T]


class StatusStream(Stream[T_co]):
    """A stream that knows its status before its first item. Made by :func:`with_status`."""

    def __init__(self, source: AsyncSource[Any], *stages: Stage[Any, Any]) -> None:
        super().__init__(source, *stages)
        number = 0
        while not isinstance(self._stages[number], _Status):
            number += 1
        # Only the innermost status sees the Head that the source yields.
        innermost, status = self._stages[number], stages[-1]
        assert isinstance(innermost, _Status)
        assert isinstance(status, _Status)
        self._status = status
        if innermost is not status:
            status.innermost = innermost
        if status.on_head is not None:
            innermost.on_head = status.on_head

    def head(self) -> Coroutine[Any, Any, Head]:
        """
        Wait for the status: for a :class:`Head`, the first item, the end, or an error.

        Starts the source if it has not been asked for an item yet. The first item is not consumed,
        and beats do not count. Returns at once when the status is decided, and always the same one.

        :return: the :class:`Head` that the source yielded. Otherwise one with status 200, also when
            ``first_item_within`` seconds have passed; or with status 500 if this method has raised
            an error before
        :raises BaseException: the source's error, if it comes before the first item; it is not
            raised again by the iteration
        :raises StreamCancelled: if the source is cancelled before its first item
        :raises RuntimeError: if the stream was not entered
        :raises ~anyio.BusyResourceError: if another task waits for an item of this stream
        :raises ~anyio.ClosedResourceError: if the stream was closed before the status was known

        """
        return self._status.decide(
            lambda enough, within: self._handoff.wait_for_item(enough, within)
        )


@overload
def with_status(
    source: AsyncSource[T | Head],
    *,
    first_item_within: float | None = None,
    final: None = None,
    on_end: Callable[[Outcome], Awaitable[object]] | None = None,
    on_end_timeout: float = 5.0,
) -> StatusStream[T]: ...


@overload
def with_status(
    source: AsyncSource[T | Head],
    *,
    first_item_within: float | None = None,
    final: Callable[[Outcome], Items[F] | None],
    on_end: Callable[[Outcome], Awaitable[object]] | None = None,
    on_end_timeout: float = 5.0,
) -> StatusStream[T | F]: ...


@overload
def with_status(
    source: AsyncSource[T | Head],
    *,
    first_item_within: float | None = None,
    # As for the beats of with_keepalive: to mypy, nothing async fits any of these.
    final: Callable[[Outcome], F | None] | A,  # pyright: ignore[reportInvalidTypeVarUse]
    on_end: Callable[[Outcome], Awaitable[object]] | None = None,
    on_end_timeout: float = 5.0,
) -> StatusStream[T | F]: ...


def with_status(
    source: AsyncSource[T | Head],
    *,
    first_item_within: float | None = None,
    final: Callable[[Outcome], Any] | None = None,
    on_end: Callable[[Outcome], Awaitable[object]] | None = None,
    on_end_timeout: float = 5.0,
) -> StatusStream[Any]:
    """
    Give a stream a status before its first item, and a last word after its end.

    At the end, in this order: the source is closed and ``outcome`` is set, ``on_end`` is awaited,
    the consumer receives what ``final`` returns, the iteration ends.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream. It may yield a :class:`Head` first.
    :param first_item_within: seconds that :meth:`StatusStream.head` waits at most. A :class:`Head`
        that comes later is dropped, with a warning if it has another status or has headers.
    :param final: called with the :class:`Outcome`. Returns the last item, or a list, a tuple or an
        iterator of items. Where the outcome would raise in the consumer, these items come instead
        of the exception; on ``None`` the exception is raised. Not called if the consumer has left.
    :param on_end: called with the :class:`Outcome` and awaited, once, however the stream ends, in
        the source task, shielded from cancellation. An error that it raises is raised in the
        consumer.
    :param on_end_timeout: seconds after which ``on_end`` is cancelled, and :exc:`TimeoutError`
        is raised
    :return: a stream of the same items, with :meth:`~StatusStream.head`
    :raises TypeError: if ``source`` is not a source, ``final`` or ``on_end`` is not callable, or
        ``final`` is async
    :raises ValueError: if a time is negative or not finite

    """
    if final is not None:
        _check_callable("final", final)
        check_plain("final", final)
    return status_above(source, (), first_item_within, final, on_end, on_end_timeout)


def status_above(
    source: AsyncSource[Any],
    stages: Sequence[Stage[Any, Any]],
    first_item_within: float | None,
    final: Callable[[Outcome], Any] | None,
    on_end: Callable[[Outcome], Awaitable[object]] | None,
    on_end_timeout: float,
    on_head: Callable[[Head], object] | None = None,
) -> StatusStream[Any]:
    """
    Put other stages on a source, and :func:`with_status` on top of them, in one stream.

    :param final: as there, and checked already
    :param on_head: called in the source task with the :class:`Head` of the source, in time or too
        late, also if the source has a status of its own

    """
    if first_item_within is not None:
        seconds("first_item_within", first_item_within)
    on_end_timeout = seconds("on_end_timeout", on_end_timeout)
    if on_end is None:
        return StatusStream(source, *stages, _Status(first_item_within, final, on_head))
    _check_callable("on_end", on_end)
    status = _StatusWithOnEnd(first_item_within, final, on_head, on_end, on_end_timeout)
    return StatusStream(source, *stages, status)


def _check_callable(name: str, function: object) -> None:
    if not callable(function):
        raise TypeError(
            f"{name} must be callable, got {type(function).__qualname__}: write "
            f"{name}=lambda outcome: ..."
        )


class _Status(Stage[Any, Any]):
    def __init__(
        self,
        first_item_within: float | None,
        final: Callable[[Outcome], Any] | None,
        on_head: Callable[[Head], object] | None,
    ) -> None:
        #: Called with the Head that this one takes.
        self.on_head: Callable[[Head], object] | None = on_head
        #: The status that is nearest to the source, if that is another one.
        self.innermost: _Status | None = None
        self.given: Head | None = None
        #: What was decided instead of a Head that may still come.
        self.decided_without: Head | None = None
        self._first_item_within = math.inf if first_item_within is None else first_item_within
        self._final = final
        self._control: Control | None = None
        self._had_item = False
        self._decided: Head | None = None

    def on_open(self, control: Control) -> None:
        self._control = control

    def on_close(self) -> None:
        self._had_item, self._control = self._has_item(), None

    def on_metadata(self, item: Metadata) -> bool:
        if not isinstance(item, Head):
            return False
        if self._has_item() or self.given is not None:
            raise RuntimeError(
                "a source yields its Head once, before its first item: yield it first, or put what "
                "comes later into an item"
            )
        assert self._control is not None
        if self.on_head is not None:
            self.on_head(item)
        self.given = replace(item, decided_by="head")
        if self.decided_without is None:
            self._control.note_head(self.given)
        elif self.decided_without != replace(item, decided_by="timeout"):
            _logger.warning(
                "a Head with status %d came too late and was dropped: the status had been "
                "decided: yield it earlier, or give first_item_within more time",
                item.status,
            )
        self._control.wake_consumer()
        return True

    def final(self, outcome: Outcome) -> Iterable[Any] | None:
        last: Any = None if self._final is None else self._final(outcome)
        check_made("final", last)
        if last is None or isinstance(last, list | tuple | Iterator):
            return cast("Iterable[Any] | None", last)
        return (last,)

    async def decide(
        self, wait_for_item: Callable[[Callable[[], bool], float], Awaitable[object]]
    ) -> Head:
        if self._decided is not None:
            return self._decided
        if not self._is_known():
            await wait_for_item(self._is_known, self._first_item_within)
        error = None
        innermost = self.innermost or self
        if innermost.given is not None:
            head = innermost.given
        elif self._has_item():
            # Each has headers of its own: whoever is given them may change, copy or serialize them.
            head = Head(200, {}, "item")
        else:
            assert self._control is not None
            head, error = _decide_without_item(self._control)
            innermost.decided_without = head
        self._decided = head
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback includes this frame.
                del error, self, wait_for_item
        return head

    def _is_known(self) -> bool:
        return (self.innermost or self).given is not None or self._has_item()

    def _has_item(self) -> bool:
        return self._had_item if self._control is None else self._control.has_item


class _StatusWithOnEnd(_Status):
    def __init__(
        self,
        first_item_within: float | None,
        final: Callable[[Outcome], Any] | None,
        on_head: Callable[[Head], object] | None,
        on_end: Callable[[Outcome], Awaitable[object]],
        on_end_timeout: float,
    ) -> None:
        super().__init__(first_item_within, final, on_head)
        self.on_end_timeout = on_end_timeout
        self._on_end = on_end

    async def on_end(self, outcome: Outcome) -> None:
        ending: Any = self._on_end(outcome)
        if not isinstance(ending, Awaitable):
            raise TypeError(
                f"on_end must be async, but it returned {type(ending).__qualname__}: write "
                "'async def on_end(outcome): ...'"
            )
        await ending


# Like that of Stream.__anext__: the warning "was never awaited" names what was written.
_Status.decide.__qualname__ = f"{StatusStream.__qualname__}.head"


def _decide_without_item(control: Control) -> tuple[Head, BaseException | None]:
    if control.outcome is None:
        return Head(decided_by="timeout"), None
    if control.has_failed:
        return Head(500, decided_by="error"), control.take_error()
    return Head(decided_by="end"), None
