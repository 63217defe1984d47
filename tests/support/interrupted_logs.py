"""
The calls of a log from the begin of a run to its end, to be interrupted, and what must hold then.

What is stored after an interrupted call is what was stored before it, or what it was to store. The
call is then made again, as its caller would, and all that follows: it comes to the same end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Literal, TypeAlias

import anyio
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from streamkit.runs import (
    MemoryLog,
    Record,
    Requests,
    RunCancelled,
    RunInfo,
    RunLog,
    RunNotFound,
    Runs,
    Terms,
)

from .backends import Backend

Kind: TypeAlias = Literal["cancel", "native"]

#: Seconds between the two looks of a burial, here.
DOUBT = 0.01

#: What is stored of a run: its record, and its entries from the first that is kept on.
State: TypeAlias = tuple[Record, list[bytes]] | None

TERMS = Terms(owner="ada", data=b'"data"', keep=600.0, started_at=1.0)


_numbers = count()


class Life:
    """
    The calls for one run, and the burial of another one.

    :param log: which is open
    """

    def __init__(self, log: RunLog) -> None:
        self.log = log
        number = next(_numbers)
        self.run_id, self.dead = f"run {number}", f"dead {number}"
        self.epoch = "0e"
        #: How many calls have returned.
        self.done = 0
        self.told: list[Requests] = []

    async def live(self) -> None:
        """Make all calls that were not made."""
        for name in STEPS[self.done :]:
            await getattr(self, name)()
            self.done += 1

    async def early(self) -> None:
        found = await self.log.request_cancel(self.run_id, b"early", owner="ada")
        assert found == "unknown"

    async def create(self) -> None:
        await self.log.create(self.run_id, self.epoch, TERMS, self.told.append)

    async def append(self) -> None:
        requests = await self.log.append(
            self.run_id, self.epoch, 1, [b"one", b"two"], acknowledged=0, first=1, head=201
        )
        assert not requests.fenced

    async def append_and_trim(self) -> None:
        requests = await self.log.append(
            self.run_id, self.epoch, 3, [b"three"], acknowledged=2, first=2, head=None
        )
        assert not requests.fenced

    async def renew(self) -> None:
        assert not (await self.log.renew(self.run_id, self.epoch, acknowledged=3)).fenced

    async def get(self) -> None:
        assert (await self.log.get(self.run_id)).last == 3

    async def read(self) -> None:
        assert (await self.log.read(self.run_id, 1)).entries == [b"two", b"three"]

    async def watch(self) -> None:
        async with self.log.watch(self.run_id) as watch:
            # That it looks the same each time is no news, to some logs.
            await self.log.append(self.run_id, self.epoch, 4, [], acknowledged=3, first=2, head=201)
            await watch.wait()
            assert (await self.log.read(self.run_id, 3)).entries == []

    async def touch(self) -> None:
        await self.log.touch(self.run_id, self.epoch)

    async def cancel(self) -> None:
        assert await self.log.request_cancel(self.run_id, b"why", owner="ada") == "running"

    async def end(self) -> None:
        # The second time, it may have been ended by the first.
        is_own = await self.log.end(self.run_id, self.epoch, b"end", acknowledged=3)
        assert is_own or (await self.log.get(self.run_id)).outcome == b"end"

    async def read_on(self) -> None:
        assert (await self.log.read(self.run_id, 3)).outcome == b"end"

    async def delete(self) -> None:
        # It may have been removed by the call that was interrupted.
        with suppress(RunNotFound):
            await self.log.delete(self.run_id, self.epoch)

    async def bury(self) -> None:
        while (found := await self.log.bury(self.dead, "0e", b"lost")) == "doubted":
            await anyio.sleep(DOUBT)
        # The second time, it may have been buried by the first.
        assert found == "buried" or (found, await self.outcome_of_dead()) == ("gone", b"lost")

    async def outcome_of_dead(self) -> bytes | None:
        return (await self.log.get(self.dead)).outcome

    async def state(self) -> State:
        """Return what is stored, when all is done that was asked for."""
        # What writes goes one after the other.
        await self.log.touch("nobody's", "0e")
        try:
            record = await self.log.get(self.run_id)
            page = await self.log.read(self.run_id, record.first - 1)
        except RunNotFound:
            return None
        assert (page.first, page.last, page.outcome) == (record.first, record.last, record.outcome)
        # That it has lapsed is a matter of time.
        return replace(record, epoch="", lapsed=False), list(page.entries)

    async def go_on(self, check: Callable[[], Awaitable[object]]) -> None:
        """
        See that a log is well whose call was interrupted, and make that and all others.

        :param check: sees that the log holds nothing, where no run goes on
        """
        if self.done < len(STEPS):
            if STEPS[self.done] == "create":
                # All or nothing, and there is nobody who knows that it is there.
                with anyio.fail_after(10):
                    while await self.state() is not None:
                        await anyio.sleep(0.005)
                await check()
                self.epoch = "0f"
            else:
                expected = [await _expected(self.done), await _expected(self.done + 1)]
                assert await self.state() in expected
        with anyio.fail_after(10):
            await self.live()
        assert await self.state() is None
        assert await self.outcome_of_dead() == b"lost"
        await check()


#: All of them, in their order.
STEPS = [
    *("early", "create", "append", "append_and_trim", "renew", "get", "read", "watch", "touch"),
    *("cancel", "end", "read_on", "delete", "bury"),
]


def ignore(requests: Requests) -> None:
    """Take no hint."""


async def lives(log: RunLog, short: RunLog, number: int) -> list[Life]:
    """
    Return some lives, with a run for each whose lease is over, and that nobody has buried.

    :param log: which is open
    :param short: one of the same store, whose leases are over at once
    """
    found = [Life(log) for _ in range(number)]
    async with short.open():
        for life in found:
            await short.create(life.dead, "0e", TERMS, ignore)
    # Some make a connection for the first call.
    await found[0].state()
    return found


async def _expected(steps: int) -> State:
    """Return what is stored after some steps."""
    life = Life(MemoryLog())
    for name in STEPS[:steps]:
        if name not in ("watch", "bury"):
            await getattr(life, name)()
    return await life.state()


class Visit:
    """
    Who starts a run, reads it, and has it stopped and removed.

    :param runs: which are open
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._run_id = f"run {next(_numbers)}"
        self._is_read = anyio.Event()
        self._has_started = self.is_over = False
        #: The sources that are not closed.
        self.sources = 0

    async def go(self) -> None:
        """Do so."""
        runs, run_id = self._runs, self._run_id
        await runs.start(self._words(), id=run_id)
        self._has_started = True
        assert (await runs.get(run_id)).id == run_id
        items: list[str] = []
        async with runs.attach(run_id) as stream:
            async for entry in stream:
                items.append(entry.item)
                self._is_read.set()
        assert items == ["a", "b"]
        assert await runs.cancel_and_wait(run_id)
        await runs.delete(run_id)
        self.is_over = True

    async def _words(self) -> AsyncGenerator[str, None]:
        self.sources += 1
        try:
            yield "a"
            await self._is_read.wait()
            yield "b"
        finally:
            self.sources -= 1

    async def check(self) -> None:
        """See that there is no run, or one that goes on as it was asked to, and has all of it."""
        runs = self._runs
        with anyio.fail_after(10):
            while runs.stats().readers:
                await anyio.sleep(0.005)
            if self._has_started and await self._info() is not None:
                await runs.cancel_and_wait(self._run_id)
                with suppress(RunCancelled):
                    async with runs.attach(self._run_id) as stream:
                        items = [entry.item async for entry in stream]
                        assert items == ["a", "b"]
                await runs.delete(self._run_id)
            while runs.stats().running:
                await anyio.sleep(0.005)
            # Nobody was told of one whose start was cancelled.
            while await self._info() is not None:
                await anyio.sleep(0.005)
        assert not self.sources

    async def _info(self) -> RunInfo | None:
        try:
            return await self._runs.get(self._run_id)
        except RunNotFound:
            return None


