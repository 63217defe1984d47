"""
The readers of B7: one run and many of them, as streams and as responses, beside as many responses
with a source each.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from streamkit.runs import MemoryLog, Runs
from streamkit.sse import EventStream, RunEvents

from .responses import (
    SOURCES as TEXT_SOURCES,
    SUBJECT as EVENT_STREAM,
    Run as Response,
    event_of,
    event_stream,
    request,
)
from .rounds import Costs, in_turns
from .run_sources import SLOW, Taken, run_to_its_end, slow, source_of

ATTACHED = "attached reader"
RESPONSE = "RunEvents"


class Audience:
    """The readers of one run: which are there, and when the last of them had the last item."""

    def __init__(self, readers: int) -> None:
        self._coming = self._taking = readers
        self.ended_at = 0.0

    @property
    def is_complete(self) -> bool:
        return not self._coming

    def come(self) -> None:
        self._coming -= 1

    def has_all(self) -> None:
        self._taking -= 1
        if not self._taking:
            self.ended_at = time.thread_time()


#: Reads a run of this many items to its end.
Reader = Callable[[Runs, str, int, Audience], Coroutine[Any, Any, None]]


async def attach(runs: Runs, run_id: str, count: int, audience: Audience) -> None:
    """Read a run as a stream."""
    taken = Taken(count)
    async with runs.attach(run_id) as stream:
        audience.come()
        async for entry in stream:
            taken.take(entry.item)
            if entry.position == count:
                audience.has_all()
    taken.check(ATTACHED)


async def answer(runs: Runs, run_id: str, count: int, audience: Audience) -> None:
    """Read a run as a response does."""
    info = await runs.get(run_id)
    events = [
        f"data: token {item}\nid: {info.epoch}:{item + 1}\n\n".encode() for item in range(count)
    ]
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if body := message.get("body"):
            sent.append(body)
            if body.endswith(events[-1]):
                audience.has_all()

    response = RunEvents(runs, run_id, final=lambda outcome: None)
    audience.come()
    await request(response, send)
    if b"".join(sent) != b"".join(events):
        raise RuntimeError("a response did not send what the run has yielded")


READERS: dict[str, Reader] = {ATTACHED: attach, RESPONSE: answer}


async def measure_readers(source: str, readers: int, count: int, rounds: int) -> Costs:
    """Measure one run with many readers, and one response."""
    async with Runs(MemoryLog(), keep=0) as runs:

        async def measure_one(name: str) -> float:
            if name == EVENT_STREAM:
                return await measure_response(source, count)
            return await measure_one_run(runs, source, READERS[name], readers, count)

        return await in_turns([EVENT_STREAM, *READERS], rounds, measure_one)


async def measure_one_run(
    runs: Runs, source: str, reader: Reader, readers: int, count: int
) -> float:
    """Return microseconds per reader and item, less those of the run alone."""
    alone = time.thread_time()
    await run_to_its_end(runs, source_of(source)(count), count)
    alone = time.thread_time() - alone

    go = anyio.Event()
    audience = Audience(readers)

    async def started() -> AsyncGenerator[str, None]:
        await go.wait()
        async for item in source_of(source)(count):
            yield item

    info = await runs.start(started())
    async with anyio.create_task_group() as tasks:
        for _ in range(readers):
            tasks.start_soon(reader, runs, info.id, count, audience)
        while not audience.is_complete or runs.stats().readers < readers:
            await checkpoint()
        gc.collect()
        start = time.thread_time()
        go.set()
    return (audience.ended_at - start - alone) / readers / count * 1e6


async def measure_slow(readers: int, count: int, rounds: int) -> Costs:
    """Measure one run that says something now and then, and as many responses."""
    async with Runs(MemoryLog(), keep=0) as runs:

        async def measure_one(name: str) -> float:
            if name == EVENT_STREAM:
                return await measure_slow_responses(readers, count)
            return await measure_one_run(runs, SLOW, READERS[name], readers, count)

        return await in_turns([EVENT_STREAM, *READERS], rounds, measure_one)


async def measure_slow_responses(readers: int, count: int) -> float:
    """Return microseconds per response and item, each with a source of its own."""
    go = anyio.Event()
    audience = Audience(readers)
    last = event_of(f"token {count - 1}")

    async def started() -> AsyncGenerator[str, None]:
        audience.come()
        await go.wait()
        async for item in slow(count):
            yield item

    async def send(message: Any) -> None:
        if message.get("body") == last:
            audience.has_all()

    async with anyio.create_task_group() as tasks:
        for _ in range(readers):
            response = EventStream(started(), final=lambda outcome: None)
            tasks.start_soon(request, response, send)
        while not audience.is_complete:
            await checkpoint()
        gc.collect()
        start = time.thread_time()
        go.set()
    return (audience.ended_at - start) / readers / count * 1e6


async def measure_response(source: str, count: int) -> float:
    """Return microseconds per item of one response, as B5 does."""
    run = Response(count)
    app = event_stream(partial(TEXT_SOURCES[source], run))
    gc.collect()
    await request(app, run.send)
    run.check(EVENT_STREAM)
    return run.cost
