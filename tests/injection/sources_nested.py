"""Sources made of several generators: inside each other, plainly or as streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio

from streamkit import with_buffer, with_cancellation, with_keepalive

from .frame import Frame
from .record import BEAT, GRACE, Record
from .sources import source


async def _rows(record: Record, name: str = "rows") -> AsyncIterator[None]:
    async with Frame(record, name):
        for seconds in (0, 1, 2):
            await anyio.sleep(seconds)
            yield


async def _held_rows(record: Record, *, in_own_scope: bool = False) -> AsyncIterator[None]:
    async with Frame(record, "rows", in_own_scope=in_own_scope):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 100)
            for seconds in (0, 1, 2):
                await anyio.sleep(seconds)
                yield
            group.cancel_scope.cancel()


@source
async def two_deep(record: Record) -> AsyncIterator[int]:
    async with Frame(record):
        async for _ in _rows(record):
            yield record.produce()
        record.completed = True


@source
async def three_deep(record: Record) -> AsyncIterator[int]:
    async def pages() -> AsyncIterator[None]:
        async with Frame(record, "pages"):
            async for _ in _rows(record):
                yield
                await anyio.sleep(0.5)

    async with Frame(record):
        async for _ in pages():
            yield record.produce()
        record.completed = True


@source
async def two_deep_holding(record: Record) -> AsyncIterator[int]:
    """Have a scope around the loop, and a task group inside the inner generator."""
    async with Frame(record):
        with anyio.move_on_after(1000) as record.own_scope:
            async for _ in _held_rows(record, in_own_scope=True):
                yield record.produce()
        record.completed = True


@source
async def abandoning(record: Record) -> AsyncIterator[int]:
    """Leave an inner loop in the middle, and go on."""
    async with Frame(record):
        for name in "first", "second":
            async for _ in _rows(record, name):
                yield record.produce()
                break
            await anyio.sleep(1)
        yield record.produce()
        record.completed = True


@source
async def closing_by_name(record: Record) -> AsyncIterator[int]:
    """Close the inner generator, which holds a task group, with ``aclosing()``."""
    async with Frame(record):
        async with aclosing(_held_rows(record)) as rows:
            async for _ in rows:
                yield record.produce()
        record.completed = True


@source
async def inner_stream(record: Record) -> AsyncIterator[int]:
    async with Frame(record):
        inner = with_cancellation(_rows(record), record.inner_token, grace=GRACE)
        async with inner:
            async for _ in inner:
                yield record.produce()
        record.completed = True


@source
async def inner_chain(record: Record) -> AsyncIterator[int]:
    """Consume a stream with a buffer and beats, around one without."""

    async def pages() -> AsyncIterator[None]:
        async with Frame(record, "pages"):
            inner = with_cancellation(_rows(record), record.inner_token, grace=GRACE)
            async with inner:
                async for _ in inner:
                    yield

    async with Frame(record):
        outer = with_keepalive(with_buffer(pages(), 2), 0.6, BEAT)
        async with outer:
            async for item in outer:
                if item != BEAT:
                    yield record.produce()
        record.completed = True
