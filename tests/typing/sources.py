"""What a combinator takes, and what it yields then. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import assert_type

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream

from streamkit import (
    AsyncSource,
    CancelToken,
    StatusStream,
    Stream,
    with_cancellation,
    with_keepalive,
    with_status,
)


async def numbers() -> AsyncGenerator[int, None]:
    yield 1


@asynccontextmanager
async def opened() -> AsyncGenerator[AsyncGenerator[int, None], None]:
    yield numbers()


def generator(source: AsyncGenerator[int, None]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def iterable(source: AsyncIterable[int]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def receive_stream(source: MemoryObjectReceiveStream[int]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def any_receive_stream(source: anyio.abc.ObjectReceiveStream[int]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def context_manager(source: AbstractAsyncContextManager[AsyncIterator[int]]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def context_manager_function() -> None:
    assert_type(with_cancellation(opened()), Stream[int])
    assert_type(with_keepalive(opened(), 15, "beat"), Stream[int | str])
    assert_type(with_status(opened()), StatusStream[int])


def stream(source: Stream[int]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def status_stream(source: StatusStream[int]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def what_a_wrapper_of_the_user_takes(source: AsyncSource[int]) -> None:
    assert_type(with_cancellation(source), Stream[int])
    assert_type(with_keepalive(source, 15, "beat"), Stream[int | str])
    assert_type(with_status(source), StatusStream[int])


def the_readme(token: CancelToken) -> None:
    source = with_keepalive(with_cancellation(numbers(), token), 15, beat=": ping\n")
    # mypy joins several types of items to `object`, unless the variable is declared.
    stream: StatusStream[int | str] = with_status(source)
    del stream


async def iteration(source: Stream[int]) -> None:
    async with source as entered:
        assert_type(entered, Stream[int])
        async for item in entered:
            assert_type(item, int)
        assert_type(await anext(entered), int)
        assert_type([item async for item in entered], list[int])
    assert_type(await source.aclose(), None)


def covariance(narrow: Stream[bool], status: StatusStream[bool]) -> None:
    stream: Stream[int | str] = narrow
    base: Stream[int] = status
    iterable: AsyncIterable[object] = stream
    source: AsyncSource[int] = base
    del iterable, source


def no_sources() -> None:
    # With `warn_unused_ignores`, mypy fails where one of these passes.
    with_cancellation([1, 2])  # type: ignore[arg-type]
    with_keepalive(numbers, 15, "beat")  # type: ignore[call-overload]
    with_status(opened)  # type: ignore[call-overload]
    with_keepalive(numbers(), 15, "beat", True)  # type: ignore[call-overload]
    with_status(numbers(), 5)  # type: ignore[call-overload]
