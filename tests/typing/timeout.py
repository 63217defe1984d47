"""``with_timeout``. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Literal, assert_type

from streamkit import Control, Stream, StreamTimeout, TimedOut, with_timeout


def limits(source: AsyncIterable[int], seconds: float | None) -> None:
    assert_type(with_timeout(source, first=5), Stream[int])
    assert_type(with_timeout(source, idle=0.5, total=60, grace=0), Stream[int])
    assert_type(with_timeout(with_timeout(source, first=seconds), idle=seconds), Stream[int])


def no_limits(source: AsyncIterable[int]) -> None:
    with_timeout(source, 5)  # type: ignore[call-arg]
    with_timeout(source, idle="5")  # type: ignore[arg-type]


def reason(error: StreamTimeout) -> None:
    builtin: TimeoutError = error
    assert_type(error.reason, TimedOut)
    assert_type(error.reason.limit, Literal["first", "idle", "total"])
    assert_type(error.reason.seconds, float)
    del builtin


def control(of_a_stage: Control, why: TimedOut) -> None:
    cancelled = of_a_stage.cancel(why, grace=1, kind="timed_out", error=StreamTimeout)
    assert_type(cancelled, bool)
    of_a_stage.cancel(why, grace=1, kind="failed")  # type: ignore[arg-type]
    of_a_stage.cancel(why, grace=1, error=StreamTimeout(why))  # type: ignore[arg-type]
