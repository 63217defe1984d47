"""
B10: what telemetry costs an item, in a stream and in a response: nothing is done for it.

The chain of B1 and the response of B5, with telemetry and without, measured in turns. What is told
goes to OpenTelemetry's SDK. As there, the clock runs from the first step of the source to the last
item: what is told at the beginning and at the end is outside of it, and is in the table, by the
stream. The time between items, which is optional, is there for comparison.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from statistics import median
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from streamkit.opentelemetry import OpenTelemetry, with_telemetry
from streamkit.sse import EventStream

from . import responses, sources
from .backends import installed
from .chain import chain_of_three
from .report import Ratio, Result, Table, number
from .responses import request
from .rounds import Costs, in_turns

TITLE = "Telemetry"

OFF = "without telemetry"
ON = "with telemetry"
GAPS = "with item_gaps"

# Of what an item costs.
_MUST = 1.02

Measure = Callable[[str], Awaitable[float]]


def provider() -> MeterProvider:
    """Return what measures, and keeps it in memory."""
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def stream_of(name: str, source: AsyncGenerator[int, None], meters: MeterProvider) -> Any:
    """Return the stream of B1 in one of the three ways."""
    stream = chain_of_three(source)
    if name == OFF:
        return stream
    return with_telemetry(stream, "stream", item_gaps=name == GAPS, meter_provider=meters)


async def measure_streams(source: str, count: int, rounds: int) -> Costs:
    """Measure what an item of a stream costs, in the running event loop."""
    meters = provider()

    async def measure_one(name: str) -> float:
        run = sources.Run(count)
        gc.collect()
        async with stream_of(name, sources.SOURCES[source](run), meters) as items:
            async for item in items:
                run.take(item)
        run.check(f"the stream {name}")
        return run.cost

    return await in_turns([OFF, ON, GAPS], rounds, measure_one)


async def measure_responses(source: str, count: int, rounds: int) -> Costs:
    """Measure what an item of a response costs, in the running event loop."""
    meters = provider()
    telemetry = {
        OFF: None,
        ON: OpenTelemetry("response", meter_provider=meters),
        GAPS: OpenTelemetry("response", item_gaps=True, meter_provider=meters),
    }

    async def measure_one(name: str) -> float:
        run = responses.Run(count)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            items = responses.SOURCES[source](run, str)
            response = EventStream(items, final=lambda outcome: None, telemetry=telemetry[name])
            await response(scope, receive, send)

        gc.collect()
        await request(app, run.send)
        run.check(f"the response {name}")
        return run.cost

    return await in_turns(list(telemetry), rounds, measure_one)


async def measure_whole(count: int, rounds: int) -> Costs:
    """Measure a stream of one item, from its making to its end."""
    meters = provider()

    async def source() -> AsyncGenerator[int, None]:
        yield 1

    async def measure_one(name: str) -> float:
        gc.collect()
        begun = time.thread_time()
        for _ in range(count):
            async with stream_of(name, source(), meters) as items:
                async for _ in items:
                    pass
        return (time.thread_time() - begun) / count * 1e6

    return await in_turns([OFF, ON], rounds, measure_one)


def measure(*, quick: bool = False) -> Result:
    items, events, streams, rounds = (200, 100, 20, 5) if quick else (4_000, 500, 200, 51)
    result = Result("B10", TITLE)
    for backend in installed():
        rows = []
        for source in sources.SOURCES:
            costs = {
                "stream": backend.run(measure_streams, source, items, rounds),
                "response": backend.run(measure_responses, source, events, rounds),
            }
            for what, cost in costs.items():
                rows.append([f"{what}, {source}", *(number(median(cost[way])) for way in cost)])
                about = f"{backend.name}, {source}, {what}"
                result.ratios += [
                    Ratio.of(f"{about}: {ON} / {OFF}", cost[ON], cost[OFF], _MUST),
                    Ratio.of(f"{about}: {GAPS} / {OFF}", cost[GAPS], cost[OFF]),
                ]
        whole = backend.run(partial(measure_whole, streams, rounds))
        rows.append(["a stream of one item", *(number(median(whole[way])) for way in whole), ""])
        result.tables.append(Table(backend.name, ["µs", OFF, ON, GAPS], rows))
    return result
