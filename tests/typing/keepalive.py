"""``with_keepalive``. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import assert_type

from streamkit import Idle, Stream, with_keepalive


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


def of_strings(idle: Idle[str]) -> Ping:
    return Ping(idle.count)


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
    # mypy takes it for an item as well, and makes `Any` of that, unless the variable is declared.
    last: Stream[int | None] = with_keepalive(source, 15, lambda idle: idle.last)
    text: Stream[int | str] = with_keepalive(source, 15, lambda idle: f": {idle.count}\n")
    del last, text


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
