"""The end of a grace before its time: of all who are told, inside as well."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from chains import any_chain, wrap
from observing import blocked, call_later, kind
from streamkit import (
    CancelToken,
    Stage,
    Stream,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_stage,
    with_timeout,
)
from support import Log, PlainSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from chains import Chain
    from streamkit import Control, Outcome


class Controlled(Stage[object, object]):
    """Does nothing by itself."""

    control: Control

    def on_open(self, control: Control) -> None:
        self.control = control


async def slow_to_stop(log: Log, name: str = "source") -> AsyncGenerator[object, None]:
    """Wait for ever, and for ever in the clean-up as well."""
    try:
        yield 1
        await anyio.sleep_forever()
    except BaseException as exc:
        log(f"{name}: {kind(exc)}")
        try:
            await anyio.sleep_forever()
        except BaseException as exc:
            log(f"{name}: {kind(exc)}")
            raise
        raise AssertionError("must not go on") from None


async def follow(
    stream: Stream[Any], log: Log, *calls: tuple[float, Callable[[], object]], busy: float = 0
) -> None:
    """Log what a consumer sees of a stream, while some functions are called at their times."""
    log.start()
    async with anyio.create_task_group() as tasks:
        for at, call in calls:
            tasks.start_soon(call_later, at, call)
        async with stream:
            try:
                async for item in stream:
                    log(item)
                    await anyio.sleep(busy)
            except StreamCancelled as stop:
                log(f"consumer: {stop.reason}")
            else:
                log("end")
        log("left")
        tasks.cancel_scope.cancel()


def outcome_of(stream: Stream[Any]) -> Outcome:
    assert stream.outcome is not None
    return stream.outcome


class TestSource:
    async def test_in_its_clean_up(self) -> None:
        """C26: it is cut at once, as at the end of the grace, and the outcome says so."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(slow_to_stop(log), token, grace=60)
        await follow(stream, log, (1, partial(token.cancel, "stop")), (2, token.end_grace))
        assert log == [
            (0, 1),
            (1, "source: told to stop"),
            (2, "source: cancelled"),
            (2, "consumer: stop"),
            (2, "left"),
        ]
        outcome = outcome_of(stream)
        assert (outcome.kind, outcome.reason, outcome.grace_exceeded) == ("cancelled", "stop", True)

    @any_chain
    async def test_any_chain(self, chain: Chain) -> None:
        """C26: so it is in every chain."""
        token, log = CancelToken(), Log()
        stream = wrap(with_cancellation(slow_to_stop(log), token, grace=60), chain)
        started = anyio.current_time()
        with suppress(StreamCancelled):
            await follow(stream, log, (1, partial(token.cancel, "stop")), (2, token.end_grace))
        assert anyio.current_time() - started <= 2.5
        assert outcome_of(stream).grace_exceeded

    async def test_without_a_cancel(self) -> None:
        """L3: a token that has not fired fires: the source is told, and has no time."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(slow_to_stop(log), token)
        await follow(stream, log, (1, partial(token.end_grace, "now")))
        assert log[1:] == [
            (1, "source: told to now"),
            (1, "source: cancelled"),
            (1, "consumer: now"),
            (1, "left"),
        ]
        assert outcome_of(stream).grace_exceeded

    @pytest.mark.parametrize("shielded", [False, True])
    async def test_at_a_yield(self, shielded: bool) -> None:
        """C26: at a yield of its last items, with a consumer that is busy: closed at once."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                try:
                    with anyio.CancelScope(shield=shielded):
                        yield "last"
                    raise AssertionError("must not go on")
                finally:
                    log("closed")

        stream = with_cancellation(source(), token, grace=60)
        calls = (1, partial(token.cancel, "stop")), (2, token.end_grace)
        await follow(stream, log, *calls, busy=10)
        assert log == [(1, "last"), (2, "closed"), (11, "consumer: stop"), (11, "left")]
        outcome = outcome_of(stream)
        assert (outcome.items, outcome.grace_exceeded) == (1, True)

    async def test_last_item_not_taken(self) -> None:
        """C24: the last item that waits to be taken arrives all the same; the source is closed."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                yield 2
                await anyio.sleep_forever()
            except StreamCancelled:
                try:
                    yield "last"
                finally:
                    log("closed")

        log.start()
        stream = with_buffer(with_cancellation(source(), token, grace=60), 2)
        async with stream:
            assert await anext(stream) == 1
            await anyio.sleep(1)
            token.cancel("stop")
            await anyio.sleep(1)
            token.end_grace()
            await anyio.sleep(1)
            assert log == [(2, "closed")]
            assert [await anext(stream), await anext(stream)] == [2, "last"]
            with pytest.raises(StreamCancelled):
                await anext(stream)
        assert outcome_of(stream).grace_exceeded

    async def test_yield_after_it(self) -> None:
        """C26: what it yields when it was cut arrives, and it is not resumed."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    yield "cut"
                    raise AssertionError("must not go on") from None

        stream = with_cancellation(source(), token, grace=60)
        calls = (1, partial(token.cancel, "stop")), (2, token.end_grace)
        await follow(stream, log, *calls, busy=10)
        assert log == [(2, "cut"), (12, "consumer: stop"), (12, "left")]

    async def test_in_time(self) -> None:
        """C24: a source that needs no time loses none: nothing was exceeded."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(blocked(log, 1), token)
        await follow(stream, log, (1, partial(token.end_grace, "now")))
        assert log[1:] == [
            (1, "source: told to now"),
            (1, "closed"),
            (1, "consumer: now"),
            (1, "left"),
        ]
        assert not outcome_of(stream).grace_exceeded

    async def test_while_it_is_closed(self) -> None:
        """L3: what closes it is cut: the block is left at once, and the source is closed once."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
            finally:
                try:
                    await anyio.sleep_forever()
                finally:
                    log("closed")

        stream = with_cancellation(source(), token, grace=60)
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 2, token.end_grace)
            async with stream:
                assert await anext(stream) == 1
                await anyio.sleep(1)
        assert log == [(2, "closed")]
        outcome = outcome_of(stream)
        assert (outcome.kind, outcome.grace_exceeded) == ("closed", True)

    @pytest.mark.parametrize("how", ["left", "timed out", "another token"])
    async def test_whoever_told_it(self, how: str) -> None:
        """L3: it does not matter who told the source: the token is one that it listens to."""
        token, other, log = CancelToken(), CancelToken(), Log()
        stream = with_cancellation(slow_to_stop(log), token, other, grace=60)
        if how == "timed out":
            stream = with_timeout(stream, idle=1, grace=60)
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 2, token.end_grace)
            if how == "another token":
                tasks.start_soon(call_later, 1, other.cancel, "stop")
            with suppress(StreamCancelled, TimeoutError):
                async with stream:
                    assert await anext(stream) == 1
                    with anyio.move_on_after(1 if how == "left" else 100):
                        await anext(stream)
        assert log[1:] == [(2, "source: cancelled")]
        outcome = outcome_of(stream)
        kinds = {"left": "closed", "timed out": "timed_out", "another token": "cancelled"}
        assert (outcome.kind, outcome.grace_exceeded) == (kinds[how], True)

    async def test_behind_a_shield(self) -> None:
        """C17: a source that was asked and has not heard of it yet has no time when it does."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(f"source: {kind(stop)}")
                try:
                    await anyio.sleep_forever()
                finally:
                    log("cut")

        stream = with_cancellation(source(), token)
        await follow(stream, log, (1, partial(token.cancel, "stop")), (2, token.end_grace))
        assert log[1:4] == [(5, "source: told to stop"), (5, "cut"), (5, "consumer: stop")]
        assert outcome_of(stream).grace_exceeded

    @pytest.mark.asyncio_only
    async def test_native_task_with_a_clean_up(self) -> None:
        """L10: a task that the source awaits was asked, and is slow: it is asked again, at once."""
        token, log = CancelToken(), Log()

        async def work() -> None:
            for _ in range(2):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    log("work: asked")
            log("work: ends")

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                await asyncio.create_task(work())
            except StreamCancelled as stop:
                log(f"source: {kind(stop)}")
                raise

        stream = with_cancellation(source(), token, grace=60)
        await follow(stream, log, (1, partial(token.cancel, "stop")), (2, token.end_grace))
        assert log[1:4] == [(1, "work: asked"), (2, "work: asked"), (2, "work: ends")]
        assert log[-1][0] == 2

    async def test_after_the_end(self) -> None:
        """S10: the source is closed: nothing happens, on_end takes its time."""
        token, log = CancelToken(), Log()

        class Slow(Stage[object, object]):
            async def on_end(self, outcome: Outcome) -> None:
                await anyio.sleep(3)
                log(f"on_end: {outcome.kind}")

        async def source() -> AsyncGenerator[object, None]:
            yield 1

        stream = with_stage(with_cancellation(source(), token), Slow())
        await follow(stream, log, (1, token.end_grace))
        assert log == [(0, 1), (3, "on_end: completed"), (3, "end"), (3, "left")]
        assert not outcome_of(stream).grace_exceeded

    async def test_last_items_of_a_stage(self) -> None:
        """B1: nor are items of ``final`` made faster than the consumer takes them."""
        token, log = CancelToken(), Log()

        class Adds(Stage[object, object]):
            def final(self, outcome: Outcome) -> Iterator[object]:
                for number in range(3):
                    log(f"made {number}")
                    yield number

        stream = with_stage(with_cancellation(blocked(log), token), Adds())
        calls = (1, partial(token.cancel, "stop")), (2, token.end_grace)
        await follow(stream, log, *calls, busy=10)
        assert [entry for entry in log if "made" in str(entry[1])] == [
            *((1, "made 0"), (1, "made 1"), (11, "made 2")),
        ]

    async def test_not_started(self) -> None:
        """C13: a source that has not started never does."""
        token, log = CancelToken(), Log()
        token.end_grace("now")
        stream = with_cancellation(slow_to_stop(log), token)
        await follow(stream, log)
        assert log == [(0, "consumer: now"), (0, "left")]
        assert not outcome_of(stream).grace_exceeded

    async def test_by_the_source_itself(self) -> None:
        """C6: the source may end its own grace: its next await raises."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            token.end_grace("me")
            try:
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                try:
                    await anyio.sleep_forever()
                finally:
                    log("cut")

        stream = with_cancellation(source(), token)
        await follow(stream, log)
        assert log == [(0, 1), (0, "told to me"), (0, "cut"), (0, "consumer: me"), (0, "left")]

    async def test_consumer_is_cancelled_then(self) -> None:
        """L5: a scope around the block is cancelled in the same tick: both keep their meaning."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(slow_to_stop(log), token, grace=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            with anyio.CancelScope() as scope:
                tasks.start_soon(call_later, 2, token.end_grace)
                tasks.start_soon(call_later, 2, scope.cancel)
                async with stream:
                    async for _ in stream:
                        pass
        assert outcome_of(stream).grace_exceeded
        assert [what for _, what in log] == ["source: told to stop", "source: cancelled"]

    @pytest.mark.real_time
    async def test_from_a_thread(self) -> None:
        """H2: from a thread: the source is told in its own loop, and cut there."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(slow_to_stop(log), token, grace=60)
        with anyio.fail_after(10):
            async with stream:
                assert await anext(stream) == 1
                thread = threading.Thread(target=token.end_grace, args=["thread"])
                thread.start()
                with pytest.raises(StreamCancelled, match="thread"):
                    await anext(stream)
                thread.join()
        assert [what for _, what in log] == ["source: told to thread", "source: cancelled"]

    async def test_before_it_is_told(self) -> None:
        """H7: one thread cancels, another one ends the grace and comes first: there is none."""
        stage, log = Controlled(), Log()

        def first_the_end() -> None:
            stage.control.end_grace()
            assert stage.control.cancel("stop", grace=60)

        await follow(with_stage(slow_to_stop(log), stage), log, (1, first_the_end))
        assert log[1:3] == [(1, "source: told to stop"), (1, "source: cancelled")]

    async def test_goes_on_untold(self) -> None:
        """H7: until it is told, a source goes on at the pace of its consumer."""
        stage, log = Controlled(), Log()

        async def source() -> AsyncGenerator[object, None]:
            for number in range(3):
                log(f"made {number}")
                yield number

        log.start()
        async with with_stage(source(), stage) as stream:
            assert await anext(stream) == 0
            stage.control.end_grace()
            await anyio.sleep(1)
            assert log == [(0, "made 0")]
            assert [item async for item in stream] == [1, 2]

    async def test_of_a_stage(self) -> None:
        """L1: a stage of one's own may end the grace as well."""
        stage, log = Controlled(), Log()

        def stop() -> None:
            stage.control.cancel("stop", grace=60)

        def hurry() -> None:
            stage.control.end_grace()

        await follow(with_stage(slow_to_stop(log), stage), log, (1, stop), (2, hurry))
        assert log[2] == (2, "source: cancelled")


