"""``from_thread`` and ``merge``. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterable, Generator, Iterator
from typing import TYPE_CHECKING, Any, assert_type

import anyio

from streamkit import Stream, from_thread, merge, with_cancellation, with_keepalive

if TYPE_CHECKING:
    import io
    import sqlite3


def numbers() -> Generator[int, None, None]:
    yield 1


def strings() -> Iterator[str]:
    yield ""


async def coroutine() -> list[int]:
    return [1]


def iterables(file: io.TextIOWrapper, connection: sqlite3.Connection) -> None:
    assert_type(from_thread([1]), Stream[int])
    assert_type(from_thread(numbers()), Stream[int])
    assert_type(from_thread(numbers), Stream[int])
    assert_type(from_thread(strings), Stream[str])
    assert_type(from_thread(lambda: [1]), Stream[int])
    assert_type(from_thread(file), Stream[str])
    rows = connection.execute("select 1")
    assert_type(from_thread(rows, interrupt=connection.interrupt), Stream[Any])
    assert_type(from_thread([1], limiter=anyio.CapacityLimiter(1)), Stream[int])
    assert_type(with_keepalive(from_thread([1]), 15, "beat"), Stream[int | str])
    from_thread(3)  # type: ignore[arg-type]
    from_thread(coroutine)  # type: ignore[arg-type]
    from_thread([1], interrupt=3)  # type: ignore[arg-type]
    from_thread([1], limiter=10)  # type: ignore[arg-type]


def merged(first: AsyncIterable[int], second: AsyncIterable[int]) -> None:
    assert_type(merge(first, second), Stream[int])
    assert_type(merge(with_cancellation(first), from_thread([1])), Stream[int])
    assert_type(with_keepalive(merge(first), 15, "beat"), Stream[int | str])
    merge([1])  # type: ignore[arg-type]
