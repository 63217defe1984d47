"""``with_keepalive``. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, assert_type

from streamkit import AsyncSource, Idle, Stream, with_keepalive

T = TypeVar("T")
B = TypeVar("B")


@dataclass
class Ping:
    """A beat that is an object, and no callable."""

    number: int = 0


class Beats:
    """A beat that is a callable object."""

    def __call__(self, idle: Idle[int]) -> bytes:
        return b""


def ping_of(idle: Idle[int]) -> Ping:
    return Ping(idle.count)


def of_anything(idle: Idle[object]) -> Ping:
    return Ping(idle.count)


def of_any(idle: Idle[Any]) -> Ping:
    return Ping(idle.count)


async def too_late(idle: Idle[int]) -> Ping:
    return Ping(idle.count)


async def too_late_for_any(idle: Idle[Any]) -> Ping:
    return Ping(idle.count)


class LateBeats:
    async def __call__(self, idle: Idle[int]) -> bytes:
        return b""


async def numbers() -> AsyncGenerator[int, None]:
    yield 1


def beat_is_an_item(source: AsyncIterable[int]) -> None:
    assert_type(with_keepalive(source, 15, ": ping\n"), Stream[int | str])
    assert_type(with_keepalive(source, 15, Ping()), Stream[int | Ping])
    assert_type(with_keepalive(source, 0.5, None), Stream[int | None])
    assert_type(with_keepalive(source, 15, beat=b"", initial=True), Stream[int | bytes])
    assert_type(with_keepalive(source, 15, 0), Stream[int])


def beat_is_a_callable(source: AsyncIterable[int]) -> None:
    assert_type(with_keepalive(source, 15, ping_of), Stream[int | Ping])
    assert_type(with_keepalive(source, 15, of_anything, initial=True), Stream[int | Ping])
    assert_type(with_keepalive(source, 15, Beats()), Stream[int | bytes])


def beat_is_a_lambda(source: AsyncIterable[int]) -> None:
    assert_type(with_keepalive(source, 15, lambda idle: idle.last), Stream[int | None])
    assert_type(with_keepalive(source, 15, lambda idle: f": {idle.count}\n"), Stream[int | str])
    assert_type(
        with_keepalive(source, 15, beat=lambda idle: b"", initial=True), Stream[int | bytes]
    )
    inner = with_keepalive(source, 15, lambda idle: Ping(idle.count))
    assert_type(with_keepalive(inner, 60, lambda idle: idle.last), Stream[int | Ping | None])


def beat_takes_any(source: AsyncIterable[int]) -> None:
    assert_type(with_keepalive(source, 15, of_any), Stream[int | Ping])
    assert_type(with_keepalive(numbers(), 15, of_any), Stream[int | Ping])


def beat_is_async(source: AsyncIterable[int]) -> None:
    # For pyright they are what the stream yields: it is where they are used that they do not fit.
    with_keepalive(source, 15, too_late)  # type: ignore[arg-type]
    with_keepalive(source, 15, beat=too_late_for_any, initial=True)  # type: ignore[arg-type]
    with_keepalive(source, 15, LateBeats())  # type: ignore[arg-type]
    with_keepalive(source, 15, lambda idle: too_late(idle))  # type: ignore[arg-type,return-value]


def source_of_a_wrapper(source: AsyncSource[T], beat: B) -> Stream[T | B]:
    return with_keepalive(source, 15, beat)


def beat_of_a_wrapper(source: AsyncSource[T], beat: Callable[[Idle[T]], B]) -> Stream[T | B]:
    return with_keepalive(source, 15, beat)


def idle(silence: Idle[int]) -> None:
    assert_type(silence.last, int | None)
    assert_type(silence.silent_for, float)
    assert_type(silence.count, int)
    wide: Idle[int | str] = silence
    del wide


def twice(source: AsyncIterable[int]) -> None:
    inner = with_keepalive(source, 15, "beat")
    assert_type(with_keepalive(inner, 60, b"beat"), Stream[int | str | bytes])
    assert_type(with_keepalive(inner, 60, of_anything), Stream[int | str | Ping])
