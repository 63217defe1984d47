"""The ways in which a consumer goes, for what must hold in each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from chains import NEVER
from streamkit import Stream, with_cancellation, with_keepalive
from support import on_trio

if TYPE_CHECKING:
    from collections.abc import Iterator

Way: TypeAlias = str
Consumer: TypeAlias = Callable[[], Awaitable[None]]

# By its own will, at a beat if it waits for an item.
WILLING = ("break", "error", "aclose", "aclose by another task")
# By what is around it.
CANCELLED = ("scope", "task group", "fail_after")
# By what is around it, and only on asyncio.
NATIVE = ("Task.cancel()", "asyncio.timeout()", "wait_for", "asyncio.TaskGroup")


class Gone(Exception):
    """What a consumer raises that leaves with an error, or lies in the same group as one."""


def ways() -> Iterator[Way]:
    """Return the ways to go that the running backend has."""
    yield from WILLING
    yield from CANCELLED
    if not on_trio():
        yield from NATIVE


def is_willing(way: Way) -> bool:
    """Tell whether it leaves in a way that no scope or task around it has part in."""
    return way in WILLING


async def leave(
    source: Any,
    way: Way,
    *,
    after: float = 1.0,
    items: int = 0,
    grace: float | None = None,
    on_item: Callable[[object], object] | None = None,
) -> Stream[Any]:
    """
    Consume a stream, and go when it is ``after`` seconds old. Returns when that is done.

    :param source: the source, or a stream
    :param items: how many items to take first; after that, without a wait for the next one, the
        consumer is busy. With none, it waits for an item until it goes.
    :param grace: that of the stream
    :return: the stream, which has been left

    """
    if grace is not None:
        source = with_cancellation(source, grace=grace)
    # Who waits for an item can go of its own will only at a beat.
    beats = not items and is_willing(way) and way != "aclose by another task"
    stream = with_keepalive(source, after if beats else NEVER, "beat")

    async def consume() -> None:
        async with stream:
            with suppress(anyio.ClosedResourceError):
                if items:
                    for _ in range(items):
                        item = await anext(stream)
                        if on_item is not None:
                            on_item(item)
                    await anyio.sleep(after if is_willing(way) else NEVER)
                else:
                    assert await anext(stream) == "beat"
            if way == "error":
                raise Gone
            if way == "aclose":
                await stream.aclose()
                await anyio.sleep(after)

    async def aclose() -> None:
        await anyio.sleep(after)
        await stream.aclose()

    if way == "aclose by another task":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(aclose)
            await consume()
    else:
        await _GO.get(way, _go)(consume, after)
    return stream


async def _go(consume: Consumer, after: float) -> None:
    with suppress(Gone):
        await consume()


async def _scope(consume: Consumer, after: float) -> None:
    with anyio.move_on_after(after) as scope:
        await consume()
    assert scope.cancelled_caught


async def _task_group(consume: Consumer, after: float) -> None:
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_fail, after)
            await consume()
    except* Gone:
        pass


async def _fail_after(consume: Consumer, after: float) -> None:
    try:
        with anyio.fail_after(after):
            await consume()
    except TimeoutError:
        return
    raise AssertionError("must not be reached")


async def _cancel(consume: Consumer, after: float) -> None:
    async def main() -> None:
        await consume()

    task = asyncio.create_task(main())
    await asyncio.sleep(after)
    task.cancel("go")
    await asyncio.wait([task])
    assert task.cancelled()


async def _timeout(consume: Consumer, after: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(after) as timeout:
            await consume()
    assert timeout.expired()
    assert not _cancelling()


async def _wait_for(consume: Consumer, after: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(consume(), after)
        raise AssertionError("must not be reached")
    assert not _cancelling()


async def _asyncio_task_group(consume: Consumer, after: float) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_fail(after))
            await consume()
    except* Gone:
        pass
    assert not _cancelling()


async def _fail(after: float) -> None:
    await anyio.sleep(after)
    raise Gone


def _cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


_GO = {
    "scope": _scope,
    "task group": _task_group,
    "fail_after": _fail_after,
    "Task.cancel()": _cancel,
    "asyncio.timeout()": _timeout,
    "wait_for": _wait_for,
    "asyncio.TaskGroup": _asyncio_task_group,
}
