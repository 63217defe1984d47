"""What the tests of a log have in common: how it is made, and a run to write to."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .._runs.log import Requests, RunLog, Terms


class Suite:
    """Tests of one log."""

    #: Returns a new log.
    factory: Callable[[], RunLog]
    #: Whether a sleep takes no time.
    time_travels: bool = False

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[RunLog, None]:
        log = self.factory()
        async with log.open():
            yield log


class WrittenRun:
    """A run to write to."""

    def __init__(self, log: RunLog, terms: Terms) -> None:
        self.id: str = secrets.token_hex(8)
        self.epoch: str = secrets.token_hex(8)
        self.terms: Terms = terms
        self.requests: Requests = Requests()
        self._log = log
        self._last = 0

    @classmethod
    async def create(cls, log: RunLog, terms: Terms | None = None) -> WrittenRun:
        run = cls(log, Terms(keep=60.0) if terms is None else terms)
        run.requests = await log.create(run.id, run.epoch, run.terms, ignore)
        return run

    async def append(self, *entries: bytes, first: int = 1) -> Requests:
        last = self._last
        requests = await append(
            self._log, self.id, self.epoch, last + 1, *entries, acknowledged=last, first=first
        )
        self._last += len(entries)
        return requests

    async def entries(self) -> list[bytes]:
        """Read all of it."""
        entries: list[bytes] = []
        while page := (await self._log.read(self.id, len(entries))).entries:
            entries += page
        return entries


async def append(
    log: RunLog,
    run_id: str,
    epoch: str,
    position: int,
    *entries: bytes,
    acknowledged: int = 0,
    first: int = 1,
) -> Requests:
    return await log.append(
        run_id, epoch, position, list(entries), acknowledged=acknowledged, first=first
    )


async def at_once(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    results: list[Any] = [None] * len(calls)

    async def call(number: int) -> None:
        results[number] = await calls[number]()

    async with anyio.create_task_group() as tasks:
        for number in range(len(calls)):
            tasks.start_soon(call, number)
    return results


async def raises(error: type[Exception], call: Awaitable[object]) -> None:
    caught: Exception | None = None
    try:
        await call
    except error as exc:
        caught = exc
    assert caught is not None, f"{error.__name__} was not raised"


def finite(lease: float) -> float:
    """Return the lease, or some time for a log in which nobody dies."""
    return min(lease, 60.0)


def ignore(requests: Requests) -> None:
    """Take no hint."""
