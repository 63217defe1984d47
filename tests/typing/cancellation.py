"""``with_cancellation`` and tokens. Checked by mypy and pyright, never run."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import assert_type

from streamkit import (
    CancelHandle,
    CancelSignal,
    CancelToken,
    Stream,
    StreamCancelled,
    current_cancellation,
    on_signals,
    with_cancellation,
)


def signals(
    source: AsyncIterable[int],
    token: CancelToken,
    entry: AbstractContextManager[CancelToken],
    poller: AbstractAsyncContextManager[CancelToken],
    any_of_them: CancelSignal,
) -> None:
    assert_type(with_cancellation(source, token), Stream[int])
    assert_type(with_cancellation(source, entry, poller, any_of_them, grace=0), Stream[int])


def no_signals(source: AsyncIterable[int], other: AbstractContextManager[str]) -> None:
    with_cancellation(source, "token")  # type: ignore[arg-type]
    with_cancellation(source, CancelToken)  # type: ignore[arg-type]
    with_cancellation(source, other)  # type: ignore[arg-type]


async def tokens(token: CancelToken) -> None:
    assert_type(token.cancel(), bool)
    assert_type(token.cancel({"any": "object"}), bool)
    assert_type(token.cancelled, bool)
    assert_type(token.reason, object)
    assert_type(await token.wait(), object)
    assert_type(token.raise_if_cancelled(), None)
    handle = token.on_cancel(lambda reason: assert_type(reason, object))
    assert_type(handle, CancelHandle)
    assert_type(handle.close(), bool)
    assert_type(token.cancel("stop", at_yield=True), bool)
    assert_type(token.end_grace(), bool)
    token.on_cancel(print, at_yield=print, end_grace=lambda: None)
    token.on_cancel(print, end_grace=lambda reason: None)  # type: ignore[misc, arg-type]


async def signals_of_the_process(source: AsyncIterable[int]) -> None:
    async with on_signals(signal.SIGINT, signal.SIGTERM) as token:
        assert_type(token, CancelToken)
    assert_type(with_cancellation(source, on_signals(signal.SIGINT)), Stream[int])
    on_signals(2)  # type: ignore[arg-type]


def reasons() -> None:
    assert_type(current_cancellation(), object)
    assert_type(StreamCancelled("stop").reason, object)
    base: BaseException = StreamCancelled()
    error: Exception = StreamCancelled()  # type: ignore[assignment]
    del base, error
