"""``streamkit.runs``: a stream that goes on while its readers come and go."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import weakref
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from streamkit import (
    CancelToken,
    Head,
    Left,
    Outcome,
    StreamCancelled,
    StreamTimeout,
    TimedOut,
    current_cancellation,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from streamkit.asgi import Shutdown
from streamkit.runs import (
    CursorMismatch,
    Entry,
    Gap,
    LogFull,
    MemoryLog,
    RunCancelled,
    RunEnded,
    RunExists,
    RunFailed,
    RunInfo,
    RunNotFound,
    RunRunning,
    Runs,
    RunsClosed,
    RunStats,
    RunTimedOut,
    Unwatched,
)
from support import Backend, Log, Probe, aiter_of, wait_all_blocked
from support.unsteady import Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


class Mine:
    """A reason of a user's."""


class Fatal(BaseException):
    """What ends a program, but not the event loop of asyncio, as a KeyboardInterrupt does."""


async def items_of(runs: Runs, run_id: str, **options: Any) -> list[Any]:
    """Read a run to its end, which must be a good one."""
    async with runs.attach(run_id, **options) as stream:
        return [entry.item async for entry in stream]


async def end_of(runs: Runs, run_id: str, **options: Any) -> tuple[list[Any], RunEnded]:
    """Read a run to its end, which must be another."""
    items = []
    async with runs.attach(run_id, **options) as stream:
        with pytest.raises(RunEnded) as caught:
            async for entry in stream:
                items.append(entry.item)
    return items, caught.value


# A run goes on


async def test_goes_on() -> None:
    """A run is read while it goes on and when it has ended, from wherever a reader says."""
    async with Runs() as runs:
        info = await runs.start(Probe("a", "b", "c", every=1).source())
        assert (info.state, info.first, info.last) == ("running", 1, 0)
        assert (info.outcome, info.ended_at, info.end_cursor) == (None, None, None)
        assert len(info.id) == 32
        async with runs.attach(info.id) as stream:
            seen = [await anext(stream), await anext(stream)]
        assert [(entry.position, entry.item) for entry in seen] == [(1, "a"), (2, "b")]
        assert await items_of(runs, info.id, after=seen[0].cursor) == ["b", "c"]
        assert await items_of(runs, info.id, after=2) == ["c"]
        assert await items_of(runs, info.id) == ["a", "b", "c"]
        ended = await runs.get(info.id)
        assert (ended.state, ended.first, ended.last) == ("ended", 1, 3)
        assert ended.outcome is not None
        assert ended.outcome.kind == "completed"
        assert ended.ended_at == ended.outcome.ended_at >= ended.started_at
        assert await items_of(runs, info.id, after=ended.end_cursor) == []


async def test_nobody_reads() -> None:
    """A run needs no reader, and one that leaves does not stop it."""
    probe = Probe(*range(5), every=1)
    async with Runs() as runs:
        info = await runs.start(probe.source())
        for _ in range(3):
            async with runs.attach(info.id, after="now") as stream:
                await anext(stream)
        await anyio.sleep(10)
        assert probe.produced == [0, 1, 2, 3, 4]
        assert not probe.seen
        assert (await runs.get(info.id)).last == 5


async def test_attached_is_a_stream() -> None:
    """K1, C21: what is attached to takes combinators like any other stream."""
    token = CancelToken()
    async with Runs() as runs:
        info = await runs.start(Probe("a", every=1, block=True).source())
        entries = with_status(
            with_keepalive(with_cancellation(runs.attach(info.id), token), 4, "beat")
        )
        seen: list[object] = []
        async with entries:
            with pytest.raises(StreamCancelled) as caught:
                async for item in entries:
                    seen.append(item.item if isinstance(item, Entry) else item)
                    if item == "beat":
                        token.cancel("enough")
        assert caught.value.reason == "enough"
        assert seen == ["a", "beat"]
        assert (await runs.get(info.id)).state == "running"


async def test_source_is_a_stream() -> None:
    """A source may be a stream with combinators, and its outcome is that of the run."""
    async with Runs() as runs:
        timed = with_timeout(Probe("a", block=True).source(), idle=3)
        info = await runs.start(timed)
        items, end = await end_of(runs, info.id)
        assert items == ["a"]
        assert isinstance(end, RunTimedOut)
        assert end.reason == TimedOut("idle", 3)
        assert "3 seconds" in str(end)


