"""The chains that the sources are put into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from streamkit import (
    Outcome,
    Stream,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)

from .record import BEAT, FINAL, GRACE, Record

#: Seconds after which there is a beat: less than most sources wait.
INTERVAL = 0.75
#: More than any run takes without a jump of time, and less than such a jump.
IDLE, TOTAL, JUMP = 15.0, 60.0, 70.0


def _alone(record: Record, source: Any) -> Stream[Any]:
    return with_cancellation(source, record.token, grace=GRACE)


def _full(record: Record, source: Any) -> Stream[Any]:
    async def on_end(outcome: Outcome) -> None:
        record.outcomes_told.append(outcome)
        record.note(f"on_end: {outcome.kind}")
        for frame in record.frames:
            if frame.begun and not frame.over_at:
                record.problem("on-end", f"it runs before {frame.name} is closed")
        await anyio.sleep(0.1)

    return with_status(
        with_keepalive(_alone(record, source), INTERVAL, BEAT),
        on_end=on_end,
        final=lambda outcome: FINAL if outcome.kind == "completed" else None,
    )


def _buffered(record: Record, source: Any) -> Stream[Any]:
    return with_buffer(_alone(record, source), 2)


def _limited(record: Record, source: Any) -> Stream[Any]:
    limited = with_timeout(_alone(record, source), idle=IDLE, total=TOTAL, grace=GRACE)
    return with_keepalive(limited, INTERVAL, BEAT)


STREAMS: dict[str, Callable[[Record, Any], Stream[Any]]] = {
    "alone": _alone,
    "full": _full,
    "buffered": _buffered,
    "limited": _limited,
}
#: Those in which there are beats.
WITH_BEATS = {"full", "limited"}
