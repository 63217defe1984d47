"""What becomes of a run when its process, or its log, is cut off: two processes, one log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit import StreamCancelled
from streamkit.runs import (
    CursorMismatch,
    Fenced,
    LogLost,
    LogUnavailable,
    MemoryLog,
    RunCancelled,
    RunEnded,
    RunLost,
    RunNotFound,
    Runs,
    Unwatched,
)
from support import Log, Probe, aiter_of, wait_all_blocked
from support.unsteady import Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from streamkit import Outcome
    from streamkit.runs import RunInfo


async def read(runs: Runs, run_id: str) -> tuple[list[Any], RunEnded]:
    items = []
    async with runs.attach(run_id) as stream:
        with pytest.raises(RunEnded) as caught:
            async for entry in stream:
                items.append(entry.item)
    return items, caught.value


def told(probe: Probe[Any]) -> list[object]:
    return [exc.reason for _, exc in probe.seen if isinstance(exc, StreamCancelled)]


async def test_silent_but_alive() -> None:
    """A run that says nothing for longer than the lease is not lost."""
    log = MemoryLog(lease=15)
    async with Runs(log) as here, Runs(log) as elsewhere:
        info = await here.start(Probe("a", every=1_000).source())
        async with elsewhere.attach(info.id) as stream:
            assert [entry.item async for entry in stream] == ["a"]


async def test_the_process_dies() -> None:
    """Who reads is told within the lease, five seconds and a look; one process is, once."""
    log = MemoryLog(lease=15)
    way = Way(log)
    when = Log()
    lost: list[RunInfo] = []
    outcomes: list[Outcome] = []
    probe = Probe("a", block=True)

    async def on_lost(info: RunInfo) -> None:
        lost.append(info)

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        outcomes.append(outcome)

    async def watch(runs: Runs) -> None:
        items, end = await read(runs, info.id)
        assert items == ["a"]
        assert isinstance(end, RunLost)
        when("lost")

    async with (
        Runs(way) as dying,
        Runs(log, on_lost=on_lost) as one,
        Runs(log, on_lost=on_lost) as two,
    ):
        info = await dying.start(probe.source(), on_end=on_end)
        await wait_all_blocked()
        when.start()
        way.cut()
        async with anyio.create_task_group() as tasks:
            for runs in one, two, one, two:
                tasks.start_soon(watch, runs)
            await anyio.sleep(1)
            assert await one.cancel_and_wait(info.id, timeout=60)
        assert [event for _, event in when] == ["lost"] * 4
        assert max(at for at, _ in when) <= 15 + 5 + 2 * log.reconcile
        (found,) = lost
        assert found.outcome is not None
        assert (found.id, found.last, found.outcome.kind) == (info.id, 1, "lost")
        # It comes back: it is told, saves, and writes nothing more.
        before = await one.get(info.id)
        way.mend()
        await anyio.sleep(20)
        assert told(probe)[0] in {Fenced(), None}
        assert [(outcome.kind, outcome.reason) for outcome in outcomes] == [("cancelled", Fenced())]
        assert await one.get(info.id) == before
        assert "lost" in str((await read(two, info.id))[1])


async def test_get_finds_it() -> None:
    """A run that nobody reads is buried when it is asked for."""
    log = MemoryLog(lease=15)
    way = Way(log)
    async with Runs(way) as dying, Runs(log) as runs:
        info = await dying.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        await anyio.sleep(100)
        assert (await runs.get(info.id)).state == "running"
        await anyio.sleep(6)
        assert (await runs.get(info.id)).state == "ended"
        way.mend()


async def test_never_its_own() -> None:
    """A process that hears of its own run being silent does not bury it."""
    log = MemoryLog(lease=15)
    way = Way(log)
    async with Runs(way) as runs:
        info = await runs.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut("renew", "append")
        await anyio.sleep(100)
        assert (await runs.get(info.id)).state == "running"
        await anyio.sleep(100)
        assert (await runs.get(info.id)).state == "running"
        way.mend()
        await anyio.sleep(1)
        assert (await runs.get(info.id)).state == "running"


async def test_a_sign_of_life_in_between() -> None:
    """One that was doubted, and is back before the second look, is not buried."""
    log = MemoryLog(lease=15)
    way = Way(log)
    async with Runs(way) as slow, Runs(log) as runs:
        info = await slow.start(Probe("a", every=60).source())
        await wait_all_blocked()
        way.cut("renew")
        await anyio.sleep(20)
        await runs.get(info.id)
        await anyio.sleep(2)
        way.mend()
        async with runs.attach(info.id) as stream:
            assert [entry.item async for entry in stream] == ["a"]


async def test_kept_for_no_time() -> None:
    """A run that is kept for no time after its end is told of when it is lost, as any other is."""
    log = MemoryLog(lease=15)
    way = Way(log)
    lost: list[RunInfo] = []

    async def on_lost(info: RunInfo) -> None:
        lost.append(info)

    async with Runs(way) as dying, Runs(log, on_lost=on_lost) as runs:
        info = await dying.start(Probe("a", block=True).source(), keep=0)
        await wait_all_blocked()
        way.cut()
        await anyio.sleep(100)
        await runs.get(info.id)
        await anyio.sleep(6)
        with pytest.raises(RunNotFound):
            await runs.get(info.id)
        way.mend()
    (found,) = lost
    assert found.outcome is not None
    assert (found.id, found.last, found.outcome.kind) == (info.id, 1, "lost")


async def test_removed_while_it_is_doubted(caplog: pytest.LogCaptureFixture) -> None:
    """A run that seemed lost, and was removed before the second look, is not told of."""
    log = MemoryLog(lease=15)
    way = Way(log)

    async def on_lost(info: RunInfo) -> None:
        raise AssertionError("it was not lost")

    async with Runs(way) as slow, Runs(log, on_lost=on_lost) as runs:
        info = await slow.start(Probe("a", every=116).source(), keep=0)
        await wait_all_blocked()
        way.cut()
        await anyio.sleep(115)
        await runs.get(info.id)
        way.mend()
        await anyio.sleep(6)
        with pytest.raises(RunNotFound):
            await runs.get(info.id)
    assert "lost" not in caplog.text


async def test_on_lost_takes_its_time() -> None:
    """While on_lost is awaited, readers still say that they are there, and other ends are told."""
    log = MemoryLog(lease=15)
    way = Way(log)
    when = Log()

    async def on_lost(info: RunInfo) -> None:
        when("begins")
        await anyio.sleep(4)

    async def watch(runs: Runs, run_id: str) -> None:
        assert isinstance((await read(runs, run_id))[1], RunLost)
        when("ends")

    async with Runs(way) as dying, Runs(log) as here, Runs(log, on_lost=on_lost) as runs:
        lost = [await dying.start(Probe("a", block=True).source()) for _ in range(3)]
        watched = await here.start(Probe(*"ab", every=60).source(), unwatched=2)
        await wait_all_blocked()
        when.start()
        way.cut()
        async with runs.attach(watched.id) as stream, anyio.create_task_group() as tasks:
            for info in lost:
                tasks.start_soon(watch, runs, info.id)
            assert [entry.item async for entry in stream] == ["a", "b"]
        way.mend()
    assert [event for _, event in when].count("begins") == 3
    assert max(at for at, event in when if event == "ends") <= 15 + 5 + 2 * log.reconcile


async def test_burial_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A log that fails while it is asked to bury is logged, and asked when the run is asked for."""
    log = MemoryLog(lease=15)
    way, other = Way(log), Way(log)
    async with Runs(way) as dying, Runs(other) as runs:
        info = await dying.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        other.failing["bury"] = LookupError("broken")
        await anyio.sleep(100)
        await runs.get(info.id)
        await wait_all_blocked()
        assert "could not be buried" in caplog.text
        other.mend()
        assert isinstance((await read(runs, info.id))[1], RunLost)
        way.mend()