class TestInwards:
    async def test_stream_inside(self) -> None:
        """N7: the streams inside, each in its own grace, are cut at once, on any level."""
        token, log = CancelToken(), Log()

        async def around(inside: Stream[Any], name: str) -> AsyncGenerator[object, None]:
            try:
                async with inside:
                    async for item in inside:
                        yield item
            finally:
                log(f"{name}: closed")

        innermost = with_cancellation(slow_to_stop(log), grace=60)
        middle = with_cancellation(around(innermost, "middle"), grace=60)
        stream = with_cancellation(around(middle, "outer"), token, grace=60)
        await follow(stream, log, (1, partial(token.cancel, "stop")), (2, token.end_grace))
        assert log == [
            (0, 1),
            (1, "source: told to stop"),
            (2, "source: cancelled"),
            (2, "middle: closed"),
            (2, "outer: closed"),
            (2, "consumer: stop"),
            (2, "left"),
        ]
        assert outcome_of(innermost).grace_exceeded

    async def test_not_told_yet(self) -> None:
        """N7: without a cancel before, each of them is told, and has no time."""
        token, log = CancelToken(), Log()
        inner = with_cancellation(slow_to_stop(log), grace=60)

        async def outer() -> AsyncGenerator[object, None]:
            async with inner:
                async for item in inner:
                    yield item

        stream = with_cancellation(outer(), token, grace=60)
        await follow(stream, log, (1, partial(token.end_grace, "now")))
        assert log[1:3] == [(1, "source: told to now"), (1, "source: cancelled")]
        assert outcome_of(inner).grace_exceeded
        assert log[-1] == (1, "left")

    async def test_at_a_yield_of_the_outer_one(self) -> None:
        """N7: the outer source is at its yield, inside the block of the inner stream."""
        token, log = CancelToken(), Log()
        inner = with_cancellation(slow_to_stop(log), grace=60)

        async def outer() -> AsyncGenerator[object, None]:
            async with inner:
                async for _ in inner:
                    try:
                        await anyio.sleep_forever()
                    except StreamCancelled:
                        yield "last"

        stream = with_cancellation(outer(), token, grace=60)
        calls = (1, partial(token.cancel, "stop")), (2, token.end_grace)
        await follow(stream, log, *calls, busy=10)
        assert log[:2] == [(1, "last"), (2, "source: GeneratorExit")]
        assert (2, "source: cancelled") in log
        assert outcome_of(inner).grace_exceeded

    async def test_in_child_tasks(self) -> None:
        """N7: streams that child tasks of the source consume are among them."""
        token, log = CancelToken(), Log()
        inner = [with_cancellation(slow_to_stop(log, f"{n}"), grace=60) for n in range(2)]

        async def child(stream: Stream[object]) -> None:
            async with stream:
                async for _ in stream:
                    pass

        async def outer() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                for stream in inner:
                    tasks.start_soon(child, stream)
                yield 1
                await anyio.sleep_forever()

        stream = with_cancellation(outer(), token, grace=60)
        await follow(stream, log, (1, partial(token.cancel, "stop")), (2, token.end_grace))
        assert sorted(log[1:5], key=str) == [
            *((1, "0: told to stop"), (1, "1: told to stop")),
            *((2, "0: cancelled"), (2, "1: cancelled")),
        ]
        assert log[-1] == (2, "left")
        assert all(outcome_of(stream).grace_exceeded for stream in inner)

    async def test_opened_later(self) -> None:
        """N7: a stream that clean-up opens when the grace was ended is not one of them."""
        token, log = CancelToken(), Log()

        async def slow() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(3)
                log("slow: closed")

        async def outer() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    async with with_cancellation(slow()) as inner:
                        async for _ in inner:
                            break

        stream = with_cancellation(outer(), token, grace=60)
        await follow(stream, log, (1, partial(token.end_grace, "now")))
        assert log[1:] == [(4, "slow: closed"), (4, "consumer: now"), (4, "left")]

    async def test_streams_that_were_left(self) -> None:
        """E10: a source that goes on lets go of the streams that it has left."""

        async def outer() -> AsyncGenerator[object, None]:
            for _ in range(2):
                source = PlainSource(1, 2)
                held = weakref.ref(source)
                async with with_cancellation(source) as inner:
                    assert await anext(inner) == 1
                del source, inner
                gc.collect()
                yield held()

        async with with_cancellation(outer()) as stream:
            assert [item async for item in stream] == [None, None]

    async def test_not_outwards(self) -> None:
        """N7: the token of an inner stream ends nothing of the outer one."""
        token, log = CancelToken(), Log()
        outer_token = CancelToken()

        async def outer() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            except StreamCancelled:
                inner = with_cancellation(slow_to_stop(log), token, grace=60)
                async with inner:
                    with suppress(StreamCancelled):
                        async for _ in inner:
                            pass
                await anyio.sleep(2)
                yield "last"

        stream = with_cancellation(outer(), outer_token, grace=5)
        calls = (1, partial(outer_token.cancel, "stop")), (2, partial(token.end_grace, "now"))
        await follow(stream, log, *calls)
        assert log[-3:] == [(4, "last"), (4, "end"), (4, "left")]
        assert not outcome_of(stream).grace_exceeded
