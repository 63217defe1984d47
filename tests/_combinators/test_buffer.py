"""``with_buffer``: how far the source runs ahead, and what becomes of the items that wait."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from chains import Chain, wrap
from observing import blocked, consume, kind
from streamkit import (
    SKIP,
    CancelToken,
    Control,
    Head,
    Skip,
    Stage,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from support import Log, Probe, aiter_of, live_tasks, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from streamkit import Outcome

# A buffer alone, and one between the others: where it stands does not matter.
BUFFERED: list[Chain] = [("buffer",), ("cancellation", "buffer", "keepalive", "status")]

any_buffered = pytest.mark.parametrize("chain", BUFFERED, ids="+".join)


class Even(Stage[int, int]):
    def on_item(self, item: int) -> int | Skip:
        return SKIP if item % 2 else item


class Turns:
    """Counts how often another task gets its turn."""

    def __init__(self) -> None:
        self.number = 0

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            await wait_until(lambda: self.number > 0)
            self.number = 0
            yield
            tasks.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            self.number += 1
            await anyio.lowlevel.checkpoint()


async def wait_until(condition: Any) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


class TestSize:
    @pytest.mark.parametrize(
        ("size", "produced"), [(0, 1), (1, 2), (3, 4), (math.inf, 20)], ids=str
    )
    async def test_accepted(self, size: float, produced: int) -> None:
        """B3: sizes 0, 1, n, inf: so many items are read ahead."""
        probe = Probe(*range(20))
        async with with_buffer(probe.source(), size) as stream:
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert len(probe.produced) == produced

    @pytest.mark.parametrize("size", [True, False, None, "16", b"1", 1j])
    def test_no_number(self, size: Any) -> None:
        """B3: True, None, strings: a ``TypeError`` that says what to write."""
        with pytest.raises(TypeError, match=r"size must be an int >= 0.* write size=64"):
            with_buffer(aiter_of(1), size)

    @pytest.mark.parametrize("size", [-1, 1.5, 2.0, math.nan, -math.inf])
    def test_wrong_number(self, size: float) -> None:
        """B3: negative, 1.5, nan: a ``ValueError`` that says what to write."""
        with pytest.raises(ValueError, match=r"size must be an int >= 0.* write size=64"):
            with_buffer(aiter_of(1), size)

    def test_source(self) -> None:
        """B3: what is no source is a ``TypeError``, as everywhere."""
        with pytest.raises(TypeError, match="sync iterable"):
            with_buffer([1], 2)  # type: ignore[arg-type]


class TestCount:
    """How far the source is ahead of its consumer."""

    @any_buffered
    @pytest.mark.parametrize("size", [0, 1, 5])
    async def test_after_each_item(self, chain: Chain, size: int) -> None:
        """B2: k items taken, then a pause: exactly k + n are produced."""
        probe = Probe(*range(20))
        async with wrap(probe.source(), chain, size=size) as stream:
            await anyio.sleep(100)
            assert not probe.started
            taken = 0
            async for item in stream:
                assert item == taken
                taken += 1
                await wait_all_blocked()
                assert len(probe.produced) == min(taken + size, 20)
        assert (taken, stream.outcome.items, probe.closed) == (20, 20, 1)

    async def test_over_time(self) -> None:
        """B2: the source goes on while the consumer is busy, and stops when it is n ahead."""
        log = Log()

        async def source() -> AsyncGenerator[int, None]:
            for number in range(6):
                await anyio.sleep(1)
                log(f"made {number}")
                yield number

        await consume(with_buffer(source(), 2), log, busy=10)
        assert log == [
            (1, "made 0"),
            (1, 0),
            (2, "made 1"),
            (3, "made 2"),
            (11, 1),
            (12, "made 3"),
            (21, 2),
            (22, "made 4"),
            (31, 3),
            (32, "made 5"),
            (41, 4),
            (51, 5),
            (61, "end"),
        ]

    async def test_several_add_up(self) -> None:
        """B2: two buffers in a chain are one of both sizes, wherever they stand."""
        probe = Probe(*range(20))
        inner = with_buffer(probe.source(), 2)
        async with with_buffer(with_keepalive(inner, 1000, "beat"), 3) as stream:
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert len(probe.produced) == 1 + 5

    async def test_a_stage_that_reads_ahead(self) -> None:
        """B2: the attribute of a user's own stage does the same."""

        class Hurries(Stage[int, int]):
            read_ahead = 3

        probe = Probe(*range(20))
        async with with_stage(probe.source(), Hurries()) as stream:
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert len(probe.produced) == 1 + 3

    @pytest.mark.parametrize("outside", [True, False])
    async def test_skipped_items(self, outside: bool) -> None:
        """B2: n items that the consumer will receive: those that a stage skips do not count."""
        probe = Probe(*range(20))
        if outside:
            stream = with_stage(with_buffer(probe.source(), 2), Even())
        else:
            stream = with_buffer(with_stage(probe.source(), Even()), 2)
        async with stream:
            for number in range(3):
                assert await anext(stream) == 2 * number
                await wait_all_blocked()
                assert probe.produced[-1] == 2 * (number + 2)
            assert [item async for item in stream] == list(range(6, 20, 2))
        assert stream.outcome.items == 10

    async def test_metadata(self) -> None:
        """B2: neither does what is no item."""
        produced = []

        async def source() -> AsyncGenerator[int | Head, None]:
            yield Head(201)
            for number in range(20):
                produced.append(number)
                yield number

        async with with_status(with_buffer(source(), 2)) as stream:
            assert (await stream.head()).status == 201
            await wait_all_blocked()
            assert produced == [0, 1]

    async def test_initial_beat(self) -> None:
        """B2: an ask that is answered with a beat put first starts no source, and no read-ahead."""
        probe = Probe(*range(20))
        stream = with_keepalive(with_buffer(probe.source(), 2), 10, "beat", initial=True)
        async with stream:
            assert await anext(stream) == "beat"
            await anyio.sleep(100)
            assert not probe.started
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert len(probe.produced) == 3

    @any_buffered
    async def test_cancelled_ask(self, chain: Chain) -> None:
        """B2: an ask that is cancelled is an ask: n items are read, and are there for the next."""
        probe = Probe(*range(5), every=10)
        async with wrap(probe.source(), chain, size=2) as stream:
            with anyio.move_on_after(4):
                await anext(stream)
            await anyio.sleep(100)
            assert probe.produced == [0, 1]
            assert [item async for item in stream] == [0, 1, 2, 3, 4]

    @any_buffered
    async def test_consumer_waits(self, chain: Chain) -> None:
        """B4: the ask is cancelled as an item arrives: it stays, and the source is n ahead of it.

        The moment is every one of those from just before the source wakes to well after the item.
        """
        for ticks in range(8):
            gate = anyio.Event()
            scope = anyio.CancelScope()
            got: list[int] = []
            produced: list[int] = []

            async def source(
                gate: anyio.Event = gate, produced: list[int] = produced
            ) -> AsyncGenerator[int, None]:
                await gate.wait()
                for number in range(9):
                    produced.append(number)
                    yield number

            async def cancel(
                gate: anyio.Event = gate, scope: anyio.CancelScope = scope, ticks: int = ticks
            ) -> None:
                await wait_all_blocked()
                if ticks:
                    gate.set()
                for _ in range(ticks - 1):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
                gate.set()

            async with (
                anyio.create_task_group() as tasks,
                wrap(source(), chain, size=3) as stream,
            ):
                tasks.start_soon(cancel)
                with scope:
                    got.append(await anext(stream))
                await wait_all_blocked()
                assert len(produced) == len(got) + 3
                got += [item async for item in stream]
            assert got == list(range(9))
            assert stream.outcome.items == 9

    @pytest.mark.asyncio_only
    async def test_native_cancel(self) -> None:
        """B4: the same with ``Task.cancel()``, also where items wait and the ask has no await."""
        for ticks in range(8):
            got: list[int] = []
            gate = asyncio.Event()

            async def source(gate: asyncio.Event = gate) -> AsyncGenerator[int, None]:
                await gate.wait()
                for number in range(9):
                    yield number

            async def ask(stream: Any, got: list[int] = got) -> None:
                for _ in range(3):
                    got.append(await anext(stream))

            async with with_buffer(source(), 3) as stream:
                asking = asyncio.create_task(ask(stream))
                await wait_all_blocked()
                gate.set()
                for _ in range(ticks):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait([asking])
                got += [item async for item in stream]
            assert got == list(range(9))

    @any_buffered
    async def test_cost(self, chain: Chain, backend: Any) -> None:
        """R10: a buffer is no task and no second hand-off: the source runs in its one task."""
        before = live_tasks()
        probe = Probe(*range(9))
        async with wrap(probe.source(), chain * 2, size=2) as stream:
            assert await anext(stream) == 0
            timers = 1 if backend.is_trio and "keepalive" in chain else 0
            assert len(live_tasks() - before) == 1 + timers
        assert len(probe.task_ids) == 1


