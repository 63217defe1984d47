"""Sources of streamkit's own, whose items come in lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit import (
    SKIP,
    CancelToken,
    Stage,
    Stream,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
)
from streamkit._core.backend import get_backend
from streamkit._core.handoff import Handoff
from streamkit._core.source import Batches
from support import wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LISTS = [[1], [2, 3, 4], [5, 6]]


def batched(*lists: list[Any]) -> Any:
    """Return a source of these lists."""

    async def source() -> AsyncGenerator[list[Any], None]:
        for each in lists:
            yield list(each)

    return Batches(source())


class Even(Stage[int, str]):
    """Lets some through, as something else."""

    def on_item(self, item: int) -> Any:
        if item == 60:
            raise LookupError("60")
        return SKIP if item % 2 else str(item)


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_all_in_order(size: int) -> None:
    """B2: what is in the lists are the items, with any read-ahead."""
    async with with_buffer(batched(*LISTS), size) as stream:
        assert [item async for item in stream] == [1, 2, 3, 4, 5, 6]
    assert (stream.outcome.kind, stream.outcome.items) == ("completed", 6)


async def test_not_before_there_is_room() -> None:
    """B1: the next list is made when all but a few of the items were taken."""
    made = []

    async def source() -> AsyncGenerator[list[int], None]:
        for number in range(0, 100, 10):
            made.append(number)
            yield list(range(number, number + 10))

    async with with_buffer(batched_of(source()), 5) as stream:
        assert await anext(stream) == 0
        await wait_all_blocked()
        assert made == [0]
        for item in range(1, 6):
            assert await anext(stream) == item
        await wait_all_blocked()
        assert made == [0, 10]
        assert [item async for item in stream] == list(range(6, 100))


def batched_of(lists: AsyncGenerator[list[Any], None]) -> Any:
    return Batches(lists)


@pytest.mark.parametrize("size", [0, 100])
async def test_through_stages(size: int) -> None:
    """B2: each item goes through the stages, and some of them no further."""
    lists = [1, 3], [2, 3, 4, 5], [7], [8, 10]
    async with with_buffer(with_stage(batched(*lists), Even()), size) as stream:
        assert [item async for item in stream] == ["2", "4", "8", "10"]
    assert stream.outcome.items == 4
    assert stream.outcome.first_item_at is not None


@pytest.mark.parametrize("size", [0, 100])
async def test_a_stage_fails(size: int) -> None:
    """E1: what comes before the item at which a stage fails is received, and then the error."""
    seen = []
    with pytest.raises(LookupError):
        async with with_buffer(with_stage(batched([2, 4, 60, 6]), Even()), size) as stream:
            async for item in stream:
                seen.append(item)
    assert seen == ["2", "4"]
    assert (stream.outcome.kind, stream.outcome.items) == ("failed", 2)


async def test_beats() -> None:
    """K1: a beat that tells of the last item knows the last of a list."""

    async def source() -> AsyncGenerator[list[int], None]:
        yield [1, 2]
        await anyio.sleep(3)
        yield [3]

    async with with_keepalive(batched_of(source()), 2, lambda idle: f"{idle.last}") as stream:
        assert [item async for item in stream] == [1, 2, "2", 3]


@pytest.mark.parametrize("leaves", [False, True])
async def test_last_words(leaves: bool) -> None:
    """C24: what is said on the way out arrives; L1: if nobody has left."""
    token = CancelToken()

    async def source() -> AsyncGenerator[list[int], None]:
        try:
            yield [1]
            await anyio.sleep_forever()
        except StreamCancelled:
            yield [2, 3]

    seen = []
    stream: Stream[int] = with_cancellation(batched_of(source()), token)
    async with stream, anyio.create_task_group() as tasks:

        async def stop() -> None:
            await anyio.sleep(1)
            if leaves:
                await stream.aclose()
            else:
                token.cancel()

        tasks.start_soon(stop)
        try:
            async for item in stream:
                seen.append(item)
        except anyio.ClosedResourceError:
            assert leaves
    assert seen == ([1] if leaves else [1, 2, 3])
    assert stream.outcome.items == len(seen)


async def test_closed_meanwhile() -> None:
    """G6: what is handed over to a stream that was closed is dropped, a whole list like an item."""
    handoff = Handoff(get_backend(), 10)
    handoff.put_all([1, 2])
    handoff.close()
    handoff.put_all([3, 4])
    with pytest.raises(anyio.ClosedResourceError):
        await handoff.receive()
    assert handoff.dropped == 2
