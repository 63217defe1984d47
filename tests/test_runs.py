"""``streamkit.runs``: a stream that goes on while its readers come and go."""

from __future__ import annotations

import math
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
from streamkit.runs import (
    Entry,
    MemoryLog,
    RunCancelled,
    RunEnded,
    RunExists,
    RunFailed,
    RunInfo,
    RunNotFound,
    RunRunning,
    Runs,
    RunStats,
    RunTimedOut,
)
from support import Log, Probe, aiter_of, wait_all_blocked
from support.runs import end_of, items_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


class Mine:
    """A reason of a user's."""


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
