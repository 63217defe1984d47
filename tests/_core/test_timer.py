"""Timers: functions that stages have called at a time."""

from __future__ import annotations

import asyncio
import gc
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint

from streamkit import Control, Stage, Timer, with_stage
from streamkit._core.backend import get_backend
from support import Backend, Log, Probe, live_tasks, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Timed(Stage[Any, Any]):
    """Has a function called at some times, counted from its opening."""

    timer: Timer

    def __init__(self, log: Log, *times: float) -> None:
        self.log = log
        self.times = times

    def on_open(self, control: Control) -> None:
        self.control = control
        self.opened_at = control.now()
        self.timer = control.timer(self.call)
        for time in self.times:
            self.timer.set(self.opened_at + time)

    def call(self) -> None:
        self.log("called")


async def test_is_called_once() -> None:
    """K1: the function is called at the time that is set, and not again."""
    log = Log()
    log.start()
    async with with_stage(Probe(block=True).source(), Timed(log, 3)):
        await anyio.sleep(20)
    assert log == [(3, "called")]


@pytest.mark.parametrize("times", [(8, 3), (2, 3)], ids=["earlier", "later"])
async def test_set_anew(times: tuple[float, ...]) -> None:
    """K1: a time that is set comes in the place of the one before."""
    log = Log()
    log.start()
    async with with_stage(Probe(block=True).source(), Timed(log, *times)):
        await anyio.sleep(20)
    assert log == [(3, "called")]


@pytest.mark.parametrize("anew", [2, 5], ids=["earlier", "later"])
async def test_set_anew_while_it_runs(anew: float) -> None:
    """K1: the same from the consumer's task, long after the stream was entered."""
    log = Log()
    log.start()
    timed = Timed(log, 3)
    async with with_stage(Probe(block=True).source(), timed):
        await anyio.sleep(1)
        timed.timer.set(timed.opened_at + anew)
        await anyio.sleep(20)
    assert log == [(anew, "called")]


async def test_set_for_no_time() -> None:
    """What is no time is refused at once, and the time that was set before is kept."""
    log = Log()
    timed = Timed(log, 3)
    log.start()
    async with with_stage(Probe(block=True).source(), timed):
        with pytest.raises(ValueError, match=r"cannot be set for nan, .*: write timer\.set\("):
            timed.timer.set(math.nan)
        with pytest.raises(ValueError, match=r"too large for a float: write timer\.set\("):
            timed.timer.set(10**400)
        with pytest.raises(TypeError):
            timed.timer.set(None)  # type: ignore[arg-type]
        await anyio.sleep(20)
    assert log == [(3, "called")]


@pytest.mark.asyncio_only
async def test_set_anew_when_its_time_has_come() -> None:
    """K1: set anew when its time has come, in each pass of the loop until the function runs."""
    for passes in range(5):
        log = Log()
        timed = Timed(log)
        log.start()
        async with with_stage(Probe(block=True).source(), timed):
            timed.timer.set(timed.opened_at + 3)
            await anyio.sleep(3)
            for _ in range(passes):
                await checkpoint()
            log("set")
            timed.timer.set(timed.opened_at + 8)
            await anyio.sleep(20)
        assert log[log.index((3, "set")) :] == [(3, "set"), (8, "called")]
    assert log[0] == (3, "called")


@pytest.mark.trio_only
async def test_set_anew_when_its_time_has_come_on_trio() -> None:
    """K1: the same, by something else that is due before the task of the timer has run."""
    log = Log()
    timed = Timed(log, 3)

    def set_anew(raise_cancel: object) -> trio.lowlevel.Abort:
        timed.timer.set(timed.opened_at + 8)
        return trio.lowlevel.Abort.SUCCEEDED

    log.start()
    async with with_stage(Probe(block=True).source(), timed):
        await wait_all_blocked()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        with anyio.CancelScope(deadline=timed.opened_at + 4):
            # Both times are over by now, and are seen in their order.
            clock.jump(5)
            await trio.lowlevel.wait_task_rescheduled(set_anew)
        await anyio.sleep(20)
    assert log == [(8, "called")]


async def test_set_after_the_end() -> None:
    """G3: a timer that is set when the source has been closed calls nothing."""
    log = Log()
    timed = Timed(log)
    log.start()
    async with with_stage(Probe("a").source(), timed) as stream:
        assert [item async for item in stream] == ["a"]
        timed.timer.set(timed.opened_at + 3)
        await anyio.sleep(20)
    timed.timer.set(timed.opened_at + 30)
    await anyio.sleep(20)
    assert log == []


