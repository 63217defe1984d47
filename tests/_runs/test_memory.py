"""``MemoryLog``: what any log does, and what it does in one process."""

from __future__ import annotations

import gc
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit._runs.kept import KeptRun
from streamkit.runs import LogFull, MemoryLog, Requests, RunNotFound, Terms
from streamkit.testing import log_conformance
from support import wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import Callable

TestMemoryLog = log_conformance(MemoryLog, time_travels=True)
TestMemoryLogWithLease = log_conformance(partial(MemoryLog, lease=15.0), time_travels=True)
TestMemoryLogInRealTime = log_conformance(partial(MemoryLog, lease=0.2))


class HolesFirst(MemoryLog):
    """A log that looks for a hole before it looks for what is missing."""

    async def append(
        self, run_id: str, epoch: str, position: int, *args: Any, **options: Any
    ) -> Requests:
        if position > (await self.get(run_id)).last + 1:
            raise ValueError("a hole")
        return await super().append(run_id, epoch, position, *args, **options)


async def test_hole_is_an_error() -> None:
    """Runs: a log may refuse a hole by an error, too."""
    await log_conformance(HolesFirst, time_travels=True)().test_no_hole()


def ignore(requests: Requests) -> None:
    """Take no hint."""


async def create(log: MemoryLog, run_id: str, terms: Terms | None = None) -> None:
    await log.create(run_id, "0e", terms or Terms(keep=60.0), ignore)


async def append(log: MemoryLog, run_id: str, *entries: bytes, last: int = 0) -> Requests:
    return await log.append(run_id, "0e", last + 1, entries, acknowledged=last, first=1)


async def test_the_oldest_ended_run_goes_first() -> None:
    """Where there is no room, the run that ended first goes; then nothing more is taken."""
    log = MemoryLog(max_bytes=5_000)
    async with log.open():
        for run_id in "abc":
            await create(log, run_id)
            await append(log, run_id, b"x" * 1_000)
        for run_id in "bac":
            await log.end(run_id, "0e", b"end")
        await create(log, "d")
        await append(log, "d", b"x" * 1_000)
        with pytest.raises(RunNotFound):
            await log.get("b")
        await append(log, "d", b"x" * 2_000, last=1)
        with pytest.raises(RunNotFound):
            await log.get("a")
        with pytest.raises(LogFull):
            await append(log, "d", b"x" * 2_000, last=2)
        assert len(log) == 2
        assert (await log.get("d")).last == 2
        await append(log, "d", b"x" * 500, last=2)
        with pytest.raises(LogFull):
            await create(log, "e", Terms(data=b"x" * 2_000))
        assert log
        assert repr(log).startswith("<MemoryLog of 1 runs, ")


async def test_nothing_goes_for_what_does_not_fit() -> None:
    """Where all that has ended would not make enough room, none of it goes."""
    log = MemoryLog(max_bytes=5_000)
    async with log.open():
        await create(log, "a")
        await log.end("a", "0e", b"end")
        await create(log, "b")
        with pytest.raises(LogFull):
            await append(log, "b", b"x" * 10_000)
        assert len(log) == 2


async def test_what_is_trimmed_makes_room() -> None:
    """A run at its limit goes on in a log at its limit: what it drops counts for what it adds."""
    log = MemoryLog(max_bytes=4_000)
    async with log.open():
        await create(log, "a")
        for number in range(100):
            await log.append(
                "a", "0e", number + 1, [b"x" * 1_000], acknowledged=number, first=max(number, 1)
            )
        assert (await log.get("a")).first == 99


@pytest.mark.one_of_each
async def test_ended_runs_leave_nothing() -> None:
    """10^5 runs, and cancellations that came too early for others, and nothing is left."""
    log = MemoryLog()
    async with log.open():
        for number in range(100_000):
            run_id = str(number)
            await create(log, run_id, Terms(keep=number % 7))
            await log.end(run_id, "0e", b"end")
        for number in range(11_000):
            await log.request_cancel(f"-{number}", b"stop")
        assert len(log._early) == 10_000
        await anyio.sleep(3)
        assert len(log) < 60_000
        await anyio.sleep(30)
        assert not log._runs
        assert not log._ended
        assert not log._early
        assert not log._agenda
        assert (log._bytes, log._ended_bytes) == (0, 0)
    assert not log._agenda._woken