async def test_burial_while_the_store_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """A run that cannot be buried, because the store is away, is buried when that is back."""
    log = MemoryLog(lease=15)
    way, other = Way(log), Way(log)
    async with Runs(way) as dying, Runs(other) as runs:
        info = await dying.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        await anyio.sleep(100)
        other.lose("bury")
        await runs.get(info.id)
        await anyio.sleep(10)
        assert "lost" not in caplog.text
        other.mend()
        await anyio.sleep(10)
        assert f"the run {info.id!r} was lost" in caplog.text
        way.mend()


async def test_deleted_before_its_burial(caplog: pytest.LogCaptureFixture) -> None:
    """A run that others have buried and deleted is not lost once more: there is none."""
    log = MemoryLog(lease=15)
    way, late, lost = Way(log), Way(log), list[str]()

    async def on_lost(info: RunInfo) -> None:
        lost.append(info.id)

    async with (
        Runs(way) as dying,
        Runs(late, on_lost=on_lost) as runs,
        Runs(log, on_lost=on_lost) as others,
    ):
        info = await dying.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        late.lose("bury")
        await anyio.sleep(100)
        await runs.get(info.id)
        await read(others, info.id)
        await others.delete(info.id)
        late.mend()
        await anyio.sleep(10)
        assert lost == [info.id]
        assert "could not be buried" not in caplog.text
        way.mend()