@pytest.mark.asyncio_only
def test_called_in_a_task(backend: Backend) -> None:
    """K1: the function may ask anyio what it likes, also if asyncio was not started by anyio."""
    seen: list[object] = []

    class Asks(Timed):
        def call(self) -> None:
            seen.append((self.control.waited, anyio.current_time() - self.opened_at))

    async def main() -> None:
        async with with_stage(Probe(block=True).source(), Asks(Log(), 3)) as stream:
            with anyio.move_on_after(20):
                await anext(stream)

    with asyncio.Runner(loop_factory=backend.new_loop) as runner:
        runner.run(main())
    assert seen == [(0, 3)]


async def test_set_in_the_function() -> None:
    """K1: the function sets its next time itself, as a ticker does."""
    log = Log()

    class Ticks(Timed):
        def call(self) -> None:
            super().call()
            self.timer.set(self.control.now() + 4)

    log.start()
    async with with_stage(Probe(block=True).source(), Ticks(log, 3)):
        await anyio.sleep(12)
    await anyio.sleep(20)
    assert log == [(3, "called"), (7, "called"), (11, "called")]


async def test_closed_with_the_source() -> None:
    """G3: when the source has ended, nothing is called any more, though the block goes on."""
    log = Log()
    log.start()
    async with with_stage(Probe("a").source(), Timed(log, 3)) as stream:
        assert [item async for item in stream] == ["a"]
        await anyio.sleep(20)
    assert log == []


async def test_closed_by_the_stage() -> None:
    """G3: a stage may close its timer before, and more than once."""
    log = Log()
    timed = Timed(log, 3)
    log.start()
    async with with_stage(Probe(block=True).source(), timed):
        timed.timer.close()
        timed.timer.close()
        await anyio.sleep(20)
    assert log == []


@pytest.mark.asyncio_only
async def test_closed_while_it_is_due() -> None:
    """G3: the timer is closed at the very time that was set, before its function is called."""
    log = Log()
    timed = Timed(log, 3)

    async def close() -> None:
        await anyio.sleep(3)
        timed.timer.close()

    log.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        await wait_all_blocked()
        async with with_stage(Probe(block=True).source(), timed):
            await anyio.sleep(20)
    assert log == []


async def test_closed_by_another_that_is_due() -> None:
    """G3: of two that are due at the same time, whichever is called first closes the other one."""
    log = Log()
    stages: list[Timed] = []

    class Closes(Timed):
        def call(self) -> None:
            super().call()
            for stage in stages:
                stage.timer.close()

    stages += [Closes(log), Closes(log)]
    log.start()
    async with with_stage(with_stage(Probe(block=True).source(), stages[0]), stages[1]):
        for stage in stages:
            stage.timer.set(stages[0].opened_at + 3)
        await anyio.sleep(20)
    assert log == [(3, "called")]


@pytest.mark.asyncio_only
@pytest.mark.filterwarnings("ignore:coroutine 'Pump.run' was never awaited:RuntimeWarning")
async def test_source_task_that_never_began() -> None:
    """G3: the source task is cancelled before it has begun: the timer is closed all the same."""
    log = Log()
    log.start()
    with pytest.raises(anyio.BrokenResourceError):
        async with with_stage(Probe("a").source(), Timed(log, 3)):
            for task in asyncio.all_tasks():
                if task.get_name().startswith("source task"):
                    task.cancel()
            await anyio.sleep(1)
    await anyio.sleep(20)
    assert log == []


async def test_stream_that_is_not_entered() -> None:
    """E3: another stage fails in ``on_open``: the timer is closed, and so is what was opened."""
    log = Log()

    class Closed(Timed):
        def on_close(self) -> None:
            self.log("closed")

    class Broken(Stage[Any, Any]):
        def on_open(self, control: Control) -> None:
            raise LookupError("on_open")

        def on_close(self) -> None:
            raise AssertionError("it was not opened")

    probe = Probe("a")
    log.start()
    with pytest.raises(LookupError, match="on_open"):
        async with with_stage(with_stage(probe.source(), Closed(log, 3)), Broken()):
            raise AssertionError("must not be entered")
    await anyio.sleep(20)
    assert log == [(0, "closed")]
    assert not probe.started