class TestOtherTasks:
    """Neither a source nor a consumer that never blocks keeps the loop for itself."""

    @any_buffered
    @pytest.mark.parametrize("size", [1, 64, 1000, math.inf])
    async def test_source_that_never_suspends(self, chain: Chain, size: float) -> None:
        """B6: another task ticks while an endless source is read."""
        turns = Turns()

        async def source() -> AsyncGenerator[int, None]:
            for number in count():
                yield number

        async with turns.counted():
            async with wrap(source(), chain, size=size) as stream:
                async for _ in stream:
                    if turns.number > 50:
                        break

    async def test_source_whose_items_are_skipped(self) -> None:
        """B6: another task ticks while a stage skips every item: nothing is ever handed over."""
        turns = Turns()
        token = CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            while not token.cancelled:
                yield 1

        async def stop() -> None:
            await wait_until(lambda: turns.number > 50)
            token.cancel()

        async with turns.counted(), anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            async with with_stage(with_buffer(source(), 4), Even()) as stream:
                assert [item async for item in stream] == []

    @any_buffered
    async def test_consumer_that_never_suspends(self, chain: Chain) -> None:
        """B6: another task ticks while a consumer takes what is there: at every 64th item."""
        turns = Turns()
        async with wrap(aiter_of(*range(6401)), chain, size=math.inf) as stream:
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert stream.ended  # The source has ended: nothing else is awaited.
            async with turns.counted():
                for number in range(1, 6401):
                    assert await anext(stream) == number
                # On trio, one of two tasks may get two turns in a row.
                assert 90 <= turns.number <= 110

    async def test_in_a_row(self) -> None:
        """B6: a stage may have it tick after fewer items: the least of all stages' counts."""

        class Polite(Stage[int, int]):
            in_a_row = 5

        class Hasty(Stage[int, int]):
            in_a_row = 1000

        turns = Turns()
        source = with_stage(with_stage(aiter_of(*range(501)), Polite()), Hasty())
        async with with_buffer(source, math.inf) as stream:
            assert await anext(stream) == 0
            await wait_all_blocked()
            async with turns.counted():
                for number in range(1, 501):
                    assert await anext(stream) == number
                assert 90 <= turns.number <= 110

    @pytest.mark.parametrize("suspends", [True, False])
    @pytest.mark.parametrize("size", [1, 3, math.inf])
    async def test_cancelled_consumer(self, suspends: bool, size: float) -> None:
        """B6: a cancellation of such a consumer is found there, and what it did not take stays.

        At whichever pace the source goes: on asyncio, its items might outrun the cancellation.
        """

        async def source() -> AsyncGenerator[int, None]:
            for number in range(200):
                if suspends:
                    await anyio.lowlevel.checkpoint()
                yield number

        got = []
        async with with_buffer(source(), size) as stream:
            with anyio.CancelScope() as scope:
                async for item in stream:
                    got.append(item)
                    scope.cancel()
            assert scope.cancelled_caught
            assert len(got) <= 64
            got += [item async for item in stream]
        assert got == list(range(200))

    async def test_last_items_that_never_suspend(self) -> None:
        """B6: another task ticks while the last items, of which there is no end, are taken."""
        turns = Turns()
        stream = with_status(with_buffer(aiter_of("a"), math.inf), final=lambda outcome: count())
        async with turns.counted():
            async with stream:
                async for _ in stream:
                    if turns.number > 50:
                        break


