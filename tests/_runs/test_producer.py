"""A run in its process: how it starts, all or nothing, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from streamkit import (
    CancelToken,
    Outcome,
    StreamCancelled,
    with_cancellation,
)
from streamkit._runs.options import Options
from streamkit._runs.producer import Producer
from streamkit.asgi import Shutdown
from streamkit.runs import (
    MemoryLog,
    RunCancelled,
    RunExists,
    RunFailed,
    RunInfo,
    RunNotFound,
    Runs,
    RunsClosed,
    RunStats,
    Terms,
)
from support import Backend, Log, Probe, aiter_of, wait_all_blocked
from support.runs import end_of, items_of
from support.unsteady import Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Fatal(BaseException):
    """What ends a program, but not the event loop of asyncio, as a KeyboardInterrupt does."""


# A start is all or nothing


@pytest.mark.parametrize("passes", range(8))
async def test_start_is_cancelled(passes: int) -> None:
    """Wherever a start is cancelled, there is no run, its id is free, and its source is closed."""
    probe = Probe("a", block=True)
    async with Runs() as runs:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def start() -> None:
                    await runs.start(probe.source(), id="chat")

                tasks.start_soon(start)
                for _ in range(passes):
                    await anyio.lowlevel.checkpoint()
                if not runs._own.get("chat") or not probe.started:
                    tasks.cancel_scope.cancel()
        await wait_all_blocked()
        if probe.started:
            assert (await runs.get("chat")).state == "running"
        else:
            with pytest.raises(RunNotFound):
                await runs.get("chat")
            assert runs.stats() == RunStats(running=0, readers=0, held=0)
            await runs.start(aiter_of("b"), id="chat")
            assert await items_of(runs, "chat") == ["b"]
        del scope


async def test_given_up_before_it_begins() -> None:
    """C1: a start that is given up before the task of the run begins asks no log."""
    probe, log = Probe("a"), MemoryLog()
    options = Options(
        keep=1.0,
        grace=1.0,
        on_end_timeout=1.0,
        max_items=10,
        max_bytes=1000,
        when_full="trim",
        unwatched=None,
    )
    created: list[bool] = []
    async with log.open():
        producer = Producer("chat", "0e", probe.source(), Terms(), options, None, log)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await producer.created()
        await producer.run(lambda: created.append(True))
        with pytest.raises(RunNotFound):
            await log.get("chat")
    assert producer.gone.is_set()
    assert (created, probe.started) == ([], False)


async def test_start_is_cancelled_before() -> None:
    """C1: a start in a scope that is cancelled starts nothing, and asks no log."""
    probe = Probe("a")
    way = Way(MemoryLog())
    way.failing["create"] = AssertionError("must not be asked")
    async with Runs(way) as runs:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await runs.start(probe.source(), id="chat")
        await wait_all_blocked()
        assert runs.stats() == RunStats(running=0, readers=0, held=0)
    assert not probe.started


@pytest.mark.asyncio_only
@pytest.mark.parametrize("where", ["create", "append", "on_end"])
async def test_the_task_of_a_run_is_cancelled(where: str) -> None:
    """Z1: as at the end of the event loop: nobody waits, and what was taken is written."""
    way = Way(MemoryLog())
    outcomes: list[Outcome] = []

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        outcomes.append(outcome)
        if where == "on_end":
            await anyio.sleep_forever()

    async def start() -> None:
        if where == "create":
            with pytest.raises(RunsClosed):
                await runs.start(Probe("a").source(), id="chat")
        else:
            block = where == "append"
            await runs.start(Probe("a", block=block).source(), id="chat", on_end=on_end)

    async with Runs(way) as runs, anyio.create_task_group() as tasks:
        way.cut(where)
        tasks.start_soon(start)
        await wait_all_blocked()
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "run chat"]
        task.cancel()
        await wait_all_blocked()
        way.mend()
        await wait_all_blocked()
        assert runs.stats().running == 0
        if where == "append":
            items, end = await end_of(runs, "chat")
            assert items == ["a"]
            assert isinstance(end, RunCancelled)
            assert end.reason == Shutdown()
        if where == "on_end":
            assert await items_of(runs, "chat") == ["a"]


@pytest.mark.asyncio_only
async def test_the_end_of_the_block_is_cancelled_natively() -> None:
    """C7: however often Task.cancel() comes, the block ends when its runs have."""
    log = Log()

    async def source() -> AsyncGenerator[str, None]:
        try:
            await anyio.sleep_forever()
            yield "never"
        finally:
            await anyio.sleep(2)
            log("closed")

    async def main() -> None:
        async with Runs() as runs:
            await runs.start(source())
            await anyio.sleep_forever()

    task = asyncio.ensure_future(main())
    await anyio.sleep(1)
    log.start()
    for _ in range(3):
        task.cancel()
        await anyio.sleep(0.5)
    with pytest.raises(asyncio.CancelledError):
        await task
    log("left")
    assert log == [(2, "closed"), (2, "left")]


async def test_the_log_cannot_be_opened() -> None:
    """A log that cannot be opened leaves a Runs that can be entered later."""

    class Closed(MemoryLog):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[None, None]:
            if not opened:
                raise LookupError
            async with super().open():
                yield

    opened = False
    runs = Runs(Closed())
    with pytest.raises(LookupError):
        await runs.__aenter__()
    opened = True
    async with runs:
        assert await items_of(runs, (await runs.start(aiter_of("a"))).id) == ["a"]


async def test_lets_go_of_the_source() -> None:
    """E10: what a source held is free when its run has ended, while the log still has that."""

    class Thing:
        pass

    async def source(thing: Thing) -> AsyncGenerator[str, None]:
        held.add(thing)
        yield "a"
        raise LookupError

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        pass

    held: weakref.WeakSet[Thing] = weakref.WeakSet()
    async with Runs() as runs:
        # Without it, the error is logged, and the log of the test keeps it.
        info = await runs.start(source(Thing()), on_end=on_end)
        assert (await end_of(runs, info.id))[0] == ["a"]
        await wait_all_blocked()
        gc.collect()
        assert not held


async def test_a_refused_source_cannot_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    """What a source raises where it is closed unstarted is logged, and the refusal is raised."""

    class Source(Probe[str]):
        def __aiter__(self) -> Source:
            raise AssertionError("must not be iterated")

        async def aclose(self) -> None:
            raise LookupError

    async with Runs() as runs:
        await runs.start(Probe(block=True).source(), id="chat")
        refused: Any = Source()
        with pytest.raises(RunExists):
            await runs.start(refused, id="chat")
        await wait_all_blocked()
        assert runs.stats().running == 1
    assert "could not be closed" in caplog.text


async def test_what_it_is_called() -> None:
    """A run says in its task what it is."""
    async with Runs() as runs:
        await runs.start(Probe(block=True).source(), id="chat")
        (producer,) = runs._producers
        assert repr(producer).startswith("<run 'chat' of <StatusStream of ")


# How a run ends


async def test_fails(caplog: pytest.LogCaptureFixture) -> None:
    """E1: a reader is told of the items before, and of the class of the error alone."""
    async with Runs() as runs:
        with caplog.at_level(logging.ERROR, "streamkit"):
            info = await runs.start(Probe("a", error=LookupError("secret")).source())
            items, end = await end_of(runs, info.id)
        assert items == ["a"]
        assert isinstance(end, RunFailed)
        assert end.error == "LookupError"
        assert str(end) == "the run has failed with LookupError"
        assert "secret" not in repr(end)
    (record,) = caplog.records
    assert record.exc_info


async def test_never_waits() -> None:
    """A source that is always ready is written while it goes on: a piece at a time."""

    async def source() -> AsyncGenerator[int, None]:
        number = 0
        while True:
            number += 1
            yield number
            if number > 100_000:
                raise AssertionError("it waits for nobody")

    log = MemoryLog()
    log.max_held = 256
    way = Way(log)
    way.takes, way.slow = 0.01, {"append"}
    async with Runs(way) as runs:
        run = await runs.start(source(), max_items=1_000)
        async with runs.attach(run.id) as stream:
            async for entry in stream:
                if entry.position > 2_000:
                    break
        assert await runs.cancel_and_wait(run.id)


async def test_cannot_be_kept(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be encoded, or is too large, fails the run by its type; the source is closed."""
    async with Runs(max_bytes=100) as runs:
        for item, says in (
            (object(), "keep an item of object"),
            ("x" * 100, "an item of str has 102"),
        ):
            probe = Probe("a", item, "b", every=1)
            info = await runs.start(probe.source())
            items, end = await end_of(runs, info.id)
            assert items == ["a"]
            assert isinstance(end, RunFailed)
            assert probe.closed == 1
            assert says in caplog.text


