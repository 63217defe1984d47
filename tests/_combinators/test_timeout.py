"""Limits of time: when each is reached, what the source is told, and what the consumer gets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import pickle
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from observing import blocked, call_later, kind
from streamkit import (
    SKIP,
    CancelToken,
    Control,
    Head,
    Outcome,
    Skip,
    Stage,
    Stream,
    StreamCancelled,
    StreamTimeout,
    TimedOut,
    current_cancellation,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
    with_timeout,
)
from support import START, Log, Probe, aiter_of, live_tasks, on_trio, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

# How often a case is run whose outcome may depend on the order in which tasks are scheduled.
REPEATS = 30

FIRST = "no first item within 5 seconds"
IDLE = "no item within 5 seconds"
TOTAL = "no end within 5 seconds"


async def watch(stream: Stream[Any], log: Log, *, busy: float = 0.0) -> Outcome:
    """Log what a consumer gets, who is busy after each item, and how the iteration ended."""
    log.start()
    async with stream:
        try:
            async for item in stream:
                log(item)
                await anyio.sleep(busy)
        except StreamTimeout as error:
            log(f"consumer: {error}")
        except StreamCancelled as stop:
            log(f"consumer cancelled: {stop.reason}")
        else:
            log("end")
    return stream.outcome


async def spaced(log: Log, *steps: tuple[float, object]) -> AsyncGenerator[Any, None]:
    """Yield each item so many seconds after it has been asked for. Logs how that ends."""
    try:
        for seconds, item in steps:
            await anyio.sleep(seconds)
            yield item
    except BaseException as exc:
        log(f"source: {kind(exc)}")
        raise


class TestEachLimit:
    """T1: each limit alone, and all together."""

    @pytest.mark.parametrize(
        ("limits", "message"),
        [({"first": 5}, FIRST), ({"idle": 5}, IDLE), ({"total": 5}, TOTAL)],
        ids=["first", "idle", "total"],
    )
    async def test_silent_from_the_start(self, limits: dict[str, float], message: str) -> None:
        """T1: the source is told why, in its await; the consumer gets StreamTimeout."""
        log = Log()
        outcome = await watch(with_timeout(blocked(log), **limits), log)
        assert log == [
            (5, f"source: told to {message}"),
            (5, "closed"),
            (5, f"consumer: {message}"),
        ]
        ((name, seconds),) = limits.items()
        assert outcome.kind == "timed_out"
        assert outcome.reason == TimedOut(name, seconds)  # type: ignore[arg-type]
        assert outcome.error is None
        assert outcome.ended_at == START + 5
        assert not outcome.grace_exceeded

    async def test_first(self) -> None:
        """T1: the limit on the first item says nothing of the second."""
        log = Log()
        outcome = await watch(with_timeout(spaced(log, (4, "a"), (1000, "b")), first=5), log)
        assert log == [(4, "a"), (1004, "b"), (1004, "end")]
        assert outcome.kind == "completed"

    async def test_idle(self) -> None:
        """T1: the limit on each item starts anew with each."""
        log = Log()
        source = spaced(log, *[(4, n) for n in range(5)], (6, "late"))
        await watch(with_timeout(source, idle=5), log)
        assert log == [
            *[(4 * n + 4, n) for n in range(5)],
            (25, f"source: told to {IDLE}"),
            (25, f"consumer: {IDLE}"),
        ]

    @pytest.mark.parametrize(("first", "at"), [(2, 1.5), (20, 1.5), (20, 19.5)])
    async def test_idle_with_first(self, first: float, at: float) -> None:
        """T1: with both, idle limits the second item and those after it, however long first is."""
        log = Log()
        source = spaced(log, (at, "a"), (4, "b"), (6, "c"))
        await watch(with_timeout(source, first=first, idle=5), log)
        assert log == [
            (at, "a"),
            (at + 4, "b"),
            (at + 9, f"source: told to {IDLE}"),
            (at + 9, f"consumer: {IDLE}"),
        ]

    @pytest.mark.parametrize("first", [2, 20])
    async def test_first_with_idle(self, first: float) -> None:
        """T1: with both, first limits the first item, and idle does not."""
        log = Log()
        outcome = await watch(with_timeout(blocked(log), first=first, idle=5), log)
        assert outcome.reason == TimedOut("first", first)
        assert outcome.ended_at == START + first

    async def test_total(self) -> None:
        """T1: the limit on the whole goes on through all items."""
        log = Log()
        await watch(with_timeout(spaced(log, *[(2, n) for n in range(9)]), total=5), log)
        assert log == [
            (2, 0),
            (4, 1),
            (5, f"source: told to {TOTAL}"),
            (5, f"consumer: {TOTAL}"),
        ]

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ({"first": 2, "idle": 5, "total": 100}, (TimedOut("first", 2), 2)),
            ({"first": 4, "idle": 5, "total": 100}, (TimedOut("idle", 5), 8)),
            ({"first": 4, "idle": 6, "total": 7}, (TimedOut("total", 7), 7)),
        ],
        ids=["first", "idle", "total"],
    )
    async def test_together(self, limits: dict[str, float], expected: object) -> None:
        """T1: of several limits, the one that is reached first."""
        log = Log()
        outcome = await watch(with_timeout(blocked_after(3), **limits), log)
        assert (outcome.reason, outcome.ended_at - START) == expected

    async def test_in_the_end(self) -> None:
        """T1: a source that has given its last item has the same time to end."""
        log = Log()

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            await anyio.sleep(6)

        await watch(with_timeout(source(), idle=5), log)
        assert log == [(0, "a"), (5, f"consumer: {IDLE}")]

    async def test_total_starts_with_the_block(self) -> None:
        """T1: a consumer that has not asked in time finds a source that was never started."""
        probe = Probe("a")
        async with with_timeout(probe.source(), total=5) as stream:
            await anyio.sleep(10)
            with pytest.raises(StreamTimeout, match=TOTAL):
                await anext(stream)
        assert not probe.started
        assert stream.outcome.ended_at == START + 5

    async def test_total_includes_slow_signals(self) -> None:
        """T1: so it does where a signal takes long to be entered: the block is being entered."""

        class Slow(Stage[str, str]):
            def lifespan(self, control: Control) -> Any:
                return slow()

        log = Log()
        stream = with_timeout(with_stage(blocked(log), Slow()), total=5)
        async with stream:
            with pytest.raises(StreamTimeout, match=TOTAL):
                await anext(stream)
        assert stream.outcome.ended_at == START + 5

    async def test_one_task(self) -> None:
        """T1: one task counts for all limits."""
        for limits in {"first": 5, "idle": 5, "total": 5}, {"total": 5}, {"idle": 5}:
            before = live_tasks()
            async with with_timeout(aiter_of(1), **limits):
                await wait_all_blocked()
                # It, and the source task.
                assert len(live_tasks() - before) == 2


class slow:
    async def __aenter__(self) -> None:
        await anyio.sleep(4)

    async def __aexit__(self, *exc_info: object) -> None:
        pass


async def blocked_after(seconds: float) -> AsyncGenerator[str, None]:
    await anyio.sleep(seconds)
    yield "a"
    await anyio.sleep_forever()


class TestWhatCounts:
    async def test_busy_consumer(self) -> None:
        """T2: what the consumer does elsewhere does not count for first and idle."""
        log = Log()
        outcome = await watch(
            with_timeout(spaced(log, (4, "a"), (4, "b"), (4, "c")), first=5, idle=5), log, busy=100
        )
        assert log == [(4, "a"), (108, "b"), (212, "c"), (312, "end")]
        assert outcome.kind == "completed"

    async def test_before_the_first_ask(self) -> None:
        """T2: nor does the time before the first ask."""
        log = Log()
        async with with_timeout(spaced(log, (4, "a")), first=5, idle=5) as stream:
            await anyio.sleep(100)
            assert await anext(stream) == "a"

    async def test_total_goes_on(self) -> None:
        """T2: it does for total: the source is told at its yield, the consumer when it asks."""
        log = Log()
        await watch(with_timeout(blocked(log, "a"), total=5), log, busy=100)
        assert log == [
            (0, "a"),
            (5, f"source: told to {TOTAL}"),
            (5, "closed"),
            (100, f"consumer: {TOTAL}"),
        ]

    async def test_waits_add_up(self) -> None:
        """T2: waits for the same item that are cancelled add up; the time between does not."""
        log = Log()
        async with with_timeout(blocked(log), idle=5) as stream:
            for _ in range(2):
                with anyio.move_on_after(2) as scope:
                    await anext(stream)
                assert scope.cancelled_caught
                await anyio.sleep(100)
            log.start()
            with pytest.raises(StreamTimeout, match=IDLE):
                await anext(stream)
        assert log == [(1, f"source: told to {IDLE}"), (1, "closed")]

    async def test_item_of_a_cancelled_wait(self) -> None:
        """T2: an item that comes while nobody waits is one: the next has all of its time."""
        log = Log()
        async with with_timeout(spaced(log, (6, "a"), (4, "b"), (6, "c")), idle=5) as stream:
            with anyio.move_on_after(4):
                await anext(stream)
            await anyio.sleep(100)
            log.start()
            assert await anext(stream) == "a"
            assert await anext(stream) == "b"
            with pytest.raises(StreamTimeout, match=IDLE):
                await anext(stream)
        assert log == [(9, f"source: told to {IDLE}")]

    @pytest.mark.asyncio_only
    async def test_consumer_wakes_late(self) -> None:
        """T2: the wait is over when the item is there (asyncio only: trio has no such order)."""

        class HoldUp(Stage[Any, Any]):
            def on_item(self, item: Any) -> Any:
                # Before the consumer, which is woken after this.
                asyncio.get_running_loop().call_soon(jump, 100)
                return item

        log = Log()
        inner = with_timeout(spaced(log, (4, "a"), (4, "b")), idle=5)
        await watch(with_stage(inner, HoldUp()), log)
        assert log == [(104, "a"), (208, "b"), (208, "end")]

    @pytest.mark.parametrize("inside", [True, False])
    async def test_beats(self, inside: bool) -> None:
        """T3, K1: beats come while a limit is near, on either side of it, and are no items."""
        log = Log()
        stream: Stream[Any]
        if inside:
            stream = with_timeout(with_keepalive(blocked(log, "a"), 1, "-"), idle=3.5)
        else:
            stream = with_keepalive(with_timeout(blocked(log, "a"), idle=3.5), 1, "-")
        outcome = await watch(stream, log)
        assert log == [
            *[(0, "a"), (1, "-"), (2, "-"), (3, "-")],
            (3.5, "source: told to no item within 3.5 seconds"),
            (3.5, "closed"),
            (3.5, "consumer: no item within 3.5 seconds"),
        ]
        assert (outcome.items, outcome.beats) == (1, 3)

    async def test_busy_after_beats(self) -> None:
        """T3, T2: a consumer that is busy after each beat: its waits are what adds up."""
        log = Log()
        await watch(with_keepalive(with_timeout(blocked(log), first=2.5), 1, "-"), log, busy=10)
        assert log == [
            *[(1, "-"), (12, "-")],
            (22.5, "source: told to no first item within 2.5 seconds"),
            (22.5, "closed"),
            (22.5, "consumer: no first item within 2.5 seconds"),
        ]

    async def test_initial_beat(self) -> None:
        """T3: neither is the initial beat an item."""
        log = Log()
        await watch(
            with_timeout(with_keepalive(blocked(log), 100, "-", initial=True), first=5), log
        )
        assert log.events == ["-", f"source: told to {FIRST}", "closed", f"consumer: {FIRST}"]

    async def test_head(self) -> None:
        """T3: a Head is no item: the first one has the same time as without it."""
        log = Log()
        source = spaced(log, (4, Head()), (4, "a"))
        await watch(with_status(with_timeout(source, first=5)), log)
        assert log == [(5, f"source: told to {FIRST}"), (5, f"consumer: {FIRST}")]

    async def test_skipped_items(self) -> None:
        """T3: items that a stage skips count for a limit further in, and for none further out."""

        class Nothing(Stage[Any, Any]):
            def on_item(self, item: Any) -> Skip:
                return SKIP

        log = Log()
        steps = [(4.0, n) for n in range(4)]
        await watch(with_stage(with_timeout(spaced(log, *steps), idle=5), Nothing()), log)
        assert log == [(16, "end")]
        log = Log()
        await watch(with_timeout(with_stage(spaced(log, *steps), Nothing()), idle=5), log)
        assert log == [(5, f"source: told to {IDLE}"), (5, f"consumer: {IDLE}")]

    async def test_keepalive_with_a_limit(self) -> None:
        """K1: beats come at their times, with limits on either side that are not reached."""
        log = Log()
        inner = with_timeout(spaced(log, (35, "a")), first=36, idle=1, total=1000)
        stream = with_keepalive(inner, 10, "-")
        await watch(with_timeout(stream, idle=36), log)
        assert log == [(10, "-"), (20, "-"), (30, "-"), (35, "a"), (35, "end")]

    async def test_coarse_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """K13: a clock that stands still meanwhile does not keep a limit from being reached."""
        exact = anyio.current_time
        log = Log()
        log.start()
        async with with_timeout(blocked(log), idle=5) as stream:
            with monkeypatch.context() as patch:
                patch.setattr(anyio, "current_time", lambda: exact() // 500 * 500)
                with pytest.raises(StreamTimeout):
                    await anext(stream)
            assert exact() == START + 5

    @pytest.mark.parametrize("limit", [0.1, 0.3, 1.1])
    async def test_rounding(self, limit: float) -> None:
        """T1: sums of numbers that are not exact neither hold a limit up nor bring it early."""
        log = Log()
        stream = with_timeout(with_keepalive(blocked(log, 1), 0.07, SKIP), idle=limit)
        async with stream:
            await anext(stream)
            for _ in range(7):
                with anyio.move_on_after(limit / 7.3):
                    await anext(stream)
                await anyio.sleep(0.1)
            log.start()
            with pytest.raises(StreamTimeout):
                await anext(stream)
        assert log.events[0] == f"source: told to no item within {limit} seconds"
        assert log[0][0] == pytest.approx(limit - 7 * limit / 7.3, abs=1e-5)


def jump(seconds: float) -> None:
    """Let the clock go on as if the event loop had been held up."""
    if on_trio():
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        loop: Any = asyncio.get_running_loop()
        loop._now += seconds


class TestAtTheDeadline:
    @pytest.mark.parametrize("limits", [{"idle": 5}, {"first": 5, "idle": 5}], ids=str)
    async def test_item(self, limits: dict[str, float]) -> None:
        """K3, T1: an item that comes at the moment of a limit wins, every time."""
        log = Log()
        source = spaced(log, *[(5, n) for n in range(REPEATS)])
        outcome = await watch(with_timeout(source, **limits), log)
        assert log.events == [*range(REPEATS), "end"]
        assert outcome.kind == "completed"

    async def test_item_of_an_inner_stream(self) -> None:
        """K3, T1: so does one that has to come through two streams inside the source."""
        log = Log()

        async def through(stream: Stream[Any]) -> AsyncGenerator[Any, None]:
            async with stream:
                async for item in stream:
                    yield item

        source = spaced(log, *[(5, n) for n in range(REPEATS)])
        inner = with_cancellation(through(with_cancellation(source)))
        outcome = await watch(with_timeout(through(inner), idle=5), log)
        assert log.events == [*range(REPEATS), "end"]
        assert outcome.kind == "completed"

    async def test_end(self) -> None:
        """K3, T1: so does the end."""
        for _ in range(REPEATS):
            log = Log()

            async def source() -> AsyncGenerator[str, None]:
                yield "a"
                await anyio.sleep(5)

            outcome = await watch(with_timeout(source(), idle=5, total=5), log)
            assert log == [(0, "a"), (5, "end")]
            assert outcome.kind == "completed"

    async def test_item_at_the_total(self) -> None:
        """C31, T1: an item that comes when the whole time is up arrives, then the exception."""
        for _ in range(REPEATS):
            log = Log()
            source = spaced(log, (5, "a"), (5, "b"))
            await watch(with_timeout(source, total=5), log)
            assert log == [(5, "a"), (5, f"source: told to {TOTAL}"), (5, f"consumer: {TOTAL}")]

    async def test_late_wake(self) -> None:
        """K12, T1: where the loop was held up, what is ready by then comes before the limits."""
        log = Log()
        async with (
            anyio.create_task_group() as tasks,
            with_timeout(spaced(log, (4, "a"), (4, "b")), first=5, idle=5) as stream,
        ):

            @tasks.start_soon
            async def load() -> None:
                await anyio.sleep(1)
                jump(100)

            assert [item async for item in stream] == ["a", "b"]

    async def test_two_limits(self) -> None:
        """C29: two limits that are reached at once: one exception, one outcome."""
        for _ in range(REPEATS):
            log = Log()
            inner = with_timeout(blocked(log), first=5, total=5)
            outcome = await watch(with_timeout(inner, idle=5, total=5), log)
            assert [at for at, _ in log] == [5, 5, 5]
            assert log.events[0] == f"source: told to {outcome.reason}"
            assert log.events[2] == f"consumer: {outcome.reason}"

    @pytest.mark.parametrize("inside", [True, False])
    async def test_token_at_once(self, inside: bool) -> None:
        """C29: a token in the same tick as a limit: the first wins, and there is one exception."""
        kinds = set()
        for passes in range(8):
            log, token = Log(), CancelToken()

            async def fire(passes: int, token: CancelToken) -> None:
                await anyio.sleep(5)
                for _ in range(passes):
                    await anyio.lowlevel.checkpoint()
                token.cancel("stop")

            stream: Stream[Any] = blocked(log)  # type: ignore[assignment]
            if inside:
                stream = with_timeout(with_cancellation(stream, token), idle=5)
            else:
                stream = with_cancellation(with_timeout(stream, idle=5), token)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fire, passes, token)
                outcome = await watch(stream, log)
            kinds.add(outcome.kind)
            told = "stop" if outcome.kind == "cancelled" else IDLE
            consumer = "consumer cancelled" if outcome.kind == "cancelled" else "consumer"
            assert str(outcome.reason) == told
            assert log == [
                (5, f"source: told to {told}"),
                (5, "closed"),
                (5, f"{consumer}: {told}"),
            ]
        assert kinds == {"cancelled", "timed_out"}

    async def test_token_before(self) -> None:
        """C29: limits do not count once a token has fired: the clean-up has its grace."""
        log, token = Log(), CancelToken()
        source = slow_to_stop(log, 20)
        stream = with_timeout(with_cancellation(source, token, grace=30), idle=5, total=5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 4, token.cancel, "stop")
            outcome = await watch(stream, log)
        assert log == [(24, "last"), (24, "end")]
        assert (outcome.kind, outcome.reason) == ("cancelled", "stop")

    async def test_token_after(self) -> None:
        """C29: a token that fires while the source reacts to a limit changes nothing."""
        log, token = Log(), CancelToken()
        source = slow_to_stop(log, 20)
        stream = with_cancellation(with_timeout(source, idle=5, grace=30), token, grace=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 6, token.cancel, "stop")
            outcome = await watch(stream, log)
        assert log == [(25, "last"), (25, "end")]
        assert outcome.reason == TimedOut("idle", 5)

    async def test_after_the_end(self) -> None:
        """S10: no limit is reached once the source has ended, however long on_end takes."""
        log = Log()

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(20)
            log(outcome.kind)

        stream = with_timeout(aiter_of(1), idle=5, total=5)
        outcome = await watch(with_status(stream, on_end=on_end, on_end_timeout=30), log)
        assert log == [(0, 1), (20, "completed"), (20, "end")]
        assert outcome.kind == "completed"


async def slow_to_stop(log: Log, seconds: float) -> AsyncGenerator[str, None]:
    """Wait for ever; take some time to say a last word."""
    try:
        await anyio.sleep_forever()
    except StreamCancelled:
        try:
            await anyio.sleep(seconds)
        except BaseException as exc:
            log(f"clean-up: {kind(exc)}")
            raise
        yield "last"


class TestInTheSource:
    async def test_handled_at_an_await(self) -> None:
        """T4: a source that handles it: last items arrive, normal end, and it timed out."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            yield "a"
            try:
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log((stop.reason, current_cancellation()))
                await anyio.sleep(1)
                yield "last"
                await anyio.sleep(1)
                yield "very last"

        outcome = await watch(with_timeout(source(), idle=5), log)
        reason = TimedOut("idle", 5)
        assert log[:2] == [(0, "a"), (5, (reason, reason))]
        assert log[2:] == [(6, "last"), (7, "very last"), (7, "end")]
        assert (outcome.kind, outcome.reason) == ("timed_out", TimedOut("idle", 5))
        assert (outcome.error, outcome.items, outcome.grace_exceeded) == (None, 3, False)

    async def test_handled_at_a_yield(self) -> None:
        """T4: the same where it comes to a yield first, while the consumer is busy."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                for number in range(9):
                    yield number
            except StreamCancelled as stop:
                log(f"source: {stop.reason}")
                yield "last"

        outcome = await watch(with_timeout(source(), total=5), log, busy=4)
        assert log == [(0, 0), (4, 1), (5, f"source: {TOTAL}"), (8, 2), (12, "last"), (16, "end")]
        assert outcome.kind == "timed_out"

    async def test_another_error(self) -> None:
        """C28: a source that raises another error: the consumer gets that, the outcome has both."""
        error = LookupError("source")

        async def source() -> AsyncGenerator[str, None]:
            try:
                await anyio.sleep_forever()
                yield "never"
            except StreamCancelled:
                raise error

        async with with_timeout(source(), idle=5) as stream:
            with pytest.raises(LookupError) as caught:
                await anext(stream)
        assert caught.value is error
        assert isinstance(error.__context__, StreamCancelled)
        assert stream.outcome.kind == "timed_out"
        assert stream.outcome.reason == TimedOut("idle", 5)
        assert stream.outcome.error is error

    async def test_group(self) -> None:
        """E13: one that comes in a group of nothing else is still a bare StreamTimeout."""

        async def source() -> AsyncGenerator[str, None]:
            async with anyio.create_task_group():
                await anyio.sleep_forever()
                yield "never"

        async with with_timeout(source(), idle=5) as stream:
            with pytest.raises(StreamTimeout, match=IDLE):
                await anext(stream)
        assert stream.outcome.kind == "timed_out"

    async def test_nursery_exit(self) -> None:
        """T1: at the end of a task group, where trio shows its own exception, it is known, too."""
        log = Log()

        async def source() -> AsyncGenerator[str, None]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                yield "never"
            finally:
                log(str(current_cancellation()))

        outcome = await watch(with_timeout(source(), idle=5), log)
        assert log == [(5, IDLE), (5, f"consumer: {IDLE}")]
        assert outcome.kind == "timed_out"

    @pytest.mark.parametrize("busy", [0, 100])
    async def test_inner_stream(self, busy: float) -> None:
        """N7: the source of a stream inside is told the same, blocked or at a yield."""
        log = Log()
        inner = with_cancellation(blocked(log, "a"))

        async def outer() -> AsyncGenerator[object, None]:
            async with inner:
                async for item in inner:
                    await anyio.sleep(busy)
                    yield item

        outcome = await watch(with_timeout(outer(), total=5), log)
        assert log.events[-3:] == [f"source: told to {TOTAL}", "closed", f"consumer: {TOTAL}"]
        assert outcome.kind == "timed_out"
        assert inner.outcome.kind == "cancelled"
        assert inner.outcome.reason is outcome.reason

    async def test_traceback(self) -> None:
        """E1: what the consumer gets shows where the source was."""
        async with with_timeout(blocked(Log()), idle=5) as stream:
            with pytest.raises(StreamTimeout) as caught:
                await anext(stream)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "blocked" in names
        assert caught.value.reason is stream.outcome.reason
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    async def test_raised_once(self) -> None:
        """E11: it is raised once, then the stream has ended."""
        async with with_timeout(blocked(Log()), idle=5) as stream:
            with pytest.raises(StreamTimeout):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


class TestGrace:
    async def test_clean_up_takes_too_long(self) -> None:
        """T5: a clean-up of 10 s with a grace of 0.05 s is cut in time."""
        log = Log()
        outcome = await watch(with_timeout(slow_to_stop(log, 10), idle=5, grace=0.05), log)
        assert log == [(5.05, "clean-up: cancelled"), (5.05, f"consumer: {IDLE}")]
        assert (outcome.kind, outcome.grace_exceeded) == ("timed_out", True)

    async def test_swallowed(self) -> None:
        """T5: so is a source that goes on."""
        log = Log()

        async def source() -> AsyncGenerator[int, None]:
            number = 0
            while True:
                try:
                    await anyio.sleep(2)
                    number += 1
                    yield number
                except StreamCancelled:
                    pass

        outcome = await watch(with_timeout(source(), total=5, grace=3), log)
        assert log == [(2, 1), (4, 2), (7, 3), (8, f"consumer: {TOTAL}")]
        assert outcome.grace_exceeded

    async def test_outer_deadline(self) -> None:
        """T6: a scope around the stream that expires in the grace waits for the clean-up."""
        log = Log()

        async def source() -> AsyncGenerator[str, None]:
            try:
                await anyio.sleep_forever()
                yield "never"
            except StreamCancelled as stop:
                log(f"source: {stop.reason}")
                await anyio.sleep(3)
                log("cleaned up")
                raise

        with anyio.move_on_after(6) as scope:
            await watch(with_timeout(source(), idle=5), log)
        assert scope.cancelled_caught
        assert log == [(5, f"source: {IDLE}"), (8, "cleaned up")]

    async def test_outer_deadline_and_hanging_clean_up(self) -> None:
        """T6: and the grace bounds that wait."""
        log = Log()
        stream = with_timeout(slow_to_stop(log, 100), idle=5, grace=3)
        with anyio.move_on_after(6) as scope:
            await watch(stream, log)
        assert scope.cancelled_caught
        assert log == [(8, "clean-up: cancelled")]
        assert stream.outcome.kind == "timed_out"
        assert stream.outcome.grace_exceeded

    async def test_outer_deadline_first(self) -> None:
        """T6: one that expires before the limit makes the consumer leave, and is no timeout."""
        log = Log()
        stream = with_timeout(blocked(log), idle=5)
        with anyio.move_on_after(4) as scope:
            await watch(stream, log)
        assert scope.cancelled_caught
        assert log == [(4, "source: told that the consumer has left"), (4, "closed")]
        assert stream.outcome.kind == "closed"

    async def test_of_another_combinator(self) -> None:
        """G10: how long the source may take to close otherwise is not its business."""

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                await anyio.sleep_forever()

        inner = with_cancellation(source(), grace=2)
        async with with_timeout(inner, idle=5, grace=100) as stream:
            assert await anext(stream) == "a"
        assert anyio.current_time() == START + 2


class TestStatus:
    async def test_head_raises(self) -> None:
        """S3: head() raises the StreamTimeout that comes before the first item, nothing else."""
        log = Log()
        log.start()
        async with with_status(with_timeout(blocked(log), first=5)) as stream:
            with pytest.raises(StreamTimeout, match=FIRST):
                await stream.head()
            log("head")
            assert [item async for item in stream] == []
            assert (await stream.head()).decided_by == "error"
        assert log == [(5, f"source: told to {FIRST}"), (5, "closed"), (5, "head")]
        assert stream.outcome.kind == "timed_out"

    async def test_wait_in_head_counts(self) -> None:
        """S5: the wait in head() counts, also if it ends before there is an item."""
        log = Log()
        inner = with_timeout(blocked(log), idle=5)
        async with with_status(inner, first_item_within=3) as stream:
            assert (await stream.head()).decided_by == "timeout"
            await anyio.sleep(100)
            log.start()
            with pytest.raises(StreamTimeout, match=IDLE):
                await anext(stream)
        assert log == [(2, f"source: told to {IDLE}"), (2, "closed")]

    async def test_time_after_head_does_not_count(self) -> None:
        """S1: once head() has an item, the consumer may take its time."""
        async with with_status(with_timeout(blocked(Log(), "a"), idle=5)) as stream:
            assert (await stream.head()).decided_by == "item"
            await anyio.sleep(100)
            assert (await stream.head()).decided_by == "item"
            assert await anext(stream) == "a"
            assert not stream.ended

    async def test_final_and_on_end(self) -> None:
        """S8: on_end and final are given the outcome; what final returns replaces the error."""
        log = Log()

        async def on_end(outcome: Outcome) -> None:
            log(f"on_end: {outcome.kind}")

        def final(outcome: Outcome) -> str:
            return f"[{outcome.reason}]"

        stream = with_status(with_timeout(blocked(log, "a"), idle=5), final=final, on_end=on_end)
        outcome = await watch(stream, log)
        assert log.events == [
            "a",
            f"source: told to {IDLE}",
            "closed",
            "on_end: timed_out",
            f"[{IDLE}]",
            "end",
        ]
        assert outcome.items == 1


class TestConsumer:
    async def test_leaves_at_the_same_time(self) -> None:
        """S10: a consumer that leaves without asking again is not bothered."""
        log = Log()
        async with with_timeout(blocked(log, "a"), total=5) as stream:
            assert await anext(stream) == "a"
            await anyio.sleep(10)
        assert log.events == [f"source: told to {TOTAL}", "closed"]
        assert stream.outcome.kind == "timed_out"

    async def test_leaves_in_the_grace(self) -> None:
        """S10: nor is one that leaves while the source reacts."""
        log = Log()
        async with with_timeout(slow_to_let_out(log), total=5) as stream:
            with anyio.move_on_after(6):
                await anext(stream)
        assert log.events == ["cleaned up"]
        assert stream.outcome.kind == "timed_out"

    async def test_raises_at_the_same_time(self) -> None:
        """E3: an error of the body leaves alone."""
        error = LookupError("body")
        with pytest.raises(LookupError) as caught:
            async with with_timeout(blocked(Log(), "a"), total=5) as stream:
                assert await anext(stream) == "a"
                await anyio.sleep(10)
                raise error
        assert caught.value is error
        assert stream.outcome.kind == "timed_out"

    async def test_closes_and_on_end_fails(self) -> None:
        """E12: what fails beside it is not lost with it."""

        async def on_end(outcome: Outcome) -> None:
            raise LookupError(outcome.kind)

        with pytest.raises(LookupError, match="timed_out"):
            async with with_status(
                with_timeout(blocked(Log(), "a"), total=5), on_end=on_end
            ) as stream:
                assert await anext(stream) == "a"
                await anyio.sleep(10)

    async def test_timeout_of_an_inner_stream(self) -> None:
        """E3: that of a stream inside the source is an error like any other, and is not lost."""

        async def outer() -> AsyncGenerator[object, None]:
            async with with_timeout(blocked(Log()), idle=5) as inner:
                async for item in inner:
                    yield item

        stream = with_cancellation(outer())
        with pytest.raises(StreamTimeout, match=IDLE):
            async with stream:
                with anyio.move_on_after(1):
                    await anext(stream)
                await anyio.sleep(10)
        assert stream.outcome.kind == "failed"
        assert isinstance(stream.outcome.error, StreamTimeout)

    async def test_is_cancelled_at_the_deadline(self) -> None:
        """C10: a scope around one ask and a limit in the same tick: both are seen."""
        for _ in range(REPEATS):
            log = Log()
            async with with_timeout(blocked(log), idle=5) as stream:
                log.start()
                with anyio.move_on_after(5) as scope:
                    await anext(stream)
                assert scope.cancelled_caught
                with pytest.raises(StreamTimeout):
                    await anext(stream)
            assert log == [(5, f"source: told to {IDLE}"), (5, "closed")]

    @pytest.mark.usefixtures("no_collector")
    async def test_no_cycle(self) -> None:
        """E10: nothing holds the frame of the source when the error is gone."""
        anchors: list[weakref.ref[Anchor]] = []

        async def source() -> AsyncGenerator[int, None]:
            anchor = Anchor()
            anchors.append(weakref.ref(anchor))
            yield 1
            await anyio.sleep_forever()
            del anchor

        async def consume(stream: Stream[int]) -> None:
            async with stream:
                async for _ in stream:
                    pass

        stream = with_timeout(source(), idle=5, total=50)
        with contextlib.suppress(StreamTimeout):
            await consume(stream)
        assert stream.outcome.kind == "timed_out"
        del stream
        assert [anchor() for anchor in anchors] == [None]


class Anchor:
    """Something in the source's frame that shows whether the frame still lives."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def slow_to_let_out(log: Log) -> AsyncGenerator[str, None]:
    try:
        await anyio.sleep_forever()
        yield "never"
    finally:
        await anyio.sleep(3)
        log("cleaned up")