class TestCancellation:
    """A token, while the source is ahead."""

    @any_buffered
    async def test_full(self, chain: Chain) -> None:
        """C23: the buffer is full: the source is told now; what it has produced arrives first."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                for number in range(9):
                    yield number
            except StreamCancelled as stop:
                log(kind(stop))
                yield "last"
                log("asked again")
                yield "very last"

        chain = chain if "cancellation" in chain else (*chain, "cancellation")
        stream = wrap(source(), chain, token=token, size=2)
        await consume(stream, log, token, busy=10)
        assert log == [
            (0, 0),
            (1, "told to stop"),  # At its next yield: with 1 and 2, the 3 is in flight.
            (10, 1),
            (20, 2),
            (30, 3),
            (30, "asked again"),
            (40, "last"),
            (50, "very last"),
            (60, "end"),
        ]
        assert stream.outcome.items == 6

    async def test_full_before_an_await(self) -> None:
        """C23: the same where it comes to an await: nothing is in flight."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                for number in range(3):
                    yield number
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                await anyio.sleep(3)
                log("saved")
                yield "last"

        await consume(with_buffer(with_cancellation(source(), token), 2), log, token, busy=10)
        assert log == [
            (0, 0),
            (1, "told to stop"),
            (4, "saved"),
            (10, 1),
            (20, 2),
            (30, "last"),
            (40, "end"),
        ]

    async def test_half_full(self) -> None:
        """C21: there is room, and the source is blocked: its await raises, then all arrives."""
        token, log = CancelToken(), Log()
        stream = with_buffer(with_cancellation(blocked(log, 1, 2, 3), token), 5)
        await consume(stream, log, token, busy=10)
        assert log == [
            (0, 1),
            (1, "source: told to stop"),
            (1, "closed"),
            (10, 2),
            (20, 3),
            (30, "consumer: stop"),
        ]
        assert stream.outcome.items == 3

    @pytest.mark.parametrize("size", [100, math.inf])
    async def test_in_between(self, size: float) -> None:
        """C23: the source never blocks, and is told while it lets other tasks run."""
        for ticks in range(4):
            token, log = CancelToken(), Log()
            produced: list[int] = []

            async def source(
                log: Log = log, produced: list[int] = produced
            ) -> AsyncGenerator[object, None]:
                try:
                    for number in count():
                        produced.append(number)
                        yield number
                except StreamCancelled as stop:
                    log(kind(stop))
                    await anyio.sleep(1)
                    yield "last"

            async def fire(token: CancelToken = token, ticks: int = ticks) -> None:
                for _ in range(ticks):
                    await anyio.lowlevel.checkpoint()
                token.cancel("stop")

            got = []
            stream = with_buffer(with_cancellation(source(), token), size)
            async with anyio.create_task_group() as tasks, stream:
                async for item in stream:
                    if not got:
                        tasks.start_soon(fire)
                    got.append(item)
            assert got == [*produced, "last"]
            assert log.events == ["told to stop"]
            assert stream.outcome.items == len(got)

    async def test_item_arrives_in_the_same_tick(self) -> None:
        """C31: the items that were about to come arrive, then what it says of the exception."""
        token, log = CancelToken(), Log()
        arrived = anyio.Event()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await arrived.wait()
                yield 1
                yield 2
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                await anyio.sleep(1)
                yield "last"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_buffer(with_cancellation(source(), token), 5), log)
            await wait_all_blocked()
            arrived.set()
            token.cancel("stop")
        items = [event for event in log.events if event != "told to stop"]
        # On its way to the first await it may come to the yield of the 2.
        assert items in ([1, "last", "end"], [1, 2, "last", "end"])
        assert log.events.count("told to stop") == 1

    async def test_grace_runs_while_there_is_room(self) -> None:
        """C24: the clock of the grace stands still only while the source waits for room."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                for number in range(5):
                    await anyio.sleep(0.4)
                    log(f"made {number}")
                    yield number

        stream = with_buffer(with_cancellation(source(), token, grace=1.5), 2)
        await consume(stream, log, token, busy=10)
        # 1.2 seconds for three items, then it waits; 0.3 seconds are left for the fourth.
        assert log == [
            (1.4, "made 0"),
            (1.4, 0),
            (1.8, "made 1"),
            (2.2, "made 2"),
            (11.4, 1),
            (21.4, 2),
            (31.4, "consumer: stop"),
        ]
        assert stream.outcome.grace_exceeded
        assert stream.outcome.ended_at - stream.outcome.started_at == pytest.approx(11.7)

    async def test_goes_on_without_an_await(self) -> None:
        """C26: a source that goes on without blocking is cut, however much room there is."""
        token, produced = CancelToken(), []

        async def source() -> AsyncGenerator[int, None]:
            for number in count():
                try:
                    produced.append(number)
                    yield number
                except StreamCancelled:
                    pass

        got = []
        stream = with_buffer(with_cancellation(source(), token, grace=0), math.inf)
        async with stream:
            with pytest.raises(StreamCancelled):
                async for item in stream:
                    got.append(item)
                    token.cancel("stop")
        assert got == produced
        assert stream.outcome.grace_exceeded

    @pytest.mark.parametrize("size", [2, math.inf])
    async def test_inner_stream(self, size: float) -> None:
        """N7: a token of the outer stream reaches a source that is ahead in an inner one."""
        token, log = CancelToken(), Log()

        async def inner() -> AsyncGenerator[object, None]:
            try:
                for number in range(1_000_000):
                    yield number
            except BaseException as exc:
                log(f"inner: {kind(exc)}")
                raise
            raise AssertionError("must not be reached")

        async def outer() -> AsyncGenerator[object, None]:
            async with with_buffer(inner(), size) as stream:
                yield await anext(stream)
                try:
                    async for _ in stream:
                        await wait_until(lambda: token.cancelled)
                        await anyio.sleep_forever()
                except BaseException as exc:
                    log(f"outer: {kind(exc)}")
                    raise

        async def fire() -> None:
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            token.cancel("stop")

        async with anyio.create_task_group() as tasks:
            async with with_cancellation(outer(), token) as stream:
                with pytest.raises(StreamCancelled):
                    async for _ in stream:
                        tasks.start_soon(fire)
        assert sorted(map(str, log.events)) == ["inner: told to stop", "outer: told to stop"]

    @any_buffered
    async def test_outer_scope(self, chain: Chain) -> None:
        """C3: an outer scope is cancelled while both are busy: each sees it, once, and ends."""
        log = Log()
        with anyio.move_on_after(5) as scope:
            log.start()
            async with wrap(blocked(log, 1, 2), chain, size=5) as stream:
                async for item in stream:
                    log(item)
                    try:
                        await anyio.sleep(10)
                    except BaseException as exc:
                        log(f"consumer: {kind(exc)}")
                        raise
        assert scope.cancelled_caught
        assert log[:1] == [(0, 1)]
        # The backend says who is first.
        assert {time for time, _ in log[1:]} == {5}
        assert sorted(map(str, log.events[1:])) == [
            "closed",
            "consumer: cancelled",
            "source: told that the consumer has left",
        ]
        assert stream.outcome.kind == "closed"


class TestScopesOfTheSource:
    """What the source holds across its yields, while it is ahead."""

    async def test_scope_expires_in_a_full_buffer(self) -> None:
        """N2: it is cancelled while the source waits for room: it waits on, and finds it later."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            with anyio.move_on_after(5) as scope:
                for number in range(4):
                    log(f"made {number}")
                    yield number
                await anyio.sleep(100)
            yield f"expired: {scope.cancelled_caught}"

        await consume(with_buffer(source(), 1), log, busy=10)
        made = [(time, event) for time, event in log if str(event).startswith("made")]
        assert made == [(0, "made 0"), (0, "made 1"), (10, "made 2"), (20, "made 3")]
        assert [entry for entry in log if entry not in made] == [
            (0, 0),
            (10, 1),
            (20, 2),
            (30, 3),
            (40, "expired: True"),
            (50, "end"),
        ]

    async def test_cancelled_scope(self) -> None:
        """N2: the source holds a cancelled scope while it lets other tasks run: it goes on."""
        turns = Turns()

        async def source() -> AsyncGenerator[object, None]:
            with anyio.CancelScope() as scope:
                scope.cancel()
                for number in range(1000):
                    yield number
                await anyio.sleep(100)
            yield f"caught: {scope.cancelled_caught}"

        async with turns.counted():
            async with with_buffer(source(), math.inf) as stream:
                got = [item async for item in stream]
            assert turns.number >= 1000 // 64
        assert got == [*range(1000), "caught: True"]
        assert stream.outcome.kind == "completed"

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("endless", [True, False])
    async def test_native_timeout(self, endless: bool) -> None:
        """N2: an ``asyncio.timeout()`` expires while the source is ahead: it hits the source.

        Where the source waits for room, and where it lets other tasks run.
        """
        produced = []

        async def source() -> AsyncGenerator[object, None]:
            try:
                async with asyncio.timeout(None) as timeout:
                    for number in count():
                        produced.append(number)
                        if number == (150 if endless else 1):
                            # For the clock stands still while this never blocks.
                            timeout.reschedule(0 if endless else asyncio.get_running_loop().time())
                        yield number
            except TimeoutError:
                yield "timed out"

        got = []
        async with with_buffer(source(), math.inf if endless else 2) as stream:
            async for item in stream:
                got.append(item)
                await wait_all_blocked() if not endless else None
        assert got == [*produced, "timed out"]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_child_fails(self) -> None:
        """N3: a child of its task group fails while the source waits for room."""
        error = LookupError("child")

        async def fails() -> None:
            await anyio.sleep(5)
            raise error

        async def source() -> AsyncGenerator[int, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails)
                for number in range(4):
                    yield number
                await anyio.sleep_forever()

        got = []
        async with with_buffer(source(), 2) as stream:
            with pytest.raises(BaseExceptionGroup) as caught:
                async for item in stream:
                    got.append(item)
                    await anyio.sleep(10)
        assert caught.value.exceptions == (error,)
        assert got == [0, 1, 2, 3]


