"""Beats: when one is due, when none is, and what it says."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio

from chains import ORDERS, Chain, wrap
from streamkit import (
    CancelToken,
    Idle,
    Stream,
    StreamCancelled,
    with_cancellation,
    with_keepalive,
    with_status,
)
from support import START, Log, PlainSource, Probe, aiter_of, on_trio, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")

# How often a case is run whose outcome may depend on the order in which tasks are scheduled.
REPEATS = 30


async def spaced(*steps: tuple[float, T]) -> AsyncGenerator[T, None]:
    """Yield each item so many seconds after it has been asked for."""
    for seconds, item in steps:
        await anyio.sleep(seconds)
        yield item


async def received(stream: Stream[Any], seconds: float = math.inf, *, busy: float = 0.0) -> Log:
    """Return what a consumer gets within some seconds, who is busy after each item and beat."""
    log = Log()
    log.start()
    with anyio.move_on_after(seconds):
        async for item in stream:
            log(item)
            if busy:
                await anyio.sleep(busy)
    return log


def jump(seconds: float) -> None:
    """Let the clock go on as if the event loop had been held up."""
    if on_trio():
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        loop: Any = asyncio.get_running_loop()
        loop._now += seconds


class TestWhenDue:
    @pytest.mark.parametrize("chain", [("keepalive",), *ORDERS], ids="+".join)
    async def test_idle(self, chain: Chain) -> None:
        """K1: a beat after each interval of silence."""
        probe = Probe[int](block=True)
        async with wrap(probe.source(), chain, interval=10) as stream:
            log = await received(stream, 35)
        assert log == [(10, "beat"), (20, "beat"), (30, "beat")]
        assert stream.outcome.beats == 3
        assert stream.outcome.items == 0
        assert probe.closed == 1

    async def test_between_items(self) -> None:
        """K1: beats before, between and after items, each at its time."""
        source = spaced((25, "a"), (5, "b"), (12, "c"))
        async with with_keepalive(source, 10, "-") as stream:
            log = await received(stream)
        assert log == [(10, "-"), (20, "-"), (25, "a"), (30, "b"), (40, "-"), (42, "c")]

    async def test_items_come_faster(self) -> None:
        """K2: items at 0.9 of the interval: no beat, for as long as they come."""
        async with with_keepalive(Probe(*range(50), every=9).source(), 10, "beat") as stream:
            log = await received(stream)
        assert log == [(9.0 * (n + 1), n) for n in range(50)]
        assert stream.outcome.beats == 0

    @pytest.mark.parametrize("busy", [0, 3, 10, 13])
    @pytest.mark.parametrize("beats", [0, 1, 2])
    async def test_item_at_the_deadline(self, beats: int, busy: float) -> None:
        """K3: an item that comes at the moment of a beat is what the consumer gets."""
        # The consumer is busy after a beat as well, and the source goes on meanwhile.
        due = 10 * (beats + 1) + busy * beats
        source = spaced(*[(due, n) for n in range(REPEATS)])
        async with with_keepalive(source, 10, "beat") as stream:
            log = await received(stream, busy=busy)
        assert log.events == [e for n in range(REPEATS) for e in (*["beat"] * beats, n)]

    async def test_item_is_ready(self) -> None:
        """K3: what became ready while the consumer was busy comes at once, without a beat."""
        async with with_keepalive(spaced((15, "a"), (1, "b")), 10, "beat") as stream:
            log = await received(stream, busy=40)
        assert log == [(10, "beat"), (50, "a"), (91, "b")]

    @pytest.mark.parametrize("busy", [7, 10, 1000])
    async def test_consumer_is_busy(self, busy: float) -> None:
        """K5: no beat is due, and none waits, while the consumer is elsewhere."""
        async with with_keepalive(spaced((1, "a"), (2, "b")), 10, "beat") as stream:
            log = await received(stream, busy=busy)
        assert log == [(1, "a"), (3 + busy, "b")]

    async def test_one_at_a_time(self) -> None:
        """K6: a consumer that is busy after a beat finds no second one waiting."""
        async with with_keepalive(Probe[int](block=True).source(), 10, "beat") as stream:
            log = await received(stream, 150, busy=33)
        assert log == [(10, "beat"), (53, "beat"), (96, "beat"), (139, "beat")]

    async def test_two_in_a_chain(self) -> None:
        """K6: two of them that are due together give one beat, and the clock is one for both."""
        inner = with_keepalive(Probe[int](block=True).source(), 10, "beat")
        async with with_keepalive(inner, 10, "beat") as stream:
            log = await received(stream, 35)
        assert log == [(10, "beat"), (20, "beat"), (30, "beat")]

    async def test_slower_one_in_a_chain(self) -> None:
        """K8: the beats of one restart the clock of another, which is slower and never due."""
        inner = with_keepalive(Probe[int](block=True).source(), 15, "slow")
        async with with_keepalive(inner, 10, "fast") as stream:
            log = await received(stream, 35)
        assert log == [(10, "fast"), (20, "fast"), (30, "fast")]

    async def test_before_the_first_ask(self) -> None:
        """K7: a stream that is open but not asked has no beat due."""
        async with with_keepalive(Probe[int](block=True).source(), 10, "beat") as stream:
            await anyio.sleep(95)
            log = await received(stream, 25)
        assert log == [(10, "beat"), (20, "beat")]

    async def test_initial(self) -> None:
        """K7: with initial=True the first ask is answered at once, before the source starts."""
        probe = Probe("a", every=25)
        async with with_keepalive(probe.source(), 10, "beat", initial=True) as stream:
            await anyio.sleep(3)
            assert await anext(stream) == "beat"
            await wait_all_blocked()
            assert not probe.started
            log = await received(stream)
        assert log == [(10, "beat"), (20, "beat"), (25, "a")]
        assert stream.outcome.beats == 3

    @pytest.mark.parametrize(
        ("error", "expected"),
        [(None, StopAsyncIteration), (LookupError("source"), LookupError)],
        ids=["end", "error"],
    )
    async def test_after_the_end(
        self, error: BaseException | None, expected: type[BaseException]
    ) -> None:
        """K7: after the end or an error nothing comes but the end, however long one asks."""
        async with with_keepalive(Probe("a", error=error).source(), 10, "beat") as stream:
            assert await anext(stream) == "a"
            with pytest.raises(expected):
                await anext(stream)
            for _ in range(3):
                await anyio.sleep(33)
                with pytest.raises(StopAsyncIteration):
                    await anext(stream)
        assert stream.outcome.beats == 0

    async def test_while_on_end_takes_its_time(self) -> None:
        """K7: nor before the end, while the consumer still waits and ``on_end`` is not done."""

        async def on_end(outcome: object) -> None:
            await anyio.sleep(4.5)

        stream = with_keepalive(Probe("a", every=5).source(), 3, "beat")
        async with with_status(stream, on_end=on_end) as stream:
            log = await received(stream)
            log("end")
        assert log == [(3, "beat"), (5, "a"), (9.5, "end")]

    @pytest.mark.parametrize("chain", [c for c in ORDERS if c[-1] == "status"], ids="+".join)
    async def test_during_grace(self, chain: Chain) -> None:
        """K7: beats go on while the source cleans up, and end when the cancellation came out."""

        async def source() -> AsyncGenerator[str, None]:
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                await anyio.sleep(3.5)
                yield "last"
                raise
            yield "never"

        token = CancelToken()
        log = Log()
        async with (
            anyio.create_task_group() as tasks,
            wrap(source(), chain, token=token, interval=1) as stream,
        ):
            log.start()
            tasks.start_soon(_fire_after, 1.5, token)
            with pytest.raises(StreamCancelled, match="stop"):
                async for item in stream:
                    log(item)
            await anyio.sleep(10)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert log == [(1, "beat"), (2, "beat"), (3, "beat"), (4, "beat"), (5, "last")]
        assert stream.outcome.beats == 4
        assert stream.outcome.items == 1

    async def test_clock_restarts(self) -> None:
        """K8: each ask starts the clock anew, after an item and after a beat."""
        source = spaced((4, "a"), (100, "b"))
        async with with_keepalive(source, 10, "beat") as stream:
            log = await received(stream, 60, busy=5)
        # asked at 0, 9, 24, 39 and 54
        assert log == [(4, "a"), (19, "beat"), (34, "beat"), (49, "beat")]

    async def test_clock_restarts_after_a_cancelled_ask(self) -> None:
        """K8: an ask that was cancelled does not count: only the present one does."""
        async with with_keepalive(Probe[int](block=True).source(), 10, "beat") as stream:
            for _ in range(5):
                assert await received(stream, 9) == []
            assert await received(stream, 11) == [(10, "beat")]

    async def test_ask_is_cancelled_at_the_beat(self) -> None:
        """K8: a beat that came for an ask that was cancelled is none for a later ask."""
        scope = anyio.CancelScope()

        def beat(idle: Idle[int]) -> str:
            scope.cancel()
            return "beat"

        async with with_keepalive(Probe[int](block=True).source(), 10, beat) as stream:
            with scope:
                await anext(stream)
                raise AssertionError("the ask was cancelled")
            await anyio.sleep(15)
            assert await received(stream, 15) == [(10, "beat")]

    async def test_source_is_left_alone(self) -> None:
        """K9: no beat cancels, delays or repeats an ask: the source has been asked for once."""
        asked = 0

        class Source(PlainSource[str]):
            async def __anext__(self) -> str:
                nonlocal asked
                asked += 1
                try:
                    await anyio.sleep(95)
                except BaseException:
                    raise AssertionError("the source was disturbed") from None
                return await super().__anext__()

        async with with_keepalive(Source("a", "b"), 10, "beat") as stream:
            log = await received(stream)
        assert [entry for entry in log if entry[1] != "beat"] == [(95, "a"), (190, "b")]
        assert log.events.count("beat") == 9 + 9 + 9
        assert asked == 3

    async def test_late_wake(self) -> None:
        """K12: a loop that was held up for several intervals sends one beat, not several."""
        async with (
            anyio.create_task_group() as tasks,
            with_keepalive(Probe[int](block=True).source(), 10, "beat") as stream,
        ):

            @tasks.start_soon
            async def load() -> None:
                await anyio.sleep(5)
                jump(33)

            log = await received(stream, 60)
        assert log == [(38, "beat"), (48, "beat"), (58, "beat")]

    async def test_coarse_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """K13: a clock whose reads are equal for several intervals does not stop the beats."""
        exact = anyio.current_time
        async with with_keepalive(Probe[int](block=True).source(), 10, "beat") as stream:
            with monkeypatch.context() as patch:
                patch.setattr(anyio, "current_time", lambda: exact() // 500 * 500)
                beats = [(await anext(stream), exact() - START) for _ in range(5)]
        assert beats == [("beat", 10), ("beat", 20), ("beat", 30), ("beat", 40), ("beat", 50)]


class TestInterval:
    @pytest.mark.parametrize("interval", [0, -1, -0.5, math.nan, math.inf, -math.inf])
    def test_value(self, interval: float) -> None:
        """K4: an interval that is not finite or not positive is rejected, and says what to write"""
        with pytest.raises(ValueError, match=r"interval must be .* > 0.*write interval="):
            with_keepalive(aiter_of(1), interval, "beat")

    @pytest.mark.parametrize("interval", [True, False, "1", None])
    def test_type(self, interval: Any) -> None:
        """K4: a bool is no number of seconds, and neither is a string."""
        with pytest.raises(TypeError, match=r"interval must be .*write interval="):
            with_keepalive(aiter_of(1), interval, "beat")

    @pytest.mark.parametrize("interval", [1, 0.001, 1e9])
    async def test_accepted(self, interval: float) -> None:
        """K4: any other number is an interval."""
        async with with_keepalive(Probe[int](block=True).source(), interval, "beat") as stream:
            log = await received(stream, interval * 1.5)
        assert log == [(interval, "beat")]


class TestIdle:
    async def test_what_it_says(self) -> None:
        """K10: the last item, how long ago it came, and how many beats there were since."""
        source = spaced((25, "a"), (5, "b"), (35, "c"))
        async with with_keepalive(source, 10, lambda idle: idle) as stream:
            log = await received(stream)
        assert log == [
            (10, Idle(None, 10, 1)),
            (20, Idle(None, 20, 2)),
            (25, "a"),
            (30, "b"),
            (40, Idle("b", 10, 1)),
            (50, Idle("b", 20, 2)),
            (60, Idle("b", 30, 3)),
            (65, "c"),
        ]

    async def test_busy_consumer(self) -> None:
        """K10: the silence is the source's: what the consumer does meanwhile is part of it."""
        source = spaced((1, "a"), (1000, "b"))
        async with with_keepalive(source, 10, lambda idle: idle) as stream:
            log = await received(stream, 60, busy=7)
        assert log == [
            (1, "a"),
            (18, Idle("a", 17, 1)),
            (35, Idle("a", 34, 2)),
            (52, Idle("a", 51, 3)),
        ]

    async def test_first_ask_was_cancelled(self) -> None:
        """K10: without an item the silence counts from the first ask, answered or not."""
        async with with_keepalive(Probe[int](block=True).source(), 10, lambda idle: idle) as stream:
            assert await received(stream, 4) == []
            await anyio.sleep(6)
            assert await received(stream, 15) == [(10, Idle(None, 20, 1))]

    async def test_initial(self) -> None:
        """K10: the initial beat is the first of its silence, which has not begun."""
        async with with_keepalive(spaced((25, "a")), 10, lambda idle: idle, initial=True) as stream:
            log = await received(stream)
        assert log == [
            (0, Idle(None, 0, 1)),
            (10, Idle(None, 10, 2)),
            (20, Idle(None, 20, 3)),
            (25, "a"),
        ]

    @pytest.mark.parametrize("item", [None, 0, "", ()])
    async def test_falsy_item(self, item: object) -> None:
        """K10: a falsy item is the last item, as any other."""
        source = spaced((15, "a"), (1, item), (15, "b"))
        async with with_keepalive(source, 10, lambda idle: idle) as stream:
            log = await received(stream)
        assert log.events == [Idle(None, 10, 1), "a", item, Idle(item, 10, 1), "b"]

    async def test_item_at_the_deadline(self) -> None:
        """K10: a beat that loses to an item does not count, and is not made after the item."""
        made = []

        def beat(idle: Idle[int]) -> Idle[int]:
            made.append(idle)
            return idle

        source = spaced(*[(10, n) for n in range(REPEATS)], (15, -1))
        async with with_keepalive(source, 10, beat) as stream:
            events = (await received(stream)).events
        assert events == [*range(REPEATS), Idle(REPEATS - 1, 10, 1), -1]
        # It may have been made in the same moment, just before the item was there.
        assert {(idle.silent_for, idle.count) for idle in made} == {(10, 1)}

    async def test_two_in_a_chain(self) -> None:
        """K10: a beat for which another one came first is not made."""
        made = []

        def beat(idle: Idle[int]) -> int:
            made.append(idle.count)
            return idle.count

        inner = with_keepalive(Probe[int](block=True).source(), 10, beat)
        async with with_keepalive(inner, 10, beat) as stream:
            log = await received(stream, 15)
        assert log == [(10, 1)]
        assert made == [1]

    async def test_item_that_is_no_callable(self) -> None:
        """K10: a beat that cannot be called is the item itself, passed through untouched."""
        for beat in (None, 0, b"", Idle(None, 0, 0), ValueError("an item")):
            async with with_keepalive(Probe[int](block=True).source(), 10, beat) as stream:
                assert await anext(stream) is beat


