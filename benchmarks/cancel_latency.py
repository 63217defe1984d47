"""
B4: how long it takes from ``cancel()`` to the exception in a source that is blocked.

The clock is the processor time of the thread: from the call to the exception the event loop is busy
without a break, so on an idle machine that is the time on the wall.

A single stream takes turns with a task that is blocked in a cancel scope of anyio. Then 1,000
streams are open at once: each with a token of its own, fired one after the other, and all with one
token.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from statistics import median, quantiles
from typing import Any, TypeVar

import anyio

from streamkit import CancelToken, StreamCancelled

from .backends import installed
from .chain import chain_of_three
from .report import Ratio, Result, Table, number
from .settling import Countdown, settle

TITLE = "Cancel latency"

T = TypeVar("T", CancelToken, anyio.CancelScope)


class Watch:
    """Notes when each of several blocked tasks is reached by a cancellation."""

    def __init__(self, count: int) -> None:
        self.blocked = Countdown(count)
        self.seen = Countdown(count)
        self.seen_at: list[float] = []

    def note(self) -> None:
        self.seen_at.append(time.thread_time())
        self.seen.arrive()


async def block_in_stream(watch: Watch, token: CancelToken) -> None:
    """Wait for an item that does not come, until the token fires."""

    async def source() -> AsyncGenerator[int, None]:
        watch.blocked.arrive()
        try:
            await anyio.sleep_forever()
        except StreamCancelled:
            watch.note()
        yield 0

    async with chain_of_three(source(), token, silence=3_600) as items:
        async for _ in items:
            pass


async def block_in_scope(watch: Watch, scope: anyio.CancelScope) -> None:
    """The same for a cancel scope of anyio."""
    with scope:
        watch.blocked.arrive()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            watch.note()
            raise


async def one(block: Callable[[Watch, T], Coroutine[Any, Any, None]], target: T) -> float:
    """Return the microseconds until a task that is blocked is reached."""
    watch = Watch(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(block, watch, target)
        await watch.blocked.wait()
        await settle()
        start = time.thread_time()
        target.cancel()
        await watch.seen.wait()
    return (watch.seen_at[0] - start) * 1e6


async def single(rounds: int, repeats: int) -> tuple[list[list[float]], list[list[float]]]:
    """Take turns. Returns the latencies of streams and of scopes for each round."""
    streams: list[list[float]] = []
    scopes: list[list[float]] = []
    # The first round is for warming up.
    for _ in range(rounds + 1):
        gc.collect()
        streams.append([])
        scopes.append([])
        for _ in range(repeats):
            streams[-1].append(await one(block_in_stream, CancelToken()))
            scopes[-1].append(await one(block_in_scope, anyio.CancelScope()))
    return streams[1:], scopes[1:]


async def token_each(count: int) -> list[float]:
    """Have many streams open, and fire the token of one after the other."""
    watches = [Watch(1) for _ in range(count)]
    tokens = [CancelToken() for _ in range(count)]
    taken: list[float] = []
    async with anyio.create_task_group() as tasks:
        for watch, token in zip(watches, tokens, strict=True):
            tasks.start_soon(block_in_stream, watch, token)
        for watch in watches:
            await watch.blocked.wait()
        await settle()
        gc.collect()
        for watch, token in zip(watches, tokens, strict=True):
            start = time.thread_time()
            token.cancel()
            await watch.seen.wait()
            taken.append((watch.seen_at[0] - start) * 1e6)
            await settle()
    return taken


async def token_for_all(count: int) -> list[float]:
    """Have many streams open with one token, and fire it."""
    watch, token = Watch(count), CancelToken()
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(block_in_stream, watch, token)
        await watch.blocked.wait()
        await settle()
        gc.collect()
        start = time.thread_time()
        token.cancel()
        await watch.seen.wait()
    return [(seen_at - start) * 1e6 for seen_at in watch.seen_at]


async def scope_for_all(count: int) -> list[float]:
    """Cancel one scope of anyio around as many blocked tasks."""
    watch = Watch(count)
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(block_in_scope, watch, anyio.CancelScope())
        await watch.blocked.wait()
        await settle()
        gc.collect()
        start = time.thread_time()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await watch.seen.wait()
    return [(seen_at - start) * 1e6 for seen_at in watch.seen_at]


async def for_all(counts: tuple[int, int], rounds: int) -> dict[str, dict[int, list[list[float]]]]:
    """Return the latencies of all streams, by kind, number of streams and round."""
    taken: dict[str, dict[int, list[list[float]]]] = {
        "token": {count: [] for count in counts},
        "scope": {count: [] for count in counts},
    }
    for _ in range(rounds):
        for count in counts:
            taken["token"][count].append(await token_for_all(count))
            taken["scope"][count].append(await scope_for_all(count))
    return taken


def measure(*, quick: bool = False) -> Result:
    few, many = counts = (10, 50) if quick else (100, 1_000)
    result = Result("B4", TITLE)
    rows: list[list[str]] = []
    for backend in installed():
        name = backend.name
        streams, scopes = backend.run(single, 5 if quick else 15, 10 if quick else 50)
        rows.append(_row(f"{name}: one stream", _flat(streams)))
        rows.append(_row(f"{name}: one task, CancelScope.cancel()", _flat(scopes)))
        each = backend.run(token_each, many)
        rows.append(_row(f"{name}: {many:,} streams, a token each", each))
        taken = backend.run(for_all, counts, 5)
        per_stream = {
            kind: {count: [round_[-1] / count for round_ in of[count]] for count in counts}
            for kind, of in taken.items()
        }
        token, scope = per_stream["token"], per_stream["scope"]
        for kind, what in ("token", "streams, one token"), ("scope", "tasks, one CancelScope"):
            share = number(median(per_stream[kind][many]))
            rows.append(_row(f"{name}: {many:,} {what}", _flat(taken[kind][many]), share))
        result.ratios += [
            Ratio.of(
                f"{name}: p50 of one stream / of CancelScope.cancel()",
                [median(round_) for round_ in streams],
                [median(round_) for round_ in scopes],
                2,
            ),
            Ratio.of(
                f"{name}, one token: per stream, of {many:,} / of {few:,}",
                token[many],
                token[few],
                1.5,
            ),
            Ratio.of(
                f"{name}, one scope: per task, of {many:,} / of {few:,}", scope[many], scope[few]
            ),
            Ratio.of(f"{name}, {many:,}: one token / one scope", token[many], scope[many]),
        ]
    columns = ["µs from cancel() to the exception", "p50", "p99", "last / number"]
    result.tables.append(Table("Latency", columns, rows))
    return result


def _flat(rounds: list[list[float]]) -> list[float]:
    return [taken for round_ in rounds for taken in round_]


def _row(what: str, taken: list[float], share: str = "") -> list[str]:
    return [what, number(median(taken)), number(quantiles(taken, n=100)[-1]), share]