async def test_context() -> None:
    """V1: the source and on_end see the caller's context, but not the stream that it was in."""
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[object] = []
    token = CancelToken()

    async def source() -> AsyncGenerator[str, None]:
        seen.append(variable.get())
        await anyio.sleep(5)
        seen.append(current_cancellation())
        yield "item"

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        seen.append(variable.get())

    async def outer() -> AsyncGenerator[str, None]:
        variable.set("caller's")
        info = await runs.start(source(), on_end=on_end)
        yield info.id
        await anyio.sleep_forever()

    async with Runs() as runs:
        with pytest.raises(StreamCancelled):
            async with with_cancellation(outer(), token) as stream:
                run_id = await anext(stream)
                await wait_all_blocked()
                token.cancel("outer")
                await anext(stream)
        assert await items_of(runs, run_id) == ["item"]
    assert seen == ["caller's", None, "caller's"]


async def test_head() -> None:
    """S1: a status that the source begins with is kept, before there is any item."""

    async def source() -> AsyncGenerator[Any, None]:
        yield Head(409)
        await anyio.sleep(1)
        yield "item"

    async with Runs() as runs:
        info = await runs.start(source())
        await wait_all_blocked()
        assert (await runs._log.get(info.id)).head == 409
        assert await items_of(runs, info.id) == ["item"]
        other = await runs.start(with_status(source()))
        assert await items_of(runs, other.id) == ["item"]
        assert (await runs._log.get(other.id)).head == 409


async def test_data() -> None:
    """What was said of a run is found again, and no reader can change it for another."""
    async with Runs() as runs:
        info = await runs.start(aiter_of({"a": []}), data={"user": [1]}, owner="me", id="chat")
        assert (info.id, info.owner, info.data) == ("chat", "me", {"user": [1]})
        for _ in range(2):
            ((item,),) = [await items_of(runs, "chat")]
            assert item == {"a": []}
            item["a"].append("changed")
        data: Any = (await runs.get("chat")).data
        data["user"].append(2)
        assert (await runs.get("chat")).data == {"user": [1]}


# Who may


async def test_owner() -> None:
    """Whoever says another owner finds nothing."""
    async with Runs() as runs:
        info = await runs.start(Probe(block=True).source(), owner="me")
        with pytest.raises(RunNotFound):
            await runs.get(info.id, owner="you")
        with pytest.raises(RunNotFound):
            await runs.cancel(info.id, owner="you")
        with pytest.raises(RunNotFound):
            await runs.cancel_and_wait(info.id, owner="you")
        with pytest.raises(RunNotFound):
            await items_of(runs, info.id, owner="you")
        assert not (await runs.get(info.id, owner="me")).cancel_requested
        assert await runs.cancel_and_wait(info.id, owner="me")
        with pytest.raises(RunNotFound, match=r"or none of this owner"):
            await runs.delete(info.id, owner="you")
        await runs.delete(info.id, owner="me")
        anybody = await runs.start(aiter_of("a"))
        with pytest.raises(RunNotFound):
            await runs.get(anybody.id, owner="me")


async def test_id_is_taken() -> None:
    """An id is taken while its run goes on, and while it is kept; the refused source is closed."""
    refused = Probe("b")
    async with Runs() as runs:
        await runs.start(Probe("a", every=1).source(), id="chat")
        for _ in range(2):
            with pytest.raises(RunExists, match="there is a run 'chat'") as caught:
                await runs.start(refused.source(), id="chat")
            assert caught.value.run_id == "chat"
            await anyio.sleep(2)
        await runs.delete("chat")
        await runs.start(aiter_of("b"), id="chat")
        assert await items_of(runs, "chat") == ["b"]
    assert not refused.started


async def test_delete() -> None:
    """A run that goes on cannot be deleted; a reader of one that is finds nothing more."""
    async with Runs() as runs:
        info = await runs.start(Probe(*"ab", every=1).source())
        with pytest.raises(RunRunning, match="cancel_and_wait"):
            await runs.delete(info.id)
        await anyio.sleep(3)
        await runs.delete(info.id)
        for _ in range(2):
            with pytest.raises(RunNotFound, match="there is no run"):
                await runs.get(info.id)
            with pytest.raises(RunNotFound):
                await items_of(runs, info.id)


# A run is cancelled