async def test_on_lost_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What on_lost raises is logged, and the run is lost all the same."""
    log = MemoryLog(lease=15)
    way = Way(log)

    async def on_lost(info: RunInfo) -> None:
        raise LookupError

    async with Runs(way) as dying, Runs(log, on_lost=on_lost) as runs:
        info = await dying.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        assert isinstance((await read(runs, info.id))[1], RunLost)
        way.mend()
    assert "could not be handled" in caplog.text


async def lose_two(on_lost: Callable[[RunInfo], Awaitable[None]]) -> None:
    """Let two runs be lost, one after another."""
    log = MemoryLog(lease=15)
    way = Way(log)
    async with Runs(way) as dying, Runs(log, on_lost=on_lost) as runs:
        started = [await dying.start(Probe("a", block=True).source()) for _ in range(2)]
        await wait_all_blocked()
        way.cut()
        for info in started:
            assert isinstance((await read(runs, info.id))[1], RunLost)
            await wait_all_blocked()
        way.mend()


async def test_on_lost_is_told_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    """E8: a StreamCancelled of another stream ends no other run, and the next lost run is told."""

    async def on_lost(info: RunInfo) -> None:
        raise StreamCancelled("another stream")

    await lose_two(on_lost)
    assert caplog.text.count("could not be handled") == 2


@pytest.mark.asyncio_only
async def test_on_lost_awaits_what_others_have_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """C7: an on_lost that gets the cancellation of something else is called again."""

    async def on_lost(info: RunInfo) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    await lose_two(on_lost)
    assert caplog.text.count("BrokenResourceError: on_lost awaited what others had cancelled") == 2


async def test_left_during_on_lost() -> None:
    """C6: the end of the block does not wait for on_lost."""
    ended: list[str] = []

    async def on_lost(info: RunInfo) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(info.id)

    await lose_two(on_lost)
    # The first one by the limit of its time.
    assert len(ended) == 2


async def test_the_log_is_away_while_burying() -> None:
    """A look that the log does not answer is made again."""
    log = MemoryLog(lease=15)
    way, other = Way(log), Way(log)
    async with Runs(way) as dying, Runs(other) as runs:
        info = await dying.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        other.lose("bury")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, runs, info.id)
            await anyio.sleep(60)
            assert (await runs.get(info.id)).state == "running"
            other.mend()
        assert (await runs.get(info.id)).state == "ended"
        way.mend()


@pytest.mark.parametrize("call", ["append", "renew"])
@pytest.mark.parametrize("broken", [False, True])
async def test_the_log_is_lost(call: str, broken: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A source whose log is away for too long, or fails, is told; what it still says is dropped."""
    log = MemoryLog(lease=15)
    way = Way(log)
    outcomes: list[Outcome] = []

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        outcomes.append(outcome)

    probe = Probe(*"abc", every=20)
    async with Runs(way) as runs, Runs(log) as elsewhere:
        info = await runs.start(probe.source(), on_end=on_end)
        other = await runs.start(Probe("a", block=True).source())
        await anyio.sleep(21)
        with caplog.at_level(logging.ERROR, "streamkit"):
            if broken:
                way.failing[call] = LookupError("broken")
            else:
                way.lose(call)
            await anyio.sleep(20)
        assert told(probe) == [LogLost()]
        assert [(outcome.kind, outcome.reason) for outcome in outcomes] == [
            ("cancelled", LogLost())
        ]
        items, end = await read(elsewhere, info.id)
        assert items == ["a"]
        assert isinstance(end, RunCancelled)
        assert end.reason == LogLost()
        assert str(end).endswith("the log could not be reached")
        way.mend()
        if call == "append":
            assert (await runs.get(other.id)).state == "running"
    assert ("has failed" in caplog.text) is broken