class TestChains:
    async def test_twice(self) -> None:
        """T1: two in a chain: each has its limits, and they may be the same."""
        for inner, outer in ({"idle": 5}, {"total": 9}), ({"total": 9}, {"idle": 5}):
            log = Log()
            source = spaced(log, (4, "a"), (100, "b"))
            outcome = await watch(with_timeout(with_timeout(source, **inner), **outer), log)
            assert log.events[0] == "a"
            assert (outcome.reason, outcome.ended_at - outcome.started_at) in [
                (TimedOut("idle", 5), 9),
                (TimedOut("total", 9), 9),
            ]

    async def test_twice_with_a_busy_consumer(self) -> None:
        """T2: both find out when the consumer waits again."""
        for inner, outer in (5, 6), (6, 5):
            log = Log()
            stream = with_timeout(blocked(log, "a"), idle=inner)
            await watch(with_timeout(stream, idle=outer), log, busy=100)
            assert log == [
                *[(0, "a"), (105, f"source: told to {IDLE}"), (105, "closed")],
                (105, f"consumer: {IDLE}"),
            ]

    async def test_is_one_stream(self) -> None:
        """T1: on top of a stream it is the same stream, with one source task."""
        inner = with_cancellation(aiter_of(1))
        async with with_timeout(inner, idle=5) as stream:
            assert [item async for item in stream] == [1]
        assert inner.outcome is stream.outcome


