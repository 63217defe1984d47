"""The block that runs live in, and how a program ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from streamkit import (
    Outcome,
    StreamCancelled,
)
from streamkit.asgi import Shutdown
from streamkit.runs import (
    MemoryLog,
    RunCancelled,
    RunEnded,
    RunInfo,
    Runs,
    RunsClosed,
    RunStats,
)
from support import Log, Probe, aiter_of, wait_all_blocked
from support.runs import end_of, items_of
from support.unsteady import Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def test_shutdown() -> None:
    """Runs are told at the end of the block, have their grace, and on_end; readers see the end."""
    saved: list[object] = []
    ends: list[object] = []

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(2)
            yield "last"

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        saved.append(outcome.reason)

    async def read() -> None:
        items, end = await end_of(runs, "chat")
        assert items == ["a", "last"]
        assert isinstance(end, RunCancelled)
        ends.append(end.reason)

    async with anyio.create_task_group() as tasks:
        runs = Runs()
        async with runs:
            await runs.start(source(), id="chat", on_end=on_end)
            tasks.start_soon(read)
            await wait_all_blocked()
            assert runs.stats() == RunStats(running=1, readers=1, held=0)
    assert saved == ends == [Shutdown()]
    assert runs.stats() == RunStats(running=0, readers=0, held=0)


async def test_shutdown_lets_finish() -> None:
    """With finish, runs may go on for a while: those that end by then are not told."""
    log = Log()
    async with Runs(finish=5) as runs:
        log.start()
        short, long = Probe("a", every=3), Probe("a", every=30)
        await runs.start(short.source(), id="short")
        await runs.start(long.source(), id="long")
        runs.shut_down()
        runs.shut_down()
        assert runs.is_shut_down
        refused = Probe()
        with pytest.raises(RunsClosed, match="in another process"):
            await runs.start(refused.source())
    log("left")
    assert log == [(5, "left")]
    assert short.produced == ["a"]
    assert [exc.reason for _, exc in long.seen if isinstance(exc, StreamCancelled)] == [Shutdown()]
    assert not refused.started


async def test_shutdown_is_cancelled() -> None:
    """Where the end of the block is cancelled, finish is over at once; the grace is not."""
    log = Log()

    async def source() -> AsyncGenerator[str, None]:
        try:
            await anyio.sleep_forever()
            yield "never"
        finally:
            await anyio.sleep(2)
            log("closed")

    log.start()
    with anyio.move_on_after(3):
        async with Runs(finish=100) as runs:
            await runs.start(source())
            await wait_all_blocked()
    assert log == [(5, "closed")]


async def test_an_error_of_the_block() -> None:
    """E4: what leaves the block leaves it bare, and runs are told as ever."""
    probe = Probe(block=True)
    with pytest.raises(LookupError):
        async with Runs() as runs:
            await runs.start(probe.source())
            await wait_all_blocked()
            raise LookupError
    assert probe.closed == 1


async def test_entered_again() -> None:
    """After it was left it may be entered again, and finds what its log kept."""
    runs = Runs()
    for number in range(2):
        async with runs:
            info = await runs.start(aiter_of(number), id=str(number))
            await wait_all_blocked()
            with pytest.raises(RuntimeError, match="entered once at a time"):
                await runs.__aenter__()
    async with runs:
        assert await items_of(runs, "0") == [0]
        assert (await runs.get(info.id)).last == 1
        assert "open, 0 go on" in repr(runs)


async def test_a_reader_of_a_run_elsewhere_is_sent_away() -> None:
    """A reader that waits for a run of another process gets no end of that when this one ends."""
    log = MemoryLog()
    errors: list[Exception] = []
    async with Runs(log) as elsewhere, anyio.create_task_group() as tasks:
        info = await elsewhere.start(Probe("a", block=True).source())
        async with Runs(log) as here:

            async def read() -> None:
                with pytest.raises(RunsClosed) as caught:
                    await items_of(here, info.id)
                errors.append(caught.value)

            tasks.start_soon(read)
            await wait_all_blocked()
        await wait_all_blocked()
        assert len(errors) == 1
        assert (await elsewhere.get(info.id)).state == "running"


@pytest.mark.parametrize("slow", ["all", "read"])
async def test_sent_away_at_the_end(slow: str) -> None:
    """A reader that is woken by the end of its run, and sent away just then, has the end."""
    # Often, for trio runs what is ready in any order.
    for _ in range(20):
        way = Way(MemoryLog())
        way.slow = {slow} if slow != "all" else way.slow
        ends: list[RunEnded] = []

        async def read(runs: Runs, ends: list[RunEnded]) -> None:
            items, end = await end_of(runs, "chat")
            assert items == ["a", "last"]
            ends.append(end)

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                yield "last"

        async with anyio.create_task_group() as tasks:
            async with Runs(way) as runs:
                await runs.start(source(), id="chat")
                tasks.start_soon(read, runs, ends)
                await wait_all_blocked()
                way.takes = 0.1
        assert [type(end) for end in ends] == [RunCancelled]


async def test_a_reader_that_does_not_read_is_not_waited_for_long() -> None:
    """A stream that is still attached at the end has the grace to read, and no more."""
    log = Log()
    log.start()
    async with anyio.create_task_group() as tasks:
        async with Runs(grace=3) as runs:
            info = await runs.start(aiter_of(*range(500)))

            async def read() -> None:
                async with runs.attach(info.id) as stream:
                    await anext(stream)
                    await anyio.sleep(10)
                    with pytest.raises(RunsClosed):
                        # It waits for what does not come any more: nothing.
                        [entry async for entry in stream]
                        raise RunsClosed

            tasks.start_soon(read)
            await wait_all_blocked()
        log("left")
    assert log == [(3, "left")]