async def test_a_reason_without_a_copy() -> None:
    """A token of the source's fires with an object that cannot be copied: that run ends so."""

    class Reason:
        def __deepcopy__(self, memo: object) -> Reason:
            raise TypeError("it has no copy")

    token = CancelToken()
    async with Runs() as runs:
        other = await runs.start(Probe(block=True).source())
        info = await runs.start(with_cancellation(Probe("a", block=True).source(), token))
        await wait_all_blocked()
        token.cancel(Reason())
        items, end = await end_of(runs, info.id)
        assert items == ["a"]
        assert isinstance(end, RunCancelled)
        assert str(end.reason).endswith("Reason")
        assert (await runs.get(other.id)).state == "running"


async def test_on_end() -> None:
    """S7: the source is closed, its items are there, on_end is awaited, the end is seen."""
    log = Log()

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            yield "b"
        finally:
            await anyio.sleep(1)
            log("closed")

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        assert (outcome.kind, outcome.items) == ("completed", 2)
        assert (info.id, info.last, info.outcome, info.data) == (run.id, 2, None, {"a": 1})
        assert info == await runs.get(run.id)
        await anyio.sleep(1)
        log("saved")

    async with Runs() as runs:
        log.start()
        run = await runs.start(source(), on_end=on_end, data={"a": 1})
        assert await items_of(runs, run.id) == ["a", "b"]
        log("seen")
    assert log == [(1, "closed"), (2, "saved"), (2, "seen")]