@pytest.mark.asyncio_only
async def test_left_in_another_task() -> None:
    """G13: the block is left in another task, whose wait for the closing is cancelled as well."""
    log = Log()

    class Ticks(Timed):
        def call(self) -> None:
            super().call()
            self.timer.set(self.control.now() + 1)

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1.5)
            log("closed")

    async def holder() -> AsyncGenerator[str, None]:
        async with with_stage(source(), Ticks(log, 3)) as stream:
            yield await anext(stream)
            with anyio.move_on_after(2):
                await anext(stream)
            yield "b"

    async def step() -> None:
        assert [await anext(generator), await anext(generator)] == ["a", "b"]

    log.start()
    generator = holder()
    await asyncio.create_task(step())
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(RuntimeError, match="in another task"):
            await generator.aclose()
    await anyio.sleep(20)
    assert log == [(3, "called"), (3.5, "closed")]


async def test_fails() -> None:
    """E1: what the function raises ends the stream like the error of any hook."""
    error = LookupError("timer")

    class Fails(Timed):
        def call(self) -> None:
            raise error

    probe = Probe[str](block=True)
    with pytest.raises(LookupError) as caught:
        async with with_stage(probe.source(), Fails(Log(), 3)) as stream:
            await anext(stream)
    assert caught.value is error
    assert probe.closed == 1


async def test_made_when_the_stream_is_open() -> None:
    """K1: a timer may be made at any time; nothing is called by one that comes after the end."""
    log = Log()
    timed = Timed(log)
    log.start()
    async with with_stage(Probe("a").source(), timed) as stream:
        await anext(stream)
        timed.control.timer(timed.call).set(timed.opened_at + 3)
        await anyio.sleep(5)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        timed.control.timer(timed.call).set(timed.opened_at + 8)
        await anyio.sleep(20)
    assert log == [(3, "called")]


@pytest.mark.asyncio_only
async def test_item_at_the_same_time() -> None:
    """K5: an item that is made at the very time of a timer is there before its function runs."""
    log = Log()

    class Looks(Timed):
        def on_item(self, item: Any) -> Any:
            self.log("item")
            return item

    async def source() -> AsyncGenerator[str, None]:
        await anyio.sleep(3)
        yield "a"

    stage = Looks(log)
    log.start()
    async with with_stage(source(), stage) as stream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, stream)
            await wait_all_blocked()
            stage.timer.set(stage.opened_at + 3)
    assert log == [(3, "item"), (3, "called")]


async def test_cancelled_from_outside() -> None:
    """G4: a scope around the stream is cancelled: nothing is called after that."""
    log = Log()
    log.start()
    with anyio.move_on_after(2):
        async with with_stage(Probe(block=True).source(), Timed(log, 3)) as stream:
            with suppress(StopAsyncIteration):
                await anext(stream)
    await anyio.sleep(20)
    assert log == []


async def test_context() -> None:
    """The function runs in the context of the call that made the timer, whoever sets it."""
    seen: list[str] = []
    who: ContextVar[str] = ContextVar("who", default="nobody")

    class Looks(Timed):
        def call(self) -> None:
            seen.append(who.get())

    timed = Looks(Log())
    who.set("the one that opened it")
    async with with_stage(Probe(block=True).source(), timed):
        who.set("the one that set it")
        for time in (3, 6):
            timed.timer.set(timed.opened_at + time)
            await anyio.sleep(4)
    assert seen == ["the one that opened it"] * 2


async def test_many() -> None:
    """K1: the timers of many streams, of which some are closed or set anew before their time."""
    log = Log()
    log.start()
    stages = [Timed(Log(), 10 + number % 3) for number in range(30)]
    async with AsyncExitStack() as streams:
        for number, stage in enumerate(stages):
            stage.log = log
            await streams.enter_async_context(with_stage(Probe(block=True).source(), stage))
            if number % 2:
                stage.timer.close()
        stages[0].timer.set(stages[0].opened_at + 1)
        await anyio.sleep(20)
    assert (
        log == [(1, "called")] + [(10, "called")] * 4 + [(11, "called")] * 5 + [(12, "called")] * 5
    )


async def test_set_anew_for_now() -> None:
    """K1: a function that sets its next time for now keeps nobody else from their turn."""
    log = Log()
    log.start()
    stop = False

    class Again(Timed):
        def call(self) -> None:
            super().call()
            if not stop:
                self.timer.set(self.control.now())

    async with with_stage(Probe(block=True).source(), Again(log, 3)):
        await anyio.sleep(3)
        stop = True
        await anyio.sleep(20)
    assert set(log) == {(3, "called")}