class TestArguments:
    def test_no_limit(self) -> None:
        """T1: no limit at all is an error that says what to write."""
        with pytest.raises(ValueError, match=r"needs a limit: write with_timeout\(source, idle="):
            with_timeout(aiter_of(1))

    @pytest.mark.parametrize("name", ["first", "idle", "total"])
    @pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
    def test_value(self, name: str, value: float) -> None:
        """T1: a limit that is not finite or not positive is rejected, and says what to write."""
        with pytest.raises(ValueError, match=rf"^{name} must be .* > 0.*write {name}="):
            with_timeout(aiter_of(1), **{name: value})

    @pytest.mark.parametrize("name", ["first", "idle", "total"])
    @pytest.mark.parametrize("value", [True, "1"])
    def test_type(self, name: str, value: Any) -> None:
        """T1: a bool is no number of seconds, and neither is a string."""
        with pytest.raises(TypeError, match=rf"^{name} must be .*write {name}="):
            with_timeout(aiter_of(1), **{name: value})

    def test_grace(self) -> None:
        """T5: neither is a grace that is negative; one of zero is allowed."""
        with pytest.raises(ValueError, match=r"^grace must be .*write grace="):
            with_timeout(aiter_of(1), idle=5, grace=-1)
        with_timeout(aiter_of(1), idle=5, grace=0)

    def test_positional(self) -> None:
        """T1: a number without a name could be any of them."""
        with pytest.raises(TypeError, match=r"by name, got 5 without one: write .*idle=30\.0"):
            with_timeout(aiter_of(1), 5)  # type: ignore[call-arg]

    def test_source(self) -> None:
        """T1: what is no source is rejected as everywhere."""
        with pytest.raises(TypeError, match="expected an async iterable"):
            with_timeout([1], idle=5)  # type: ignore[arg-type]