async def test_kept_a_shorter_time() -> None:
    """A run that is to go sooner than all others does."""
    log = MemoryLog()
    async with log.open():
        for run_id, keep in ("a", 100.0), ("b", 1.0):
            await create(log, run_id, Terms(keep=keep))
            await log.end(run_id, "0e", b"end")
            await wait_all_blocked()
        await anyio.sleep(2)
        assert len(log) == 1


async def test_not_opened() -> None:
    """A run whose time is over is not found, also where nothing is swept."""
    log = MemoryLog()
    await create(log, "a", Terms(keep=1.0))
    await log.end("a", "0e", b"end")
    await anyio.sleep(2)
    with pytest.raises(RunNotFound):
        await log.get("a")
    assert len(log) == 0


async def test_read_on_time() -> None:
    """A run that was read in time is forgotten later, and then it is."""
    log = MemoryLog()
    async with log.open():
        await create(log, "a", Terms(keep=1.0))
        await log.end("a", "0e", b"end")
        await log.read("a", 0)
        await anyio.sleep(30)
        assert len(log) == 1
        await anyio.sleep(31)
        assert not log._runs


async def test_hints_for_the_producer() -> None:
    """A producer is told of a cancellation, and that it was buried, without a call of its own."""
    told: list[Requests] = []
    log = MemoryLog(lease=1.0)
    async with log.open():
        await log.create("a", "0e", Terms(), told.append)
        await log.request_cancel("a", b"stop")
        await log.request_cancel("a", b"again")
        assert [requests.cancel for requests in told] == [b"stop"]
        await anyio.sleep(1)
        await log.bury("a", "0e", b"lost")
        await anyio.sleep(5)
        await log.bury("a", "0e", b"lost")
        assert told[1].fenced


async def test_an_error_of_the_block_is_bare() -> None:
    """What leaves the block of a log is not put into a group."""
    with pytest.raises(LookupError):
        async with MemoryLog().open():
            raise LookupError


@pytest.mark.parametrize("has_siblings", [True, False])
async def test_one_of_several_workers(
    has_siblings: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a process with siblings it says once that they do not see what it keeps."""
    monkeypatch.setattr("streamkit._runs.memory.has_siblings", lambda: has_siblings)
    log = MemoryLog()
    async with log.open():
        with caplog.at_level(logging.WARNING, "streamkit"):
            for run_id in "ab":
                await create(log, run_id)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * has_siblings


@pytest.mark.parametrize(
    "make",
    [lambda: MemoryLog(max_bytes=0), lambda: MemoryLog(lease=0), lambda: MemoryLog(lease=-1)],
)
def test_misuse(make: Callable[[], Any]) -> None:
    """A limit that is none is refused."""
    with pytest.raises(ValueError, match="write "):
        make()


@pytest.mark.parametrize("how", ["deleted", "no room"])
async def test_removed_runs_leave_nothing(how: str) -> None:
    """What is removed before its time is gone at once, not when its time would have been over."""
    log = MemoryLog(max_bytes=2_000)
    terms = Terms(keep=60.0)
    async with log.open():
        await create(log, "a", terms)
        await append(log, "a", b"x" * 1_000)
        await log.end("a", "0e", b"end")
        if how == "deleted":
            await log.delete("a", "0e")
        else:
            await create(log, "b")
            await append(log, "b", b"x" * 1_000)
        gc.collect()
        assert not [
            run for run in gc.get_objects() if isinstance(run, KeptRun) and run.terms is terms
        ]


async def test_removed_before_its_time() -> None:
    """A run was removed, and there is another one of its id, when its time is over: that stays."""
    log = MemoryLog()
    async with log.open():
        await log.create("a", "0e", Terms(keep=10.0), ignore)
        await log.end("a", "0e", b"end")
        await log.delete("a", "0e")
        await log.create("a", "0f", Terms(), ignore)
        await anyio.sleep(20)
        assert (await log.get("a")).epoch == "0f"
