"""What is kept of a run, by its limits and those of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from streamkit import (
    StreamCancelled,
)
from streamkit.runs import (
    Gap,
    LogFull,
    MemoryLog,
    RunCancelled,
    RunNotFound,
    Runs,
)
from support import Probe, aiter_of, wait_all_blocked
from support.runs import end_of, items_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def test_trimmed() -> None:
    """The oldest entries go. Who begins with the first sees that; who would miss one is told."""
    async with Runs(max_items=10) as runs:
        info = await runs.start(aiter_of(*range(1, 101)))
        await wait_all_blocked()
        info = await runs.get(info.id)
        assert (info.first, info.last) == (91, 100)
        async with runs.attach(info.id) as stream:
            assert [entry.position async for entry in stream] == list(range(91, 101))
        assert await items_of(runs, info.id, after=90) == list(range(91, 101))
        with pytest.raises(Gap, match="those from 91 to 100 are kept") as caught:
            await items_of(runs, info.id, after=89)
        assert (caught.value.first, caught.value.last) == (91, 100)


async def test_trimmed_by_size() -> None:
    """So it is where they are too large together."""
    async with Runs(max_bytes=1_000) as runs:
        info = await runs.start(aiter_of(*["x" * 98] * 100))
        await wait_all_blocked()
        assert (await runs.get(info.id)).first == 91


async def test_a_reader_is_trimmed_past() -> None:
    """A reader that is too slow is told what it missed, and no other."""
    async with Runs(max_items=100) as runs:
        info = await runs.start(Probe(*range(1, 401), every=1).source())
        slow: list[int] = []
        async with runs.attach(info.id) as stream, anyio.create_task_group() as tasks:
            fast: list[Any] = []

            async def read() -> None:
                fast.extend(await items_of(runs, info.id))

            tasks.start_soon(read)
            with pytest.raises(Gap):
                async for entry in stream:
                    slow.append(entry.item)
                    await anyio.sleep(5)
        assert fast == list(range(1, 401))
        assert slow == list(range(1, len(slow) + 1))
        assert len(slow) < 300


async def test_full() -> None:
    """With when_full="end" the source is told, and what it says then is kept, up to 100 items."""

    async def source(last: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(100):
                await anyio.sleep(1)
                yield number
        except StreamCancelled as stop:
            reasons.append(type(stop.reason))
            for number in range(last):
                yield -number

    reasons: list[type] = []
    async with Runs(max_items=5, when_full="end") as runs:
        for last in 2, 1_000:
            info = await runs.start(source(last))
            items, end = await end_of(runs, info.id)
            assert items[:6] == [0, 1, 2, 3, 4, 5]
            assert items[6:] == [-number for number in range(min(last, 99))]
            assert isinstance(end, RunCancelled)
            assert isinstance(end.reason, LogFull)
    assert reasons == [LogFull] * 2


async def test_full_at_once() -> None:
    """A source that ended before it could be told has not completed, if not all of it is kept."""
    async with Runs(max_items=5, when_full="end") as runs:
        for count, complete in (50, True), (150, False):
            info = await runs.start(aiter_of(*range(count)))
            await wait_all_blocked()
            outcome = (await runs.get(info.id)).outcome
            assert outcome is not None
            assert (outcome.kind == "completed") is complete
    async with Runs(max_bytes=100, when_full="end") as runs:
        info = await runs.start(aiter_of(*["x" * 90] * 3))
        items, end = await end_of(runs, info.id)
        assert items == ["x" * 90] * 2
        assert isinstance(end, RunCancelled)


async def test_the_log_is_full() -> None:
    """A log without room tells the source, and takes no start; what ended goes first."""
    log = MemoryLog(max_bytes=20_000)
    async with Runs(log) as runs:
        old = await runs.start(aiter_of("x" * 10_000))
        await wait_all_blocked()
        probe = Probe(*["x" * 1_000] * 100, every=1)
        info = await runs.start(probe.source())
        items, end = await end_of(runs, info.id)
        assert 15 < len(items) < 20
        assert isinstance(end, RunCancelled)
        assert isinstance(end.reason, LogFull)
        with pytest.raises(RunNotFound):
            await runs.get(old.id)
        # Its own end makes room for the next.
        blocked = await runs.start(Probe("x" * 15_000, block=True).source())
        await wait_all_blocked()
        refused = Probe()
        with pytest.raises(LogFull, match="start it later"):
            await runs.start(refused.source(), data="x" * 10_000)
        assert not refused.started
        assert await runs.cancel_and_wait(blocked.id)


async def test_kept_for_a_while() -> None:
    """An ended run is kept as long as was said, and a minute more from its last read."""
    async with Runs(keep=10) as runs:
        for keep, seconds in (None, 10), (20, 20), (0, 0):
            info = await runs.start(aiter_of("a"), keep=keep)
            await wait_all_blocked()
            if seconds:
                await anyio.sleep(seconds - 1)
                await runs.get(info.id)
                await anyio.sleep(1)
            with pytest.raises(RunNotFound):
                await runs.get(info.id)
        info = await runs.start(aiter_of("a"))
        for _ in range(3):
            await anyio.sleep(9)
            assert await items_of(runs, info.id) == ["a"]
        await anyio.sleep(59)
        assert await items_of(runs, info.id) == ["a"]


async def test_max_runs() -> None:
    """So many may go on here, and no more."""
    async with Runs(max_runs=2) as runs:
        first = await runs.start(Probe(block=True).source())
        await runs.start(Probe(block=True).source())
        refused = Probe()
        with pytest.raises(LogFull, match="max_runs=2 runs go on here"):
            await runs.start(refused.source())
        assert await runs.cancel_and_wait(first.id)
        await wait_all_blocked()
        await runs.start(aiter_of("a"))
    assert not refused.started
