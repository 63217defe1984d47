"""A stop that waits for the next yield, and what may come before it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest

from chains import any_chain, wrap
from observing import call_later, kind
from streamkit import (
    SKIP,
    CancelToken,
    Skip,
    Stage,
    Stream,
    StreamCancelled,
    StreamTimeout,
    current_cancellation,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
    with_timeout,
)
from support import Log, PlainSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from chains import Chain
    from streamkit import Outcome


async def steps(log: Log, *, seconds: float = 1.0) -> AsyncGenerator[object, None]:
    """Make a step that takes a while, yield its number, and so on. Has last words."""
    number = 0
    try:
        while True:
            await anyio.sleep(seconds)
            number += 1
            log(f"made {number}")
            yield number
    except BaseException as exc:
        log(f"source: {kind(exc)}")
        if not isinstance(exc, StreamCancelled):
            raise
        await anyio.sleep(0.25)
        yield "last"
        await anyio.sleep(0.25)
        yield "very last"
    finally:
        log("closed")


async def follow(
    stream: Stream[object], log: Log, token: CancelToken, *, at: float, busy: float = 0
) -> None:
    """Log what a consumer sees of a stream that is asked to stop softly at some time."""
    log.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_later, at, stop_softly, token)
        async with stream:
            try:
                async for item in stream:
                    log(item)
                    await anyio.sleep(busy)
            except StreamCancelled as stop:
                log(f"consumer: {stop.reason}" if type(stop) is StreamCancelled else repr(stop))
            except StreamTimeout:
                log("consumer: timed out")
            else:
                log("end")
        tasks.cancel_scope.cancel()


def stop_softly(token: CancelToken, reason: object = "stop") -> None:
    token.cancel(reason, at_yield=True)


def of(stream: Stream[object]) -> tuple[object, ...]:
    assert stream.outcome is not None
    return stream.outcome.kind, stream.outcome.reason, stream.outcome.items


class TestDelivery:
    async def test_in_a_step(self) -> None:
        """C24: the step is finished, its item delivered, and the yield raises; there is a grace."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(steps(log), token)
        await follow(stream, log, token, at=1.5)
        assert log == [
            (1, "made 1"),
            (1, 1),
            (2, "made 2"),
            (2, 2),
            (2, "source: told to stop"),
            (2.25, "last"),
            (2.5, "very last"),
            (2.5, "closed"),
            (2.5, "end"),
        ]
        assert of(stream) == ("cancelled", "stop", 4)
        assert not token.cancelled

    @any_chain
    async def test_any_chain(self, chain: Chain) -> None:
        """C24: so it is in every chain, and the items arrive in order, none of them lost."""
        token, log, received = CancelToken(), Log(), list[object]()
        stream = wrap(with_cancellation(steps(log), token), chain)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, stop_softly, token)
            async with stream:
                received += [item async for item in stream]
        last = ["last", "very last"]
        assert [item for item in received if isinstance(item, int) or item in last] == [1, 2, *last]
        assert "source: told to stop" in [what for _, what in log]
        assert of(stream)[:2] == ("cancelled", "stop")

    async def test_at_a_yield(self) -> None:
        """C23: it is at a yield, and its item was taken: told, while the consumer is busy"""
        token, log = CancelToken(), Log()
        stream = with_cancellation(steps(log), token)
        await follow(stream, log, token, at=3, busy=10)
        assert log == [
            (1, "made 1"),
            (1, 1),
            (3, "source: told to stop"),
            (11, "last"),
            (21.25, "very last"),
            (31.25, "closed"),
            (31.25, "end"),
        ]

    async def test_item_not_taken(self) -> None:
        """B4: the item was not taken yet: it is told when it was, whenever the consumer does so."""
        token, log = CancelToken(), Log()
        log.start()
        async with with_cancellation(steps(log), token) as stream:
            with anyio.move_on_after(1) as scope:
                # Cancelled exactly when the item arrives.
                await anext(stream)
            assert scope.cancelled_caught
            await anyio.sleep(1)
            stop_softly(token)
            await anyio.sleep(1)
            assert log == [(1, "made 1")]
            assert await anext(stream) == 1
            await anyio.sleep(1)
            assert log[1:] == [(3, "source: told to stop")]
            assert [item async for item in stream] == ["last", "very last"]

    async def test_item_waits(self) -> None:
        """B4: the consumer of head() has not taken the item: it is told when that was."""
        token, log = CancelToken(), Log()
        log.start()
        async with with_status(with_cancellation(steps(log), token)) as stream:
            await stream.head()
            stop_softly(token)
            await anyio.sleep(1)
            assert log == [(1, "made 1")]
            assert [item async for item in stream] == [1, "last", "very last"]
        assert log[1:3] == [(2, "source: told to stop"), (2.5, "closed")]

    async def test_not_handled(self) -> None:
        """C23: what the source lets out, the consumer gets, plain."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            for number in range(9):
                yield number
                log(current_cancellation())
                await anyio.sleep(1)

        stream = with_cancellation(source(), token)
        await follow(stream, log, token, at=0.5)
        assert log == [(0, 0), (0, None), (1, 1), (1, "consumer: stop")]
        assert of(stream) == ("cancelled", "stop", 2)

    async def test_not_started(self) -> None:
        """C13: a source that has not started never does: it is in no step."""
        for before in True, False:
            token, log = CancelToken(), Log()
            if before:
                stop_softly(token)
            async with with_cancellation(steps(log), token) as stream:
                if not before:
                    stop_softly(token)
                with pytest.raises(StreamCancelled, match="stop"):
                    await anext(stream)
            assert log == []
            assert of(stream) == ("cancelled", "stop", 0)

    async def test_buffered(self) -> None:
        """B2: with read-ahead, it goes no further than its next yield, and all is taken before."""
        token, log = CancelToken(), Log()
        stream = with_buffer(with_cancellation(steps(log), token), 3)
        await follow(stream, log, token, at=2.5, busy=4)
        assert log == [
            (1, "made 1"),
            (1, 1),
            (2, "made 2"),
            (3, "made 3"),
            (5, 2),
            (9, 3),
            (9, "source: told to stop"),
            (9.5, "closed"),
            (13, "last"),
            (17, "very last"),
            (21, "end"),
        ]

    async def test_buffer_is_full(self) -> None:
        """B2: a source that waits for room is told where it is, when all was taken."""
        token, log = CancelToken(), Log()
        stream = with_buffer(with_cancellation(steps(log, seconds=0.25), token), 2)
        await follow(stream, log, token, at=2.5, busy=4)
        assert [entry for entry in log if entry[1] in (3, 4, "made 3", "made 4")] == [
            (0.75, "made 3"),
            (8.25, 3),
        ]
        assert (8.25, "source: told to stop") in log

    async def test_skipped(self) -> None:
        """C23: a yield whose item a stage has dropped is one: nothing of it is to be delivered."""
        token, log = CancelToken(), Log()

        class Odd(Stage[object, object]):
            def on_item(self, item: object) -> object | Skip:
                return item if item in (1, 3, "last", "very last") else SKIP

        stream = with_stage(with_cancellation(steps(log), token), Odd())
        await follow(stream, log, token, at=1.5)
        assert [what for _, what in log] == [
            *("made 1", 1, "made 2", "source: told to stop"),
            *("last", "very last", "closed", "end"),
        ]

    async def test_iterator_that_cannot_be_told(self) -> None:
        """C25: a plain iterator has no yield to raise at: it is closed between two items."""
        token = CancelToken()
        source = PlainSource(1, 2, 3)
        async with with_cancellation(source, token) as stream:
            assert await anext(stream) == 1
            stop_softly(token)
            with pytest.raises(StreamCancelled, match="stop"):
                await anext(stream)
        assert of(stream) == ("cancelled", "stop", 1)

    async def test_ends_before(self) -> None:
        """S10: the step was the last one: it is completed, and the stop has changed nothing."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            await anyio.sleep(1)

        stream = with_cancellation(source(), token)
        await follow(stream, log, token, at=0.5)
        assert log == [(0, 1), (1, "end")]
        assert of(stream) == ("completed", None, 1)

    async def test_after_the_end(self) -> None:
        """S10: the source is closed: nothing happens, and items of ``final`` come as asked."""
        token, log = CancelToken(), Log()

        class Adds(Stage[object, object]):
            def final(self, outcome: Outcome) -> Iterator[object]:
                for number in range(3):
                    log(f"made {number}")
                    yield number

        async def source() -> AsyncGenerator[object, None]:
            yield "item"

        stream = with_stage(with_cancellation(source(), token), Adds())
        await follow(stream, log, token, at=12, busy=10)
        assert [entry for entry in log if "made" in str(entry[1])] == [
            *((10, "made 0"), (10, "made 1"), (20, "made 2")),
        ]
        assert of(stream) == ("completed", None, 1)

    async def test_beats_go_on(self) -> None:
        """K7: until the step is done there are beats, and they go on in the grace."""
        token, log = CancelToken(), Log()
        stream = with_keepalive(with_cancellation(steps(log, seconds=3), token), 1, "beat")
        await follow(stream, log, token, at=0.5)
        assert log[:5] == [
            (1, "beat"),
            (2, "beat"),
            (3, "made 1"),
            (3, 1),
            (3, "source: told to stop"),
        ]

    async def test_in_a_generator_inside(self) -> None:
        """C22: at a yield, the innermost of several generators is told first, as by any token."""
        token, log = CancelToken(), Log()

        async def outer() -> AsyncGenerator[object, None]:
            try:
                async for item in steps(log):
                    yield item
            except BaseException as exc:
                log(f"outer: {kind(exc)}")
                raise

        stream = with_cancellation(outer(), token)
        await follow(stream, log, token, at=0.5)
        assert [what for _, what in log] == [
            *("made 1", 1, "source: told to stop", "closed", "outer: told to stop"),
            "consumer: stop",
        ]