async def test_cancel() -> None:
    """C6, C24: the source is told where it is blocked, has its grace, and says last items."""
    log = Log()

    async def source() -> AsyncGenerator[str, None]:
        yield "first"
        try:
            await anyio.sleep_forever()
        except StreamCancelled as stop:
            await anyio.sleep(2)
            yield f"[{stop.reason}]"
            raise
        finally:
            log("closed")

    async with Runs() as runs:
        info = await runs.start(source())
        await wait_all_blocked()
        log.start()
        assert await runs.cancel(info.id, "stop") is True
        assert await runs.cancel(info.id, "again") is True
        assert (await runs.get(info.id)).cancel_requested
        items, end = await end_of(runs, info.id)
        assert items == ["first", "[stop]"]
        assert isinstance(end, RunCancelled)
        assert end.reason == "stop"
        assert str(end) == "the run was cancelled: stop"
        assert end.info == await runs.get(info.id)
        assert await runs.cancel(info.id, "late") is False
    assert log == [(2, "closed")]


async def test_cancel_without_a_reason() -> None:
    """A reason need not be given, and one of a user's own is told by its name, to all alike."""

    async with Runs() as runs:
        for reason, told in (None, None), (Mine(), "Mine"):
            probe = Probe("a", block=True)
            info = await runs.start(probe.source())
            await wait_all_blocked()
            assert await runs.cancel_and_wait(info.id, reason)
            _, end = await end_of(runs, info.id)
            assert isinstance(end, RunCancelled)
            assert end.reason == told
            ((_, exc),) = probe.seen
            assert isinstance(exc, StreamCancelled)
            assert exc.reason == told


async def test_cancel_and_wait() -> None:
    """Who waits for the end waits until the source is closed and on_end is done."""
    log = Log()

    async def source() -> AsyncGenerator[str, None]:
        yield "a"
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(2)

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        await anyio.sleep(2)
        log("saved")

    async with Runs() as runs:
        info = await runs.start(source(), on_end=on_end)
        await wait_all_blocked()
        log.start()
        assert await runs.cancel_and_wait(info.id, "stop", timeout=3) is False
        log("waited")
        assert await runs.cancel_and_wait(info.id) is True
        log("ended")
        assert await runs.cancel_and_wait(info.id) is True
        assert await runs.cancel_and_wait("nobody") is False
    assert log == [(3, "waited"), (4, "saved"), (4, "ended")]


async def test_wait_for_a_run_that_is_removed() -> None:
    """Who waits for an end is not left waiting when the run is removed, or its id used again."""

    async def slow() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)

    async def remove(again: bool) -> None:
        # Before those who wait have looked.
        async with runs._log.watch("chat") as watch:
            while (await runs.get("chat")).outcome is None:
                await watch.wait()
        await runs.delete("chat")
        if again:
            await runs.start(Probe(block=True).source(), id="chat")

    async with Runs() as runs:
        for again in False, True:
            info = await runs.start(slow(), id="chat")
            await wait_all_blocked()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(remove, again)
                await wait_all_blocked()
                for _ in range(3):
                    tasks.start_soon(runs.cancel_and_wait, "chat")
            assert await runs.cancel("chat", epoch=info.epoch) is False


async def test_cannot_wait_for_itself() -> None:
    """A run, at any depth, and its on_end, are refused to wait for their own end."""
    seen: list[str] = []

    async def wait() -> None:
        with pytest.raises(RuntimeError, match="cannot wait for its own end") as caught:
            await runs.cancel_and_wait("chat")
        seen.append(str(caught.value))

    async def source() -> AsyncGenerator[str, None]:
        await wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
        yield "a"

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        await wait()

    async def other() -> AsyncGenerator[bool, None]:
        await runs.start(Probe(block=True).source(), id="inner")
        yield await runs.cancel_and_wait("inner")

    async with Runs() as runs:
        await runs.start(source(), id="chat", on_end=on_end)
        assert await items_of(runs, "chat") == ["a"]
        await runs.start(other(), id="other")
        assert await items_of(runs, "other") == [True]
    assert len(seen) == 3


