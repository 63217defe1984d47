"""Consumers: what is done in the block of the stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from streamkit import StreamCancelled

from .record import BEAT, FINAL, BodyError, Record, text

Consumer = Callable[[Record, Any], Awaitable[None]]
CONSUMERS: dict[str, Consumer] = {}
#: Those for which the chain must have a head, or beats.
NEEDS_HEAD, NEEDS_BEATS = {"head_first"}, {"leaving_on_beat"}

# On asyncio a wait that is over in the turn in which it began is not cancelled: it may happen that
# an item comes just so.
ASKS_IN_A_CANCELLED_SCOPE = 2


class Leave(Exception):
    """Says that the consumer leaves its loop."""


def consumer(function: Consumer) -> Consumer:
    """Put a consumer on the list, under its own name."""
    CONSUMERS[function.__name__] = function
    return function


def _take(record: Record, item: Any) -> None:
    if item == BEAT:
        record.beats += 1
    elif item == FINAL:
        record.final_items += 1
    else:
        record.received.append(item)
    record.note(f"receives {item!r}")


async def _follow(record: Record, stream: Any) -> None:
    """Do what the consumer was told, if anything."""
    order, record.order = record.order, None
    if order is None:
        return
    record.note(f"does what it is told: {order}")
    if order == "break":
        raise Leave
    if order == "raise":
        raise record.error(BodyError())
    if order == "stop":
        raise StreamCancelled("raised by the consumer")
    assert order == "aclose"
    record.left = True
    await stream.aclose()


async def _ask(record: Record, stream: Any) -> Any:
    """Ask for one item, and note what comes in its place."""
    # With read-ahead, an ask that finds an item is no checkpoint.
    gone = record.block_scope.cancel_called and record.chain != "buffered" and not record.stays
    try:
        item = await stream.__anext__()
    except StopAsyncIteration:
        record.saw_end = True
        record.note("sees the end")
        raise
    except anyio.ClosedResourceError as exc:
        record.asked_errors.append(exc)
        record.note("finds it closed")
        raise Leave from None
    except (Exception, StreamCancelled) as exc:
        record.saw_end = True
        record.asked_errors.append(exc)
        record.note(f"is told {text(exc)}")
        raise
    record.asked_in_vain += gone
    if record.asked_in_vain > ASKS_IN_A_CANCELLED_SCOPE:
        record.problem("cancellation-lost", "asks went well in a cancelled scope")
    _take(record, item)
    return item


async def _each(record: Record, stream: Any, busy: Callable[[int], Awaitable[None]]) -> None:
    """Take all items, the way ``async for`` does, and be busy after each."""
    number = 0
    await _follow(record, stream)
    while True:
        try:
            await _ask(record, stream)
        except StopAsyncIteration:
            return
        await _follow(record, stream)
        await busy(number)
        number += 1
        await _follow(record, stream)


async def _not_busy(number: int) -> None:
    pass


@consumer
async def plain(record: Record, stream: Any) -> None:
    await _each(record, stream, _not_busy)


@consumer
async def slow(record: Record, stream: Any) -> None:
    async def busy(number: int) -> None:
        gone = record.block_scope.cancel_called
        with anyio.CancelScope() as record.body_scope:
            await anyio.sleep(0.7)
            if gone:
                record.problem("cancellation-lost", "a wait went well in a cancelled scope")

    await _each(record, stream, busy)


@consumer
async def patient(record: Record, stream: Any) -> None:
    """Have a timeout around each ask, and ask again."""
    while True:
        try:
            await _follow(record, stream)
            with anyio.move_on_after(0.4) as record.ask_scope:
                await _ask(record, stream)
        except StopAsyncIteration:
            return


@consumer
async def staying(record: Record, stream: Any) -> None:
    """Stay for a while when it is cancelled, and ask again."""
    try:
        await _each(record, stream, _not_busy)
    except anyio.get_cancelled_exc_class():
        record.stays = True
        record.note("stays")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)
            while True:
                try:
                    await _ask(record, stream)
                except (Exception, StreamCancelled):
                    # The end, or that it is closed.
                    break
        raise


@consumer
async def head_first(record: Record, stream: Any) -> None:
    try:
        head = await stream.head()
    except anyio.ClosedResourceError as exc:
        record.asked_errors.append(exc)
        raise Leave from None
    except (Exception, StreamCancelled) as exc:
        record.asked_errors.append(exc)
        record.note(f"head: {text(exc)}")
        raise
    record.note(f"head: {head}")
    await _each(record, stream, _not_busy)


@consumer
async def leaving(record: Record, stream: Any) -> None:
    """Leave with the second item."""

    async def busy(number: int) -> None:
        if len(record.received) == 2:
            raise Leave

    await _each(record, stream, busy)


@consumer
async def leaving_on_beat(record: Record, stream: Any) -> None:
    """Leave with the second beat, while the source is blocked."""

    async def busy(number: int) -> None:
        if record.beats == 2:
            raise Leave

    await _each(record, stream, busy)


async def consume(record: Record, stream: Any, name: str) -> None:
    """Enter the stream, do what the consumer of that name does, and leave."""
    async with stream:
        record.entered = True
        try:
            await CONSUMERS[name](record, stream)
        except Leave:
            # Not through the block: a consumer that breaks raises nothing.
            record.left = record.left or not record.saw_end
            record.note("leaves")
        except BaseException as exc:
            record.left = record.left or not record.saw_end
            record.note(f"leaves with {text(exc)}")
            raise