class TestFactoryRaises:
    async def test_while_idle(self) -> None:
        """K11: the error of a factory ends the stream: the source is closed, then it is raised."""
        probe = Probe("a", block=True)
        error = LookupError("no beat")

        def beat(idle: Idle[str]) -> str:
            raise error

        async with with_keepalive(probe.source(), 10, beat) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value is error
            assert probe.closed == 1
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert stream.outcome.kind == "failed"
        assert stream.outcome.error is error
        assert stream.outcome.beats == 0
        assert stream.outcome.ended_at - stream.outcome.started_at == 10

    async def test_initial(self) -> None:
        """K11: a factory that raises for the initial beat: entering the block does, source closed.

        The source does not start.
        """
        probe = Probe("a")

        def beat(idle: Idle[str]) -> str:
            raise LookupError("no beat")

        stream = with_keepalive(probe.source(), 10, beat, initial=True)
        with pytest.raises(LookupError, match="no beat"):
            async with stream:
                raise AssertionError("must not be entered")
        assert not probe.started

    async def test_cancelled_meanwhile(self) -> None:
        """K11: a factory that raises in the grace of a cancellation changes nothing but the error.

        The cancellation came first, so it stays the kind of the outcome.
        """
        error = LookupError("no beat")
        token = CancelToken()

        async def source() -> AsyncGenerator[str, None]:
            try:
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(4)
            yield "never"

        def beat(idle: Idle[str]) -> str:
            raise error

        async with (
            anyio.create_task_group() as tasks,
            with_keepalive(with_cancellation(source(), token), 10, beat) as stream,
        ):
            tasks.start_soon(_fire_after, 8, token)
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value is error
        assert stream.outcome.kind == "cancelled"
        assert stream.outcome.reason == "stop"
        assert stream.outcome.error is error


async def _fire_after(seconds: float, token: CancelToken) -> None:
    await anyio.sleep(seconds)
    token.cancel("stop")