class TestWhatComesBefore:
    """Until it is told, the source may be told otherwise, and that counts."""

    async def test_hard_stop(self) -> None:
        """C29: the token fires while the source is in its step: that is what it is told, at once"""
        token, log = CancelToken(), Log()
        stream = with_cancellation(steps(log), token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.75, token.cancel, "now")
            await follow(stream, log, token, at=1.5)
        assert log[2] == (1.75, "source: told to now")
        assert of(stream) == ("cancelled", "now", 3)

    async def test_hard_stop_before_the_item_is_taken(self) -> None:
        """C29: it waits for its item to be taken, and the token fires: told at once."""
        token, log = CancelToken(), Log()
        log.start()
        async with with_buffer(with_cancellation(steps(log), token), 2) as stream:
            assert await anext(stream) == 1
            await anyio.sleep(0.5)
            stop_softly(token)
            await anyio.sleep(2)
            assert log[1:] == [(2, "made 2")]
            token.cancel("now")
            await anyio.sleep(1)
            # Resumed at once: its next await raises.
            assert log[2] == (3.5, "source: told to now")
            assert [item async for item in stream] == [2, "last", "very last"]
        assert of(stream) == ("cancelled", "now", 4)

    async def test_after_it_was_told(self) -> None:
        """S10: the first that is delivered stays: one that comes later changes nothing."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(steps(log), token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 2.1, token.cancel, "now")
            await follow(stream, log, token, at=1.5)
        assert of(stream) == ("cancelled", "stop", 4)
        assert [what for _, what in log].count("source: told to now") == 0

    async def test_soft_after_hard(self) -> None:
        """C29: nor does a soft one after a hard one: of another token, or of this."""
        token, other, log = CancelToken(), CancelToken(), Log()
        stream = with_cancellation(steps(log), token, other)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 0.5, token.cancel, "now")
            await follow(stream, log, other, at=0.6)
        assert token.cancel("late", at_yield=True) is False
        assert log[0] == (0.5, "source: told to now")
        assert of(stream) == ("cancelled", "now", 2)

    async def test_soft_in_the_grace(self) -> None:
        """B1: nor does it let a source go on that waits for its consumer with a last item."""
        token, other, log = CancelToken(), CancelToken(), Log()
        stream = with_cancellation(steps(log), token, other)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 0.5, token.cancel, "now")
            await follow(stream, log, other, at=2, busy=10)
        assert log == [
            (0.5, "source: told to now"),
            (0.75, "last"),
            (11, "very last"),
            (21, "closed"),
            (21, "end"),
        ]

    async def test_two_soft_ones(self) -> None:
        """C29: the first of two tokens gives the reason."""
        one, two, log = CancelToken(), CancelToken(), Log()
        stream = with_cancellation(steps(log), one, two)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 0.6, stop_softly, two, "second")
            await follow(stream, log, one, at=0.5)
        assert of(stream) == ("cancelled", "stop", 3)

    async def test_limit(self) -> None:
        """C29: a limit is reached in the step: it counts, with its own kind."""
        token, log = CancelToken(), Log()
        stream = with_timeout(with_cancellation(steps(log, seconds=5), token), idle=2)
        await follow(stream, log, token, at=1.5)
        assert log[0][0] == 2
        assert log[-1] == (2.5, "end")
        assert of(stream)[0] == "timed_out"

    async def test_left(self) -> None:
        """L1: the consumer leaves before: the source is told that, where it is blocked."""
        token, log = CancelToken(), Log()
        log.start()
        async with with_cancellation(steps(log), token) as stream:
            assert await anext(stream) == 1
            with anyio.move_on_after(0.25):
                await anext(stream)
            stop_softly(token)
        assert log[1] == (1.25, "source: told that the consumer has left")
        assert of(stream)[0] == "closed"

    async def test_left_with_an_item(self) -> None:
        """L2: it leaves, and its item is not taken: the source at its yield is just closed."""
        token, log = CancelToken(), Log()
        log.start()
        async with with_buffer(with_cancellation(steps(log), token), 2) as stream:
            assert await anext(stream) == 1
            await anyio.sleep(0.5)
            stop_softly(token)
            await anyio.sleep(2)
        assert log == [
            (1, "made 1"),
            (2, "made 2"),
            (3.5, "source: GeneratorExit"),
            (3.5, "closed"),
        ]
        assert of(stream)[0] == "closed"

    async def test_error(self) -> None:
        """E1: the step fails: that is the error of the stream."""
        token = CancelToken()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            await anyio.sleep(1)
            raise LookupError("step")

        async with with_cancellation(source(), token) as stream:
            assert await anext(stream) == 1
            with anyio.move_on_after(0.5):
                await anext(stream)
            stop_softly(token)
            with pytest.raises(LookupError):
                await anext(stream)
        assert of(stream)[0] == "failed"

    async def test_consumer_is_cancelled_in_its_wait(self) -> None:
        """L12: a timeout around one ask ends that ask, and the step goes on to its yield."""
        token, log = CancelToken(), Log()
        log.start()
        async with with_cancellation(steps(log), token) as stream:
            with anyio.move_on_after(0.5):
                await anext(stream)
            stop_softly(token)
            with anyio.move_on_after(0.25):
                await anext(stream)
            assert [item async for item in stream] == [1, "last", "very last"]
        assert log[:2] == [(1, "made 1"), (1, "source: told to stop")]

    async def test_scope_of_the_source(self) -> None:
        """N2: a scope around its yield is over while the item waits: the source finds it later."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                with anyio.move_on_after(1) as scope:
                    yield 1
            except StreamCancelled as stop:
                log((stop.reason, scope.cancel_called))
                raise

        log.start()
        async with with_status(with_cancellation(source(), token)) as stream:
            await stream.head()
            stop_softly(token)
            await anyio.sleep(2)
            assert log == []
            assert await anext(stream) == 1
            with pytest.raises(StreamCancelled):
                await anext(stream)
        assert log == [(2, ("stop", True))]

    @pytest.mark.asyncio_only
    async def test_native_cancellation_of_the_source(self) -> None:
        """L11: an asyncio.timeout() around its yield is over while the item waits: that is first"""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                async with asyncio.timeout(1):
                    yield 1
            except TimeoutError:
                log("timeout")
            yield 2
            raise AssertionError("must not be reached")

        log.start()
        async with with_status(with_cancellation(source(), token)) as stream:
            await stream.head()
            stop_softly(token)
            await anyio.sleep(2)
            assert log == [(1, "timeout")]
            assert [await anext(stream), await anext(stream)] == [1, 2]
            with pytest.raises(StreamCancelled):
                await anext(stream)
        assert of(stream)[:2] == ("cancelled", "stop")