async def test_cancel_before_the_start() -> None:
    """C13: a run that was cancelled before is there, and has ended; its source never started."""
    probe = Probe("a")
    ended: list[Outcome] = []

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        ended.append(outcome)

    async with Runs() as runs:
        assert await runs.cancel("chat", "early") is True
        assert await runs.cancel_and_wait("chat", "late", owner="you") is False
        info = await runs.start(probe.source(), id="chat", on_end=on_end)
        assert info.outcome is not None
        assert (info.outcome.kind, info.outcome.reason) == ("cancelled", "early")
        assert (await end_of(runs, "chat"))[0] == []
        await runs.delete("chat")
        assert (await runs.start(aiter_of("a"), id="chat")).outcome is None
        await runs.cancel("later", "early")
        await anyio.sleep(31)
        assert (await runs.start(aiter_of("a"), id="later")).outcome is None
    assert not probe.started
    assert [outcome.kind for outcome in ended] == ["cancelled"]


async def test_cancel_before_a_start_that_is_cancelled() -> None:
    """A start that finds its run cancelled waits for on_end: it is not cut off with half a run."""

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        await anyio.sleep(2)

    info: RunInfo | None = None
    async with Runs() as runs:
        await runs.cancel("chat", "early")
        with anyio.move_on_after(1):
            info = await runs.start(aiter_of("a"), id="chat", on_end=on_end)
        assert info == await runs.get("chat")
        assert info.state == "ended"


async def test_cancel_one_incarnation() -> None:
    """A cancellation that names an epoch is for that run alone."""
    async with Runs() as runs:
        info = await runs.start(Probe(block=True).source(), id="chat")
        assert await runs.cancel("chat", epoch="0e") is False
        assert await runs.cancel_and_wait("chat", epoch="0e") is True
        assert not (await runs.get("chat")).cancel_requested
        assert await runs.cancel_and_wait("chat", epoch=info.epoch) is True


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


# What is kept


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
        assert len(slow) < 200


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


# Where a reader begins


async def test_begins_anywhere() -> None:
    """At each position, by number and by cursor, while the run goes on and when it has ended."""
    async with Runs() as runs:
        info = await runs.start(Probe(*range(1, 6), every=1).source())
        for moment in 3.5, 10:
            await anyio.sleep(moment)
            known = (await runs.get(info.id)).last
            for after in range(known + 1):
                for cursor in after, str(after), f"{info.epoch}:{after}":
                    async with runs.attach(info.id, after=cursor) as stream:
                        entry = await anext(stream, None)
                        assert entry is None or entry.position == after + 1
                        assert (entry is None) == (after == 5)
            if moment == 10:
                assert await items_of(runs, info.id, after="now") == []


async def test_no_cursor_of_this_run() -> None:
    """A cursor of another run, or beyond the tail, or of an end that was not, is told."""
    async with Runs() as runs:
        info = await runs.start(Probe("a", every=1).source(), id="chat")
        for wait in 0, 5:
            await anyio.sleep(wait)
            for cursor in "0e:1", f"{info.epoch}:2", 7, f"{info.epoch}:0.end", "0e:1.end":
                with pytest.raises(CursorMismatch, match="the cursor does not fit"):
                    await items_of(runs, "chat", after=cursor)
        await items_of(runs, "chat", after=f"{info.epoch}:1.end")
        await runs.delete("chat")
        await runs.start(aiter_of("b", "c"), id="chat")
        with pytest.raises(CursorMismatch, match="it is of another run"):
            await items_of(runs, "chat", after=f"{info.epoch}:1")


async def test_never_two_incarnations() -> None:
    """A reader of a run whose id is used again never sees anything of the other one."""
    async with Runs() as runs:
        for steps in "expire", "delete":
            info = await runs.start(Probe(*range(500)).source(), id="chat", keep=1)
            await wait_all_blocked()
            seen: list[Entry[Any]] = []
            with pytest.raises((CursorMismatch, RunNotFound)):
                async with runs.attach("chat") as stream:
                    async for entry in stream:
                        seen.append(entry)
                        if len(seen) == 1:
                            if steps == "expire":
                                await anyio.sleep(100)
                            else:
                                await runs.delete("chat")
                            await runs.start(Probe(*range(1_000)).source(), id="chat")
                            await wait_all_blocked()
            assert {entry.epoch for entry in seen} == {info.epoch}
            assert len(seen) < 500
            await runs.delete("chat")


# Nobody waits for anybody


