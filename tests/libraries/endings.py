"""The ways in which a stream ends before its source does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

import anyio
import pytest

from streamkit import (
    CancelToken,
    StreamCancelled,
    StreamTimeout,
    with_cancellation,
    with_keepalive,
    with_timeout,
)

from .visit import Visit

# Real seconds. Long enough for a source to get where it is told; a slow one is told before.
LIMIT = 0.25
BEATS_EVERY = 0.05


class BodyError(Exception):
    """What the body of a loop raises."""


async def by_token(visit: Visit) -> None:
    token = CancelToken()

    async def fire() -> None:
        token.cancel("enough")

    async with visit.meanwhile(fire, goes_on=True):
        with pytest.raises(StreamCancelled):
            async with visit.block(with_cancellation(visit.source(), token)) as stream:
                await visit.stay(stream)


async def by_limit(visit: Visit) -> None:
    async with visit.meanwhile(partial(anyio.sleep, LIMIT), goes_on=True):
        with pytest.raises(StreamTimeout):
            # The wait for an item is over where the source is at a yield.
            limits = {"total": LIMIT} if visit.place == "at a yield" else {"idle": LIMIT}
            stream = with_timeout(visit.source(), first=30.0, **limits)
            async with visit.block(stream):
                await visit.stay(stream)


async def by_break(visit: Visit) -> None:
    async with visit.block(with_cancellation(visit.source())) as stream:
        await visit.come_back(stream)


async def on_a_beat(visit: Visit) -> None:
    beat = object()
    async with visit.block(with_keepalive(visit.source(), BEATS_EVERY, beat)) as stream:
        async for item in stream:
            if item is not beat:
                visit.took()
            elif visit.is_blocked():
                break


async def by_error(visit: Visit) -> None:
    error = BodyError()
    with pytest.raises(BodyError) as caught:
        async with visit.block(with_cancellation(visit.source())) as stream:
            await visit.come_back(stream)
            raise error
    assert caught.value is error


async def by_aclose(visit: Visit) -> None:
    async with visit.block(with_cancellation(visit.source())) as stream:
        await visit.come_back(stream)
        await stream.aclose()


async def by_aclose_elsewhere(visit: Visit) -> None:
    stream = with_cancellation(visit.source())
    async with visit.meanwhile(stream.aclose, goes_on=True):
        with pytest.raises(anyio.ClosedResourceError):
            async with visit.block(stream):
                await visit.stay(stream)


async def by_scope(visit: Visit) -> None:
    with anyio.move_on_after(60) as scope:

        async def expire() -> None:
            scope.deadline = anyio.current_time()

        async with visit.meanwhile(expire, goes_on=False):
            async with visit.block(with_cancellation(visit.source())) as stream:
                await visit.stay(stream)
    assert scope.cancelled_caught


async def by_task_cancel(visit: Visit) -> None:
    async def consume() -> None:
        async with visit.block(with_cancellation(visit.source())) as stream:
            await visit.stay(stream)

    task = asyncio.create_task(consume())
    await visit.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert type(caught.value) is asyncio.CancelledError


async def of_a_plain_generator(visit: Visit) -> None:
    """What the library itself does, without a stream, when the task is cancelled."""

    async def consume() -> None:
        try:
            async with aclosing(visit.source()) as source:
                await visit.stay(source)
        finally:
            visit.look()

    task = asyncio.create_task(consume())
    await visit.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