@pytest.mark.parametrize("how", ["raises", "hangs", "is not async"])
async def test_on_end_fails(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """What on_end raises is logged, and fails the run: nobody takes it for saved."""

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        if how == "raises":
            raise LookupError("secret")
        await anyio.sleep_forever()

    def not_async(outcome: Outcome, info: RunInfo) -> Any:
        return None

    async with Runs(on_end_timeout=3) as runs:
        ending = not_async if how == "is not async" else on_end
        info = await runs.start(aiter_of("a"), on_end=ending)
        items, end = await end_of(runs, info.id)
        assert items == ["a"]
        assert isinstance(end, RunFailed)
        errors = {"raises": "LookupError", "hangs": "TimeoutError", "is not async": "TypeError"}
        assert end.error == errors[how]
    assert "on_end" in caplog.text


@pytest.mark.asyncio_only
async def test_on_end_awaits_what_others_have_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """C7: an on_end that gets the cancellation of something else has failed, and so has its run."""

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with Runs() as runs:
        info = await runs.start(aiter_of("a"), on_end=on_end)
        items, end = await end_of(runs, info.id)
    assert items == ["a"]
    assert isinstance(end, RunFailed)
    assert end.error == "BrokenResourceError"
    assert "on_end awaited what others had cancelled" in caplog.text


async def test_the_grace_is_over() -> None:
    """C26: a source that goes on is cut, and the outcome says so."""

    async def source() -> AsyncGenerator[int, None]:
        number = 0
        while True:
            try:
                await anyio.sleep(1)
                number += 1
                yield number
            except StreamCancelled:
                pass

    async with Runs(grace=2.5) as runs:
        info = await runs.start(source())
        await anyio.sleep(1.5)
        await runs.cancel_and_wait(info.id, "stop")
        items, end = await end_of(runs, info.id)
        assert items == [1, 2, 3]
        assert end.info.outcome is not None
        assert end.info.outcome.grace_exceeded


async def test_the_source_cannot_be_entered(caplog: pytest.LogCaptureFixture) -> None:
    """A source whose signals cannot be opened fails the run."""

    class Broken:
        async def __aenter__(self) -> CancelToken:
            raise LookupError

        async def __aexit__(self, *args: object) -> None:
            raise AssertionError

    signal: Any = Broken()
    async with Runs() as runs:
        info = await runs.start(with_cancellation(aiter_of("a"), signal))
        _, end = await end_of(runs, info.id)
        assert isinstance(end, RunFailed)
        assert end.error in {"LookupError", "TypeError"}


async def test_ends_the_program() -> None:
    """E8: what is to end the program does, once, after every run was told and has ended."""
    probe = Probe(block=True)

    async def source() -> AsyncGenerator[str, None]:
        yield "a"
        await anyio.sleep(1)
        raise Fatal

    way = Way(MemoryLog())
    # Whatever is awaited on the way to the end is.
    way.takes = 0.1
    runs = Runs(way)
    with pytest.raises(Fatal):
        async with runs:
            await runs.start(probe.source(), id="other")
            await runs.start(source(), id="chat")
            await anyio.sleep_forever()
    assert probe.closed == 1
    async with runs:
        _, end = await end_of(runs, "chat")
        assert isinstance(end, RunFailed)
        assert end.error == "Fatal"
        _, end = await end_of(runs, "other")
        assert isinstance(end, RunCancelled)
        assert end.reason == Shutdown()


@pytest.mark.parametrize("where", ["source", "on_end"])
async def test_a_group_is_no_end_of_the_program(where: str) -> None:
    """E8: a StreamCancelled of another stream fails the run, also in a group, and no other run."""
    error = BaseExceptionGroup("two", [StreamCancelled("another"), LookupError()])

    async def source() -> AsyncGenerator[str, None]:
        yield "a"
        if where == "source":
            raise error

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        if where == "on_end":
            raise error

    async with Runs() as runs:
        other = await runs.start(Probe("a", "b", every=1).source())
        info = await runs.start(source(), on_end=on_end)
        items, end = await end_of(runs, info.id)
        assert items == ["a"]
        assert isinstance(end, RunFailed)
        assert end.error == "BaseExceptionGroup"
        assert await items_of(runs, other.id) == ["a", "b"]


async def test_on_end_ends_the_program() -> None:
    """So does what on_end raises, when the end was written."""

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        raise Fatal

    runs = Runs()
    with pytest.raises(Fatal):
        async with runs:
            await runs.start(aiter_of("a"), id="chat", on_end=on_end)
            await anyio.sleep_forever()
    async with runs:
        assert isinstance((await end_of(runs, "chat"))[1], RunFailed)


def test_the_loop_is_stopped(backend: Backend) -> None:
    """Z1, Z2: a run that the end of the event loop cancels has its grace, and an end."""
    runs = Runs()
    log: list[object] = []

    async def source() -> AsyncGenerator[str, None]:
        yield "a"
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)
            log.append("closed")

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        log.append(outcome.reason)

    async def interrupt() -> AsyncGenerator[str, None]:
        await anyio.sleep(1)
        raise KeyboardInterrupt
        yield "never"

    async def main() -> None:
        async with runs:
            await runs.start(source(), id="chat", on_end=on_end)
            await runs.start(interrupt())
            await anyio.sleep_forever()

    async def look() -> None:
        async with runs:
            items, end = await end_of(runs, "chat")
            assert items == ["a"]
            assert isinstance(end, RunCancelled)
            assert end.reason == Shutdown()

    with pytest.raises(KeyboardInterrupt):
        backend.run(main)
    backend.run(look)
    assert log == ["closed", Shutdown()]
