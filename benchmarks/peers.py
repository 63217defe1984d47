"""
What moves items from one task to another: streamkit and its peers.

A peer takes an async generator function, iterates over what that returns, and calls ``take`` with
each item. Each is written as its documentation or its users write it, with nothing that is not
needed. All but the bare loop do what makes them comparable: the source is in another task than the
consumer, or its items are waited for with a time limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import trio
from aiostream import stream
from anyio.abc import ObjectSendStream
from outcome import Value

from streamkit import Stage, with_buffer, with_stage
from streamkit._core.backend import get_backend
from streamkit._core.handoff import Handoff

from .chain import SILENCE, chain_of_three

SourceFunction = Callable[[], AsyncGenerator[int, None]]
Take = Callable[[int], object]
Peer = Callable[[SourceFunction, Take], Awaitable[None]]

READ_AHEAD = 64

BARE = "bare loop"
SUBJECT = "streamkit"
BUFFERED = f"streamkit, buffer of {READ_AHEAD}"
NO_COMBINATOR = "streamkit, no combinator"
HAND_OFF = "hand-off alone"
FLOOR = "floor"
BUFFERED_FLOOR = f"floor, buffer of {READ_AHEAD}"
QUEUE = "queue + wait_for"
SAFE_CHANNEL = "as_safe_channel"
AIOSTREAM = "aiostream timeout"
MEMORY_STREAM = "memory object stream"


def peers_on(backend: str) -> dict[str, Peer]:
    """Return what can be measured on a backend, by name."""
    everywhere: dict[str, Peer] = {
        BARE: bare,
        SUBJECT: streamkit,
        BUFFERED: buffered_streamkit,
        NO_COMBINATOR: no_combinator,
        HAND_OFF: hand_off,
        MEMORY_STREAM: memory_stream,
    }
    if backend == "trio":
        return {
            **everywhere,
            FLOOR: trio_floor,
            BUFFERED_FLOOR: buffered_trio_floor,
            SAFE_CHANNEL: safe_channel,
        }
    return {
        **everywhere,
        FLOOR: asyncio_floor,
        BUFFERED_FLOOR: buffered_asyncio_floor,
        QUEUE: queue_and_wait_for,
        AIOSTREAM: aiostream_timeout,
    }


async def bare(source: SourceFunction, take: Take) -> None:
    """Measure the source itself, which every other peer pays for, too."""
    async for item in source():
        take(item)


# The subject


async def streamkit(source: SourceFunction, take: Take) -> None:
    async with chain_of_three(source()) as items:
        async for item in items:
            take(item)


async def buffered_streamkit(source: SourceFunction, take: Take) -> None:
    async with chain_of_three(with_buffer(source(), READ_AHEAD)) as items:
        async for item in items:
            take(item)


# Parts of the subject, to see where its time goes


async def no_combinator(source: SourceFunction, take: Take) -> None:
    """A stream with a stage that does nothing: what the source task costs."""
    async with with_stage(source(), Stage[int, int]()) as items:
        async for item in items:
            take(item)


async def hand_off(source: SourceFunction, take: Take) -> None:
    """The hand-off of streamkit between two plain tasks, as the floor is one."""
    meeting = Handoff(get_backend())

    async def produce() -> None:
        await meeting.demand()
        async for item in source():
            meeting.put(item)
            await meeting.demand()
        meeting.end(None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce)
        with suppress(StopAsyncIteration):
            while True:
                take(await meeting.receive())


# The floor: nothing but the wait of one task for the other. No beat, no signal, no close, and a
# cancellation would break it.


async def asyncio_floor(source: SourceFunction, take: Take) -> None:
    loop = asyncio.get_running_loop()
    demand, arrival = loop.create_future(), loop.create_future()

    async def produce() -> None:
        nonlocal demand
        await demand
        async for item in source():
            demand = loop.create_future()
            arrival.set_result(item)
            await demand
        arrival.set_result(None)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        demand.set_result(None)
        while (item := await arrival) is not None:
            take(item)
            arrival = loop.create_future()
            demand.set_result(None)


async def buffered_asyncio_floor(source: SourceFunction, take: Take) -> None:
    loop = asyncio.get_running_loop()
    items: deque[int | None] = deque()
    room: asyncio.Future[None] | None = None
    arrival: asyncio.Future[None] | None = None

    async def produce() -> None:
        nonlocal room, arrival
        async for item in source():
            items.append(item)
            if arrival is not None:
                arrival.set_result(None)
                arrival = None
            if len(items) == READ_AHEAD:
                room = loop.create_future()
                await room
        items.append(None)
        if arrival is not None:
            arrival.set_result(None)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        while True:
            if not items:
                arrival = loop.create_future()
                await arrival
            item = items.popleft()
            if room is not None:
                room.set_result(None)
                room = None
            if item is None:
                break
            take(item)


def _abort(raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


async def trio_floor(source: SourceFunction, take: Take) -> None:
    reschedule, wait = trio.lowlevel.reschedule, trio.lowlevel.wait_task_rescheduled
    consumer = producer = trio.lowlevel.current_task()

    async def produce() -> None:
        nonlocal producer
        producer = trio.lowlevel.current_task()
        async for item in source():
            reschedule(consumer, Value(item))
            await wait(_abort)
        reschedule(consumer, Value(None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        while (item := await wait(_abort)) is not None:
            take(item)
            reschedule(producer)


async def buffered_trio_floor(source: SourceFunction, take: Take) -> None:
    reschedule, wait = trio.lowlevel.reschedule, trio.lowlevel.wait_task_rescheduled
    consumer = producer = trio.lowlevel.current_task()
    items: deque[int | None] = deque()
    producer_waits = consumer_waits = False

    async def produce() -> None:
        nonlocal producer, producer_waits, consumer_waits
        producer = trio.lowlevel.current_task()
        async for item in source():
            items.append(item)
            if consumer_waits:
                consumer_waits = False
                reschedule(consumer)
            if len(items) == READ_AHEAD:
                producer_waits = True
                await wait(_abort)
        items.append(None)
        if consumer_waits:
            reschedule(consumer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        while True:
            if not items:
                consumer_waits = True
                await wait(_abort)
            item = items.popleft()
            if producer_waits:
                producer_waits = False
                reschedule(producer)
            if item is None:
                break
            take(item)


# What people use today


async def queue_and_wait_for(source: SourceFunction, take: Take) -> None:
    """The usual keepalive: a reader task, and a consumer that waits for the queue with a limit."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(1)

    async def read() -> None:
        try:
            async for item in source():
                await queue.put(item)
        finally:
            await queue.put(None)

    reader = asyncio.create_task(read())
    while True:
        try:
            item = await asyncio.wait_for(queue.get(), SILENCE)
        except TimeoutError:
            take(-1)
            continue
        if item is None:
            break
        take(item)
    await reader


async def safe_channel(source: SourceFunction, take: Take) -> None:
    async with trio.as_safe_channel(source)() as items:
        async for item in items:
            take(item)


async def aiostream_timeout(source: SourceFunction, take: Take) -> None:
    # Its types do not fit its own documentation.
    timeout: Any = stream.timeout
    async with timeout(source(), SILENCE).stream() as items:
        async for item in items:
            take(item)


async def memory_stream(source: SourceFunction, take: Take) -> None:
    """A channel without a place for an item: like all channels, it runs the source one ahead."""

    async def produce(send: ObjectSendStream[int]) -> None:
        async with send:
            async for item in source():
                await send.send(item)

    sending, receiving = anyio.create_memory_object_stream[int](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce, sending)
        async with receiving:
            async for item in receiving:
                take(item)
