"""Sources: one generator each, or several. They end by themselves within some seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from streamkit import StreamCancelled

from .frame import Frame
from .record import Record, SourceError

SourceFunction = Callable[[Record], Any]
SOURCES: dict[str, SourceFunction] = {}


def source(function: SourceFunction) -> SourceFunction:
    """Put a source on the list, under its own name."""
    SOURCES[function.__name__] = function
    return function


async def numbers(record: Record, *seconds: float) -> AsyncIterator[int]:
    """Yield an item after each wait. Not closed by name: it has nothing to clean up."""
    for wait in seconds:
        if wait:
            await anyio.sleep(wait)
        yield record.produce()


@source
async def ready(record: Record) -> AsyncIterator[int]:
    async with Frame(record):
        for _ in range(4):
            yield record.produce()
        record.completed = True


@source
async def suspending(record: Record) -> AsyncIterator[int]:
    async with Frame(record):
        for _ in range(3):
            await checkpoint()
            yield record.produce()
        record.completed = True


@source
async def sleeping(record: Record) -> AsyncIterator[int]:
    async with Frame(record):
        for seconds in (0, 1, 4, 1):
            await anyio.sleep(seconds)
            yield record.produce()
        record.completed = True


@source
async def raising(record: Record) -> AsyncIterator[int]:
    async with Frame(record):
        for seconds in (0, 1):
            await anyio.sleep(seconds)
            yield record.produce()
        await anyio.sleep(1)
        raise record.error(SourceError("after two"))


@source
async def failing_clean_up(record: Record) -> AsyncIterator[int]:
    async with Frame(record, fails=True):
        for seconds in (0, 1, 2):
            await anyio.sleep(seconds)
            yield record.produce()
    record.completed = True


@source
async def shielded_clean_up(record: Record) -> AsyncIterator[int]:
    async with Frame(record, shielded=True):
        for seconds in (0, 1, 2):
            await anyio.sleep(seconds)
            yield record.produce()
        record.completed = True


@source
async def hanging_clean_up(record: Record) -> AsyncIterator[int]:
    async with Frame(record, lasts=20.0):
        for seconds in (0, 1):
            await anyio.sleep(seconds)
            yield record.produce()
        await anyio.sleep(1)
        record.completed = True


@source
async def handling(record: Record) -> AsyncIterator[int]:
    """Yield last items."""
    async with Frame(record) as frame:
        try:
            for seconds in (0, 1, 2):
                await anyio.sleep(seconds)
                yield record.produce()
            record.completed = True
        except StreamCancelled as stop:
            frame.sees(stop)
            await anyio.sleep(0.2)
            yield record.produce()
            await anyio.sleep(0.2)
            yield record.produce()


@source
async def swallowing(record: Record) -> AsyncIterator[int]:
    """Go on, whatever it is told."""
    async with Frame(record) as frame:
        for seconds in (0, 1, 1, 1):
            try:
                await anyio.sleep(seconds)
                yield record.produce()
            except StreamCancelled as stop:
                frame.sees(stop)
        record.completed = True


@source
async def replacing(record: Record) -> AsyncIterator[int]:
    """Raise an error of its own when it is told."""
    async with Frame(record):
        try:
            for seconds in (0, 1, 2):
                await anyio.sleep(seconds)
                yield record.produce()
            record.completed = True
        except StreamCancelled:
            await anyio.sleep(0.1)
            raise record.error(SourceError("in place of it")) from None


@source
def managed(record: Record) -> Any:
    """Be a context manager that yields a generator."""

    async def rows() -> AsyncIterator[int]:
        async with Frame(record, "rows"):
            for seconds in (0, 1, 2):
                await anyio.sleep(seconds)
                yield record.produce()
            record.completed = True

    @asynccontextmanager
    async def connection() -> AsyncIterator[AsyncIterator[int]]:
        async with Frame(record, "connection"):
            yield rows()

    return connection()


class _Iterator:
    def __init__(self, record: Record) -> None:
        self._record = record
        self._waits = [2, 1, 0]

    def __aiter__(self) -> _Iterator:
        return self

    async def __anext__(self) -> int:
        if not self._waits:
            self._record.completed = True
            raise StopAsyncIteration
        # What is interrupted here is asked for again, or not at all.
        await anyio.sleep(self._waits[-1])
        self._waits.pop()
        return self._record.produce()


@source
def iterator(record: Record) -> Any:
    """Be no generator: without ``athrow`` and ``aclose``."""
    return _Iterator(record)