class TestAlarmClock:
    """On trio, one task looks after the timers of all streams, for as long as one is set."""

    pytestmark = pytest.mark.trio_only

    async def test_one_task(self) -> None:
        """G3: it is there from the first timer that is set to the last one that is closed."""
        first, second = Timed(Log(), 3), Timed(Log())
        async with with_stage(Probe(block=True).source(), second):
            assert clocks() == 0
            async with with_stage(Probe(block=True).source(), first):
                second.timer.set(second.opened_at + 4)
                await anyio.sleep(3.5)
                assert clocks() == 1
            assert clocks() == 1
            await anyio.sleep(1)
            assert clocks() == 0
            second.timer.set(second.opened_at + 9)
            assert clocks() == 1
        assert clocks() == 0

    async def test_set_while_it_ends(self) -> None:
        """K1: the last timer was closed, and another one is set before the task has run."""
        log = Log()
        first, second = Timed(Log(), 3), Timed(log)
        log.start()
        async with with_stage(Probe(block=True).source(), second):
            async with with_stage(Probe(block=True).source(), first):
                await wait_all_blocked()
                first.timer.close()
                second.timer.set(second.opened_at + 5)
                await anyio.sleep(10)
        assert log == [(5, "called")]

    async def test_earlier_than_the_first(self) -> None:
        """K1: while the task waits for one timer, another is set for an earlier time."""
        log = Log()
        first, second = Timed(Log(), 10), Timed(log)
        log.start()
        async with with_stage(Probe(block=True).source(), first):
            async with with_stage(Probe(block=True).source(), second):
                await wait_all_blocked()
                second.timer.set(second.opened_at + 3)
                await anyio.sleep(20)
        assert log == [(3, "called")]

    async def test_forgets(self) -> None:
        """What was set for a time far off, and closed, is not kept until then."""
        async with with_stage(Probe(block=True).source(), Timed(Log(), 1_000)):
            for _ in range(50):
                async with with_stage(Probe(block=True).source(), Timed(Log(), 10_000)):
                    await wait_all_blocked()
            assert sum(type(each).__name__ == "_Alarm" for each in gc.get_objects()) < 5

    @pytest.mark.parametrize("closing", [None, LookupError("closing")], ids=["closed", "raises"])
    async def test_stream_that_is_not_entered(self, closing: LookupError | None) -> None:
        """G13: another stage fails in ``on_open``: the task is gone when that is raised."""

        class Source:
            def __aiter__(self) -> AsyncGenerator[str, None]:
                raise AssertionError("must not be iterated")

            async def aclose(self) -> None:
                if closing is not None:
                    raise closing

        class Broken(Stage[Any, Any]):
            def on_open(self, control: Control) -> None:
                raise LookupError("on_open")

        # In each pass, trio runs what is ready in an order of its own.
        for _ in range(20):
            with pytest.raises(LookupError):
                async with with_stage(with_stage(Source(), Timed(Log(), 3)), Broken()):
                    raise AssertionError("must not be entered")
            assert clocks() == 0

    def test_opened_as_the_run_ends(self) -> None:
        """A generator that the run closes at its end opens a stream: it goes on unheard."""
        log: list[str] = []

        async def generator() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                with anyio.CancelScope(shield=True):
                    async with with_stage(Probe("b").source(), Timed(Log(), 3)) as stream:
                        log.extend([item async for item in stream])

        async def main() -> Any:
            kept = generator()
            await anext(kept)
            return kept

        kept = trio.run(main)
        assert kept.ag_frame is None
        assert log == ["b"]

    async def test_set_in_another_thread(self) -> None:
        """A timer belongs to its event loop: where there is none, it cannot be set."""
        timed = Timed(Log())
        async with with_stage(Probe(block=True).source(), timed):
            with ThreadPoolExecutor(1) as pool:
                error = pool.submit(timed.timer.set, timed.opened_at + 3).exception()
        assert isinstance(error, RuntimeError)

    def test_after_the_run(self) -> None:
        """G3: a run that ends with a timer that is set says nothing, and the next has its own."""

        async def main() -> list[tuple[float, str]]:
            log = Log()
            log.start()
            async with with_stage(Probe(block=True).source(), Timed(log, 3)):
                await anyio.sleep(4)
            # What nobody closes: as in a system task of the user's own.
            lost = get_backend().make_timer(lambda: log("lost"), AssertionError)
            lost.set(anyio.current_time() + 1_000)
            return log

        for _ in range(2):
            clock = trio.testing.MockClock(autojump_threshold=0)
            assert trio.run(main, clock=clock) == [(3, "called")]


def clocks() -> int:
    return sum(task.name == "timers of streams" for task in live_tasks())