async def test_a_hot_source() -> None:
    """A source that never suspends, without a reader, freezes nothing."""
    ticks = 0

    async def source() -> AsyncGenerator[int, None]:
        while not done:
            yield 1

    async with Runs(max_items=100) as runs:
        done = False
        info = await runs.start(source())
        while (await runs.get(info.id)).last < 10_000:
            await anyio.lowlevel.checkpoint()
            ticks += 1
        done = True
        assert ticks >= 50
        assert await runs.cancel_and_wait(info.id) in {True, False}


async def test_a_slow_reader_slows_nobody() -> None:
    """B1: neither the run nor another reader waits for one that does not read, or reads slowly."""
    log = Log()
    async with Runs() as runs:
        log.start()
        info = await runs.start(Probe(*range(1_000), every=0.001).source())
        async with runs.attach(info.id) as stuck, runs.attach(info.id) as slow:
            assert (await anext(stuck)).item == 0
            assert (await anext(slow)).item == 0
            assert await items_of(runs, info.id) == list(range(1_000))
            log("read")
            last = 0
            async for entry in slow:
                last = entry.item
                await anyio.sleep(0.1)
            assert last == 999
            assert [entry.item async for entry in stuck] == list(range(1, 1_000))
    assert log == [(1, "read")]


async def test_read_ahead_is_bounded() -> None:
    """A reader that never reads holds 64 entries, however many there are."""
    async with Runs() as runs:
        info = await runs.start(aiter_of(*range(1_000)))
        async with runs.attach(info.id) as stream:
            assert (await anext(stream)).item == 0
            await wait_all_blocked()
            handoff: Any = stream._open_handoff
            assert len(handoff._packets) == 64


# Nobody reads


async def test_unwatched() -> None:
    """A run that nobody reads any more is told, from when the last reader has gone."""
    log = Log()
    probe = Probe(*range(1_000), every=0.5)
    async with Runs(unwatched=10) as runs:
        info = await runs.start(probe.source())
        async with runs.attach(info.id) as first:
            await anext(first)
            async with runs.attach(info.id) as second:
                await anext(second)
            # Between two times at which it would say that it is there.
            await anyio.sleep(30.2)
            assert (await runs.get(info.id)).state == "running"
        log.start()
        _, end = await end_of_unwatched(runs, info.id)
        log("ended")
        assert isinstance(end, RunCancelled)
        assert end.reason == Unwatched()
    assert log == [(10, "ended")]


async def end_of_unwatched(runs: Runs, run_id: str) -> tuple[list[Any], RunEnded]:
    """Wait for the end without reading, which would keep it."""
    async with runs._log.watch(run_id) as watch:
        while (await runs.get(run_id)).outcome is None:
            await watch.wait()
    return await end_of(runs, run_id)


async def test_unwatched_from_the_start() -> None:
    """The clock begins with the start, and runs that are to go on do."""
    async with Runs() as runs:
        forever = await runs.start(Probe(block=True).source())
        alone = await runs.start(Probe(block=True).source(), unwatched=5)
        await anyio.sleep(4.9)
        assert (await runs.get(alone.id)).state == "running"
        await anyio.sleep(0.2)
        assert (await runs.get(alone.id)).state == "ended"
        await anyio.sleep(1_000)
        assert (await runs.get(forever.id)).state == "running"
    async with Runs(unwatched=5) as runs:
        forever = await runs.start(Probe(block=True).source(), unwatched=math.inf)
        await anyio.sleep(1_000)
        assert (await runs.get(forever.id)).state == "running"


async def test_read_elsewhere() -> None:
    """A reader in another process keeps a run, too."""
    log = MemoryLog()
    async with Runs(log, unwatched=5) as here, Runs(log) as elsewhere:
        info = await here.start(Probe(block=True).source())
        async with elsewhere.attach(info.id) as stream:
            with anyio.move_on_after(60):
                await anext(stream)
            assert (await here.get(info.id)).state == "running"
        await anyio.sleep(6)
        assert (await here.get(info.id)).state == "ended"


# The program ends


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
            info = await runs.start(aiter_of(*range(100)))

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


# Misuse


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep": -1}, ValueError),
        ({"keep": "1"}, TypeError),
        ({"grace": math.inf}, ValueError),
        ({"on_end_timeout": math.nan}, ValueError),
        ({"max_items": 0}, ValueError),
        ({"max_items": True}, TypeError),
        ({"max_bytes": 1.5}, TypeError),
        ({"when_full": "stop"}, ValueError),
        ({"unwatched": 0.5}, ValueError),
        ({"unwatched": 0}, ValueError),
    ],
)
async def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    """An option is checked where it is given, for all runs and for one."""
    name = next(iter(options))
    with pytest.raises(error, match=name):
        Runs(**options)
    async with Runs() as runs:
        with pytest.raises(error, match=name):
            await runs.start(aiter_of("a"), **options)