class Moment:
    """
    Interrupts who has called a log, when that comes to some moment of its work.

    What the log does there calls :meth:`come`, in the event loop or in a thread.
    """

    def __init__(self) -> None:
        self._strike: Callable[[], object] | None = None
        self._token: EventLoopToken
        #: The calls that were interrupted.
        self.met: list[str] = []

    async def interrupt(self, life: Life, step: int, kind: Kind) -> None:
        """Make the calls before a step, then that one, which is interrupted."""
        self._token = current_token()
        for name in STEPS[:step]:
            await getattr(life, name)()
            life.done += 1

        async def call() -> None:
            task = asyncio.current_task() if kind == "native" else None
            with anyio.CancelScope() as scope:
                self._strike = scope.cancel if task is None else task.cancel
                await getattr(life, STEPS[step])()
                life.done += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
        if self._strike is None:
            self.met.append(STEPS[step])
        self._strike = None

    def come(self) -> bool:
        """Interrupt it, the first time. Returns whether that was done."""
        strike, self._strike = self._strike, None
        if strike is not None:
            strike()
        return strike is not None

    def come_in_thread(self) -> None:
        """Do so, and let it go before the thread goes on."""
        if self._strike is not None:
            anyio.from_thread.run(self.come_and_wait, token=self._token)

    async def come_and_wait(self) -> None:
        """Do so, and let it go."""
        if self.come():
            for _ in range(5):
                await checkpoint()


def kinds_of(when: str, backend: Backend) -> list[Kind]:
    """Return how a task is cancelled at some moment."""
    # Only by Task.cancel() if what it waits for has come, and otherwise there is no difference.
    return ["cancel", "native"] if when == "told" and not backend.is_trio else ["cancel"]