class TestEnd:
    @any_buffered
    async def test_break(self, chain: Chain) -> None:
        """G12: the consumer leaves a full buffer: it is closed at once, and what waits dropped."""
        probe = Probe(*range(20))
        async with wrap(probe.source(), chain, size=5) as stream:
            async for item in stream:
                await wait_all_blocked()
                if item == 2:
                    break
            before = anyio.current_time()
        assert anyio.current_time() == before
        assert len(probe.produced) == 3 + 5
        assert [(where, type(exc)) for where, exc in probe.seen] == [("yield", GeneratorExit)]
        assert (probe.closed, len(probe.task_ids)) == (1, 1)
        assert (stream.outcome.kind, stream.outcome.items) == ("closed", 3)

    @any_buffered
    async def test_cancelled(self, chain: Chain) -> None:
        """G12: the block is left by a cancellation while a full buffer waits."""
        probe = Probe(*range(20))
        before = anyio.current_time()
        with anyio.move_on_after(7) as scope:
            async with wrap(probe.source(), chain, size=5) as stream:
                assert await anext(stream) == 0
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert anyio.current_time() == before + 7
        assert probe.closed == 1
        assert (stream.outcome.kind, stream.outcome.items) == ("closed", 1)

    async def test_typed_cancellation_leaves(self) -> None:
        """G14: ``StreamCancelled`` leaves the block: the source is told, what waits is dropped."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                for number in range(9):
                    yield number
            except StreamCancelled as stop:
                log(kind(stop))
                yield "dropped"

        stream = with_buffer(source(), 3)
        with pytest.raises(StreamCancelled):
            async with stream:
                assert await anext(stream) == 0
                await wait_all_blocked()
                raise StreamCancelled("stop")
        assert log.events == ["told to stop"]
        assert (stream.outcome.kind, stream.outcome.items) == ("cancelled", 1)

    async def test_break_while_it_lets_others_run(self) -> None:
        """G12: the consumer leaves a source that never blocks, with no end to its buffer."""
        closed = []

        async def source() -> AsyncGenerator[int, None]:
            try:
                for number in count():
                    yield number
            finally:
                await anyio.sleep(1)
                closed.append(True)

        async with with_buffer(source(), math.inf) as stream:
            async for item in stream:
                if item == 300:
                    break
        assert closed == [True]
        assert (stream.outcome.kind, stream.outcome.items) == ("closed", 301)

    async def test_break_after_the_end(self) -> None:
        """G12: the source has ended, so its outcome is written: what waits there has its place."""
        probe = Probe(1, 2, 3)
        async with with_buffer(probe.source(), 5) as stream:
            assert await anext(stream) == 1
            await wait_all_blocked()
            outcome = stream.outcome
            assert probe.closed == 1
            assert (outcome.kind, outcome.items) == ("completed", 3)
        assert stream.outcome is outcome

    @pytest.mark.parametrize("ended", [True, False])
    async def test_aclose(self, ended: bool) -> None:
        """G15: another task closes the stream while items wait: dropped, also after the end."""
        probe = Probe(1, 2, 3, block=not ended)
        async with anyio.create_task_group() as tasks:
            async with with_buffer(probe.source(), 5) as stream:
                assert await anext(stream) == 1
                await wait_all_blocked()
                assert stream.ended == ended
                tasks.start_soon(stream.aclose)
                await wait_all_blocked()
                assert probe.closed == 1
                for _ in range(2):
                    with pytest.raises(anyio.ClosedResourceError):
                        await anext(stream)
        assert stream.outcome.kind == ("completed" if ended else "closed")

    async def test_aclose_with_an_error(self) -> None:
        """G15: the error of a source that ended while items wait comes out of ``aclose()``."""
        error = LookupError("source")
        async with with_buffer(Probe(1, 2, error=error).source(), 5) as stream:
            assert await anext(stream) == 1
            await wait_all_blocked()
            with pytest.raises(LookupError) as caught:
                await stream.aclose()
            assert caught.value is error
            with pytest.raises(anyio.ClosedResourceError):
                await anext(stream)

    async def test_aclose_when_all_is_taken(self) -> None:
        """G5: after the end of the iteration, ``aclose()`` changes nothing."""
        async with with_buffer(aiter_of(1, 2), 5) as stream:
            assert [item async for item in stream] == [1, 2]
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    @any_buffered
    async def test_error(self, chain: Chain) -> None:
        """E1: the source raises while items wait: all of them come first, then that object."""
        error = LookupError("source")
        probe = Probe(1, 2, 3, error=error)
        got = []
        async with wrap(probe.source(), chain, size=5) as stream:
            with pytest.raises(LookupError) as caught:
                async for item in stream:
                    await wait_all_blocked()
                    assert probe.closed == 1
                    got.append(item)
            assert caught.value is error
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert got == [1, 2, 3]
        assert stream.outcome.error is error

    async def test_error_that_is_not_reached(self) -> None:
        """E3: the consumer leaves before the error of a source that is ahead: it is not lost."""
        error = LookupError("source")
        with pytest.raises(LookupError) as caught:
            async with with_buffer(Probe(1, 2, error=error).source(), 5) as stream:
                assert await anext(stream) == 1
                await wait_all_blocked()
        assert caught.value is error
        assert stream.outcome.kind == "failed"

    async def test_stage_fails(self) -> None:
        """E1: so do the items that wait when a stage fails, in a hook or beside the source."""

        class Fails(Stage[int, int]):
            async def run(self, control: Control) -> None:
                await anyio.sleep(5)
                control.fail(LookupError("stage"))

        class FailsAtThree(Stage[int, int]):
            def on_item(self, item: int) -> int:
                if item == 3:
                    raise LookupError("stage")
                return item

        for stage, expected in (Fails(), [0, 1, 2, 3, 4]), (FailsAtThree(), [0, 1, 2]):
            got = []
            async with with_buffer(with_stage(Probe(*range(9)).source(), stage), 4) as stream:
                with pytest.raises(LookupError, match="stage"):
                    async for item in stream:
                        got.append(item)
                        await anyio.sleep(10)
            assert got == expected
            assert stream.outcome.items == len(expected)


class TestWithKeepalive:
    async def test_no_beat_while_items_wait(self) -> None:
        """K5: a buffered item is ready, and wins; beats come when there is none, from the ask."""
        log = Log()

        async def source() -> AsyncGenerator[int, None]:
            for number in range(4):
                yield number
            await anyio.sleep(85)
            yield 4

        await consume(with_keepalive(with_buffer(source(), 5), 10, "beat"), log, busy=20)
        assert log == [
            (0, 0),
            (20, 1),
            (40, 2),
            (60, 3),
            (85, 4),
            (105, "end"),
        ]

    async def test_beats(self) -> None:
        """K8: with the buffer empty the clock of the beats starts at the ask."""
        log = Log()

        async def source() -> AsyncGenerator[int, None]:
            yield 0
            yield 1
            await anyio.sleep(45)
            yield 2

        def beat(idle: Any) -> str:
            return f"{idle.count} after {idle.last}, {idle.silent_for:g} s"

        await consume(with_keepalive(with_buffer(source(), 5), 10, beat), log, busy=7)
        assert log == [
            (0, 0),
            (7, 1),
            (24, "1 after 1, 24 s"),
            (41, "2 after 1, 41 s"),
            (48, 2),
            (55, "end"),
        ]


class TestWithStatus:
    async def test_head(self) -> None:
        """S5: ``head()`` is one ask: n items are read, and no more; the first ask takes one."""
        probe = Probe(*range(20))
        async with with_status(with_buffer(probe.source(), 3)) as stream:
            assert (await stream.head()).decided_by == "item"
            await wait_all_blocked()
            assert len(probe.produced) == 3
            assert (await stream.head()).decided_by == "item"
            await wait_all_blocked()
            assert len(probe.produced) == 3
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert len(probe.produced) == 1 + 3

    async def test_error_after_items(self) -> None:
        """S3: an error after the first item is not that of ``head()``, though it is there."""
        error = LookupError("source")
        got = []
        async with with_status(with_buffer(Probe(1, error=error).source(), 3)) as stream:
            assert (await stream.head()).decided_by == "item"
            await wait_all_blocked()
            with pytest.raises(LookupError):
                async for item in stream:
                    got.append(item)
        assert got == [1]

    async def test_final(self) -> None:
        """S8: the last items come after those that wait, and are bounded by the size as well."""
        made = []

        def final(outcome: Outcome) -> Iterator[str]:
            for number in range(20):
                made.append(number)
                yield f"last {number}"

        async with with_status(with_buffer(aiter_of(1, 2), 3), final=final) as stream:
            got = []
            async for item in stream:
                got.append(item)
                await wait_all_blocked()
                # One is made, and held until there is room for it.
                assert len(made) == min(len(got) + 3 - 2 + 1, 20)
        assert got == [1, 2, *(f"last {number}" for number in range(20))]
        assert stream.outcome.items == 2

    async def test_final_without_an_ask(self) -> None:
        """S8: the last items of a stream that nobody has asked wait for the first ask, too."""
        token, made = CancelToken(), []

        def final(outcome: Outcome) -> Iterator[str]:
            for number in range(20):
                made.append(number)
                yield f"last {number}"

        token.cancel()
        stream = with_status(
            with_buffer(with_cancellation(Probe(1).source(), token), 3), final=final
        )
        async with stream:
            await wait_all_blocked()
            assert made == [0]
            assert await anext(stream) == "last 0"
            await wait_all_blocked()
            assert len(made) == 1 + 3 + 1