@pytest.mark.parametrize(
    ("options", "error"), [({"finish": -1}, ValueError), ({"max_runs": 0}, ValueError)]
)
def test_wrong_options_for_all(options: dict[str, Any], error: type[Exception]) -> None:
    """So are those that only all of them can have."""
    with pytest.raises(error, match=next(iter(options))):
        Runs(**options)


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"id": 17}, TypeError, r"id must be a str, got int: write id=str\(\.\.\.\)"),
        ({"id": ""}, ValueError, "id must have from 1 to 1024 bytes"),
        ({"id": "\u00fc" * 513}, ValueError, "id must have from 1 to 1024 bytes"),
        ({"owner": 17}, TypeError, r"owner must be a str, got int: write owner=str\(\.\.\.\)"),
        ({"data": object()}, TypeError, "object"),
        ({"data": math.nan}, ValueError, "float"),
        ({"on_end": 17}, TypeError, "on_end must be callable"),
    ],
)
async def test_wrong_start(options: dict[str, Any], error: type[Exception], advice: str) -> None:
    """What a start cannot take is refused by its name, with what to write."""
    async with Runs() as runs:
        with pytest.raises(error, match=advice):
            await runs.start(aiter_of("a"), **options)
        with pytest.raises(TypeError, match="expected an async iterable"):
            await runs.start([1])  # type: ignore[arg-type]
        assert runs.stats().running == 0


async def test_wrong_calls() -> None:
    """So it is with the other calls."""
    async with Runs() as runs:
        wrong: Any = 17
        with pytest.raises(TypeError, match="run_id must be a str"):
            runs.attach(wrong)
        with pytest.raises(ValueError, match=r"after=entry\.cursor"):
            runs.attach("chat", after="yesterday")
        for call in runs.get, runs.delete, runs.cancel, runs.cancel_and_wait:
            refused: Any = call
            with pytest.raises(TypeError, match="run_id must be a str"):
                await refused(wrong)
        with pytest.raises(ValueError, match="a reason has at most 4096 bytes"):
            await runs.cancel("chat", "x" * 4097)
        with pytest.raises(ValueError, match="timeout"):
            await runs.cancel_and_wait("chat", timeout=-1)


async def test_not_entered() -> None:
    """What is not entered says what to write."""
    runs = Runs()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: runs.start(aiter_of("a")),
        lambda: runs.get("chat"),
        lambda: runs.delete("chat"),
        lambda: runs.cancel("chat"),
        lambda: runs.cancel_and_wait("chat"),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="write 'async with runs:'"):
            await call()
    with pytest.raises(RuntimeError, match="write 'async with runs:'"):
        runs.attach("chat")
    assert runs.stats() == RunStats(running=0, readers=0, held=0)


async def test_an_unread_stream_may_be_dropped() -> None:
    """G4: a stream that nobody enters holds nothing."""
    async with Runs() as runs:
        info = await runs.start(aiter_of("a"))
        runs.attach(info.id)
        assert runs.stats().readers == 0


async def test_leaves_nothing() -> None:
    """10^3 runs that have ended, and nothing is left of them here but what the log keeps."""
    log = MemoryLog()
    async with Runs(log, keep=1) as runs:
        for number in range(1_000):
            info = await runs.start(aiter_of(number))
            if number % 100 == 0:
                assert await items_of(runs, info.id) == [number]
        await wait_all_blocked()
        assert not runs._producers
        assert not runs._own
        await anyio.sleep(100)
        assert len(log) == 0


def test_ends_are_sentences() -> None:
    """A reader's error reads as one, whatever is known."""
    info: Any = RunInfo(
        id="chat",
        owner=None,
        data=None,
        epoch="0e",
        first=1,
        last=0,
        outcome=None,
        cancel_requested=False,
        started_at=0.0,
    )
    assert str(RunEnded(info)) == "the run has ended"
    assert str(RunCancelled(info)) == "the run was cancelled"
    assert str(RunFailed(info)) == "the run has failed with None"
    assert StreamTimeout
    assert Left