async def test_the_end_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A run whose end cannot be written is lost to those who read it; nothing hangs."""
    log = MemoryLog(lease=15)
    way = Way(log)
    async with Runs(way) as runs, Runs(log) as elsewhere:
        info = await runs.start(Probe("a", every=1).source())
        await wait_all_blocked()
        way.lose("end", "renew")
        await anyio.sleep(2)
        assert runs.stats().running == 0
        items, end = await read(elsewhere, info.id)
        assert items == ["a"]
        assert isinstance(end, RunLost)
    assert "could not be written" in caplog.text


async def test_the_log_is_emptied() -> None:
    """A run that is gone from the log ends, and is not made anew; its readers are told."""
    log = MemoryLog()
    outcomes: list[Outcome] = []

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        outcomes.append(outcome)

    probe = Probe(*"ab", every=1)
    async with Runs(log) as runs:
        info = await runs.start(probe.source(), on_end=on_end)
        with pytest.raises(RunNotFound):
            async with runs.attach(info.id) as stream:
                async for _ in stream:
                    kept = log._runs.pop(info.id)
                    await anyio.sleep(2)
                    kept.change()
        with pytest.raises(RunNotFound):
            await runs.get(info.id)
    assert [(outcome.kind, outcome.reason) for outcome in outcomes] == [("cancelled", Fenced())]
    assert str(Fenced()) == "the run was ended elsewhere"


async def test_the_log_has_gone_back() -> None:
    """A cursor beyond the tail of a run that goes on waits as long as an outage may last."""
    log = MemoryLog()
    log.outage = 10
    when = Log()
    async with Runs(log) as runs:
        info = await runs.start(Probe(*"abc", every=4).source())
        when.start()
        async with runs.attach(info.id, after=2) as stream:
            assert [entry.item async for entry in stream] == ["c"]
        when("read")
        other = await runs.start(Probe(*"abc", every=4).source())
        with pytest.raises(CursorMismatch):
            async with runs.attach(other.id, after=5) as stream:
                await anext(stream)
        when("refused")
        late = await runs.start(Probe(*"a", every=4).source())
        with pytest.raises(CursorMismatch):
            async with runs.attach(late.id, after=5) as stream:
                await anext(stream)
        when("ended")
    assert when == [(12, "read"), (22, "refused"), (26, "ended")]


@pytest.mark.parametrize("when", ["before on_end", "in on_end", "while it is silent"])
async def test_the_last_items_are_lost(when: str) -> None:
    """The log has lost the last items of a run that ends, or says nothing: it does not complete, as
    if they had never been.
    """
    log = MemoryLog(lease=15)
    ended: list[Outcome] = []
    go = anyio.Event()

    def lose() -> None:
        run = log._runs["run"]
        run.entries.pop()
        run.last -= 1

    async def source() -> AsyncGenerator[str, None]:
        yield "a"
        yield "b"
        await go.wait()

    async def on_end(outcome: Outcome, info: RunInfo) -> None:
        ended.append(outcome)
        if when == "in on_end":
            lose()

    async with Runs(log) as runs, Runs(log) as elsewhere:
        await runs.start(source(), id="run", on_end=on_end)
        await anyio.sleep(1)
        if when != "in on_end":
            lose()
        if when != "while it is silent":
            go.set()
        await anyio.sleep(3)
        items, end = await read(elsewhere, "run")
        assert (items, type(end)) == (["a"], RunLost)
        [outcome] = ended
        reason = None if when == "in on_end" else Fenced()
        assert (outcome.kind, outcome.reason) == ("cancelled" if reason else "completed", reason)


@pytest.mark.parametrize("how", ["away", "broken"])
async def test_create_fails(how: str) -> None:
    """A start that the log does not take raises what the log said; the source is closed."""
    way = Way(MemoryLog())
    error: Exception = LogUnavailable("away") if how == "away" else LookupError("broken")
    way.failing["create"] = error
    probe = Probe("a")
    async with Runs(way) as runs:
        with pytest.raises(type(error)) as caught:
            await runs.start(probe.source())
        assert caught.value is error
        assert runs.stats().running == 0
    assert not probe.started


@pytest.mark.parametrize("then", ["done", "refused", "not removed"])
async def test_create_is_given_up(then: str, caplog: pytest.LogCaptureFixture) -> None:
    """A start that is cancelled while the log is asked leaves no run, whatever that says."""
    way = Way(log := MemoryLog())
    probe = Probe("a")
    async with Runs(way) as runs:
        way.cut("create")
        with anyio.move_on_after(1):
            await runs.start(probe.source(), id="chat")
        way.mend()
        if then == "refused":
            way.lose("create")
        elif then == "not removed":
            way.lose("delete")
        await wait_all_blocked()
        assert len(log) == (then == "not removed")
        assert runs.stats().running == 0
    assert not probe.started
    assert ("could not be removed" in caplog.text) is (then == "not removed")


async def test_unwatched_while_the_store_is_away() -> None:
    """No run is cancelled for want of readers while the store does not answer, but after it."""
    way = Way(log := MemoryLog())
    async with Runs(way, unwatched=5) as runs, Runs(log) as elsewhere:
        info = await runs.start(Probe(block=True).source())
        way.lose("request_cancel")
        await anyio.sleep(60)
        assert (await elsewhere.get(info.id)).state == "running"
        # Somebody comes at the last moment.
        async with elsewhere.attach(info.id) as stream:
            with anyio.move_on_after(1):
                await anext(stream)
            way.mend()
            with anyio.move_on_after(20):
                await anext(stream)
            assert (await elsewhere.get(info.id)).state == "running"
        _, end = await read_later(elsewhere, info.id)
        assert isinstance(end, RunCancelled)
        assert end.reason == Unwatched()


async def test_many_are_watched() -> None:
    """No run is cancelled for want of readers where the log takes a moment to be told of each."""
    way = Way(log := MemoryLog())
    way.takes, way.slow = 0.1, {"touch"}
    async with Runs(log, unwatched=5) as runs, Runs(way) as elsewhere:
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                info = await runs.start(Probe(*"ab", every=6).source())
                async with elsewhere.attach(info.id) as stream:
                    assert [entry.item async for entry in stream] == ["a", "b"]

            for _ in range(100):
                tasks.start_soon(watch)


async def test_somebody_comes_at_the_last_moment() -> None:
    """A run is not cancelled for want of readers while that is asked for and one comes."""
    way = Way(log := MemoryLog())
    async with Runs(way, unwatched=5) as runs, Runs(log) as elsewhere:
        info = await runs.start(Probe(block=True).source())
        # It looks after 5 seconds, hears that nobody was there, and asks within 0.4 more.
        way.takes = 0.2
        await anyio.sleep(5.3)
        async with elsewhere.attach(info.id) as stream:
            with anyio.move_on_after(20):
                await anext(stream)
            assert (await elsewhere.get(info.id)).state == "running"
        way.takes = 0


async def read_later(runs: Runs, run_id: str) -> tuple[list[Any], RunEnded]:
    await anyio.sleep(10)
    return await read(runs, run_id)


@pytest.mark.parametrize("broken", [False, True])
async def test_readers_cannot_be_told_of(broken: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Where the log cannot be told of a reader, the reader reads."""
    way = Way(log := MemoryLog())
    async with Runs(log, unwatched=5) as here, Runs(way) as elsewhere:
        info = await here.start(Probe(*"ab", every=2).source())
        async with elsewhere.attach(info.id) as stream:
            assert (await anext(stream)).item == "a"
            if broken:
                way.failing["touch"] = LookupError("broken")
            else:
                way.lose("touch")
            assert (await anext(stream)).item == "b"
        await wait_all_blocked()
    assert ("could not be told" in caplog.text) is broken


async def test_cut_off_and_read() -> None:
    """A reader whose log is away for too long is told so, and its run notices nothing."""
    way = Way(log := MemoryLog())
    async with Runs(log) as here, Runs(way) as elsewhere:
        info = await here.start(Probe(*"ab", every=1).source())
        way.lose("read")
        with pytest.raises(LogUnavailable):
            async with elsewhere.attach(info.id) as stream:
                await anext(stream)
        way.mend()
        async with elsewhere.attach(info.id) as stream:
            assert [entry.item async for entry in stream] == ["a", "b"]
        assert await read_all(here, aiter_of("c")) == ["c"]


async def read_all(runs: Runs, source: Any) -> list[Any]:
    info = await runs.start(source)
    async with runs.attach(info.id) as stream:
        return [entry.item async for entry in stream]
