"""Sources that are several: each of them has a frame, and its own order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from streamkit import StreamCancelled, merge, with_buffer, with_cancellation

from .frame import Frame
from .record import GRACE, Record, SourceError
from .sources import source


async def _one(record: Record, name: str, *seconds: float) -> AsyncIterator[int]:
    async with Frame(record, name):
        for wait in seconds:
            await anyio.sleep(wait)
            yield record.produce(name)
        _ends(record, name)


def _ends(record: Record, name: str) -> None:
    """Take note that one of them came to its own end: all of them have, when the last one has."""
    record.note(f"{name}: ends")
    ended = [text for _, _, text in record.notes if text.endswith(": ends")]
    record.completed = len(ended) == 2


@source
def merged(record: Record) -> Any:
    return merge(_one(record, "left", 0, 1, 3), _one(record, "right", 0.5, 0.5, 0.5, 2))


@source
def merged_ready(record: Record) -> Any:
    """Have items ready at all times."""
    return merge(_one(record, "left", 0, 0, 0), _one(record, "right", 0, 0, 0))


@source
def merged_failing(record: Record) -> Any:
    """Fail in one, while the other has items."""

    async def failing() -> AsyncIterator[int]:
        async with Frame(record, "left"):
            yield record.produce("left")
            await anyio.sleep(1)
            raise record.error(SourceError("left"))

    return merge(failing(), _one(record, "right", 0, 1, 1))


@source
def merged_handling(record: Record) -> Any:
    """Yield last items in each."""

    async def handling(name: str, wait: float) -> AsyncIterator[int]:
        async with Frame(record, name) as frame:
            try:
                for _ in range(3):
                    await anyio.sleep(wait)
                    yield record.produce(name)
                _ends(record, name)
            except StreamCancelled as stop:
                frame.sees(stop)
                for _ in range(2):
                    await anyio.sleep(wait / 5)
                    yield record.produce(name)

    return merge(handling("left", 1), handling("right", 0.6))


@source
def merged_streams(record: Record) -> Any:
    """Have a token for one, and a buffer for the other."""
    left = with_cancellation(_one(record, "left", 0, 1, 3), record.inner_token, grace=GRACE)
    return merge(left, with_buffer(_one(record, "right", 0.5, 0, 0, 0, 2), 2))


@source
async def merged_inside(record: Record) -> AsyncIterator[int]:
    """Receive from several in the block of a generator."""
    async with Frame(record):
        async with merge(_rows(record, "left", 0, 1, 3), _rows(record, "right", 0.5, 2)) as rows:
            async for _ in rows:
                yield record.produce()
        record.completed = True


async def _rows(record: Record, name: str, *seconds: float) -> AsyncIterator[None]:
    async with Frame(record, name):
        for wait in seconds:
            await anyio.sleep(wait)
            yield