class TestError:
    def test_is_a_timeout_error(self) -> None:
        """T1: it is a TimeoutError that says what was too slow, and survives pickling."""
        for limit, message in ("first", FIRST), ("idle", IDLE), ("total", TOTAL):
            reason = TimedOut(limit, 5)  # type: ignore[arg-type]
            error = StreamTimeout(reason)
            assert isinstance(error, TimeoutError)
            assert str(error) == str(reason) == message
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is StreamTimeout
            assert copy.reason == reason


class Measures(Stage[Any, Any]):
    """A limit of a user's own, on what the consumer waits in all."""

    def __init__(self, error: Callable[[Any], BaseException]) -> None:
        self.error = error
        self.log: list[tuple[float, float]] = []

    def lifespan(self, control: Control) -> Any:
        assert control.waited == 0
        return super().lifespan(control)

    async def run(self, control: Control) -> None:
        assert control.started_at == anyio.current_time()
        for seconds, pause in (3, 5), (3.5, 0), (2, 0), (5, 0):
            await control.until_waited(seconds)
            self.log.append((anyio.current_time() - START, control.waited))
            await anyio.sleep(pause)
        control.cancel("slow", grace=1, kind="timed_out", error=self.error)


class TestControl:
    async def test_measure(self) -> None:
        """T2: a stage may measure the waits itself, and say what they end in."""
        stage = Measures(lambda reason: LookupError(f"too {reason}"))
        async with with_stage(spaced(Log(), *[(2, n) for n in range(9)]), stage) as stream:
            for number in range(2):
                assert await anext(stream) == number
                await anyio.sleep(10)
            with pytest.raises(LookupError, match="too slow"):
                await anext(stream)
            assert anyio.current_time() == START + 25
        # At 18, the consumer is busy, and has waited for long enough.
        assert stage.log == [(13, 3), (18, 4), (18, 4), (25, 5)]
        assert (stream.outcome.kind, stream.outcome.reason) == ("timed_out", "slow")
        assert stream.outcome.error is None

    async def test_error_fails(self) -> None:
        """E1: what the making of the error raises comes in its place, with the source closed."""
        error = KeyError("made")

        def fails(reason: object) -> BaseException:
            raise error

        probe = Probe("a", block=True)
        async with with_stage(probe.source(), Measures(fails)) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(KeyError) as caught:
                await anext(stream)
        assert caught.value is error
        assert probe.closed == 1
        assert stream.outcome.kind == "timed_out"
