"""``with_cancellation``: end a stream with a reason, however deep its source is blocked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Any, TypeAlias, TypeVar

from .._core.arguments import seconds
from .._core.control import Control
from .._core.source import DEFAULT_GRACE, AsyncSource
from .._core.stage import Stage
from .._core.stream import Stream, with_stage
from .._signals.token import CancelHandle, CancelToken

T = TypeVar("T")

#: What ends a stream: a token, or a context manager that yields one.
CancelSignal: TypeAlias = (
    CancelToken
    | AbstractContextManager[CancelToken, Any]
    | AbstractAsyncContextManager[CancelToken, Any]
)


def with_cancellation(
    source: AsyncSource[T], *signals: CancelSignal, grace: float = DEFAULT_GRACE
) -> Stream[T]:
    """
    End a stream when one of several signals fires.

    Exactly one :exc:`StreamCancelled` with the reason of the first signal is raised inside the
    source: in its innermost frame, at the await in which it is blocked. At a ``yield``, the source
    is resumed at once, without waiting for the consumer, and its first await raises; if it reaches
    another ``yield`` before that, that one raises. In a shielded scope or in a thread, it happens
    when that ends. A source that has not started never will. Items that it has produced arrive
    first. ``token.cancel(reason, at_yield=True)`` waits for a ``yield`` in any case.

    The source then has ``grace`` seconds in which its awaits are shielded, from this cancellation
    and from scopes around the stream: it can save, close, and yield last items. The time in which
    it waits for the consumer does not count. After that it is cancelled like any task and closed.
    If it lets the exception out, the consumer receives :exc:`StreamCancelled`; if it ends, the
    iteration ends. ``outcome.kind`` is ``"cancelled"`` either way.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream
    :param signals: tokens, or sync or async context managers that yield one, which stay entered
        while the stream is open
    :param grace: seconds that the source has to react to a signal and to close
    :return: a stream of the same items
    :raises TypeError: if ``source`` is not a source, or a signal is not a signal
    :raises ValueError: if ``grace`` is negative or not finite

    """
    for signal in signals:
        _check_signal(signal)
    grace = seconds("grace", grace)
    if all(isinstance(signal, CancelToken) for signal in signals):
        return with_stage(source, _Cancellation(signals, grace))
    return with_stage(source, _EnteredCancellation(signals, grace))


class _Cancellation(Stage[Any, Any]):
    def __init__(self, signals: tuple[CancelSignal, ...], grace: float) -> None:
        self._signals = signals
        self.grace: float | None = grace
        self._grace = grace
        self._handles: tuple[CancelHandle, ...] = ()

    def on_open(self, control: Control) -> None:
        for signal in self._signals:
            if isinstance(signal, CancelToken):
                self._listen(signal, control)

    def on_close(self) -> None:
        for handle in self._handles:
            handle.close()

    def _listen(self, token: CancelToken, control: Control) -> None:
        told = _Told(control, self._grace)
        handle = token.on_cancel(told.now, at_yield=told.at_yield, end_grace=control.end_grace)
        self._handles = (*self._handles, handle)


class _Told:
    """What a token tells a stream."""

    __slots__ = ("_control", "_grace")

    def __init__(self, control: Control, grace: float) -> None:
        self._control = control
        self._grace = grace

    def now(self, reason: object) -> None:
        self._control.cancel(reason, grace=self._grace)

    def at_yield(self, reason: object) -> None:
        self._control.cancel(reason, grace=self._grace, at_yield=True)


class _EnteredCancellation(_Cancellation):
    @asynccontextmanager
    async def lifespan(self, control: Control) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            for signal in self._signals:
                if not isinstance(signal, CancelToken):
                    self._listen(await _enter(signal, stack), control)
            yield


async def _enter(
    signal: AbstractContextManager[CancelToken] | AbstractAsyncContextManager[CancelToken],
    stack: AsyncExitStack,
) -> CancelToken:
    if isinstance(signal, AbstractAsyncContextManager):
        token: Any = await stack.enter_async_context(signal)
    else:
        token = stack.enter_context(signal)
    if not isinstance(token, CancelToken):
        raise TypeError(
            f"{signal!r} yielded {type(token).__qualname__}: a signal is a CancelToken, or a "
            "context manager that yields one"
        )
    return token


def _check_signal(signal: object) -> None:
    kinds = (CancelToken, AbstractContextManager, AbstractAsyncContextManager)
    if not isinstance(signal, kinds):
        raise TypeError(
            f"a signal is a CancelToken, or a context manager that yields one, got "
            f"{type(signal).__qualname__}: write with_cancellation(source, token, grace=5.0)"
        )