class TestNesting:
    async def test_not_inwards(self) -> None:
        """N7: streams inside go on as they do, until the outer one comes to its yield."""
        token, log = CancelToken(), Log()

        async def outer() -> AsyncGenerator[object, None]:
            async with with_cancellation(steps(log, seconds=0.5)) as inner:
                pair = list[object]()
                async for item in inner:
                    pair.append(item)
                    if len(pair) == 3:
                        yield pair
                        pair = []

        stream = with_cancellation(outer(), token)
        await follow(stream, log, token, at=0.25)
        assert [what for _, what in log] == [
            *("made 1", "made 2", "made 3", [1, 2, 3]),
            *("source: told to stop", "closed", "consumer: stop"),
        ]

    async def test_a_step_that_is_a_stream(self) -> None:
        """N7: a token of the inner stream ends that one alone, at its own yield."""
        token, log = CancelToken(), Log()

        async def outer() -> AsyncGenerator[object, None]:
            async with with_cancellation(steps(log), token) as inner:
                async for item in inner:
                    yield item
            yield "goes on"

        stream = with_cancellation(outer())
        await follow(stream, log, token, at=0.5)
        # The outer source has taken it, and hands it on.
        assert sorted(log[1:3], key=str) == [(1, "source: told to stop"), (1, 1)]
        assert [what for _, what in log[3:]] == ["last", "very last", "closed", "goes on", "end"]

    async def test_children_of_the_source(self) -> None:
        """N7: what its child tasks consume is told the reason when the source leaves their group"""
        token, log = CancelToken(), Log()

        async def child() -> None:
            async with with_cancellation(steps(log, seconds=50)) as inner:
                async for _ in inner:
                    raise AssertionError("must not get an item")

        async def outer() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                await anyio.sleep(1)
                yield 1

        stream = with_cancellation(outer(), token)
        await follow(stream, log, token, at=0.5)
        assert log == [
            (1, 1),
            (1, "source: told to stop"),
            (1.25, "closed"),
            (1.25, "consumer: stop"),
        ]

    async def test_many_streams(self) -> None:
        """C20: each stream of a token stops at its own yield, and none of them stops another."""
        token = CancelToken()
        logs = [Log() for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            for number, log in enumerate(logs):
                stream = with_cancellation(steps(log, seconds=number + 1), token)
                tasks.start_soon(lambda s=stream, log=log: follow(s, log, token, at=0.5))
        told = [[at for at, what in log if what == "source: told to stop"] for log in logs]
        assert told == [[1], [2], [3]]
