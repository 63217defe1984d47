"""Cancellation from outside: tokens, scopes, timeouts and ``Task.cancel()``, and who wins."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chains import ALONE, ORDERS, TWICE, Chain, any_chain, wrap
from observing import blocked, call_later, consume, kind
from streamkit import CancelToken, StreamCancelled, with_cancellation
from support import Log, PlainSource, aiter_of, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

chain_with_token = pytest.mark.parametrize(
    "chain",
    [chain for chain in (*ALONE, *ORDERS, *TWICE) if "cancellation" in chain],
    ids="+".join,
)


class Untouchable:
    """A source that must only be closed."""

    closed = 0

    def __aiter__(self) -> Untouchable:
        return self

    async def __anext__(self) -> object:
        raise AssertionError("must not be iterated")

    async def aclose(self) -> None:
        self.closed += 1


class TestOuterScope:
    @any_chain
    async def test_before_the_first_item(self, chain: Chain) -> None:
        """C1: a scope cancelled before the first ask: the source never runs, nothing warns."""

        async def source() -> AsyncGenerator[object, None]:
            raise AssertionError("must not be run")
            yield None

        stream = wrap(source(), chain)
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with stream:
                async for _ in stream:
                    raise AssertionError("must not get an item")
        assert scope.cancelled_caught
        assert (stream.outcome.kind, stream.outcome.items) == ("closed", 0)

    async def test_in_the_block(self) -> None:
        """C1: the same when it is cancelled inside the block; the source is closed."""
        source = Untouchable()
        with anyio.CancelScope() as scope:
            async with with_cancellation(source) as stream:
                scope.cancel()
                await anext(stream)
                raise AssertionError("must not get an item")
        assert scope.cancelled_caught
        assert source.closed == 1

    @any_chain
    async def test_source_is_blocked(self, chain: Chain) -> None:
        """C2: the source hears at its await that the consumer has left, who then leaves."""
        log = Log()
        stream = wrap(blocked(log, 1), chain)
        with anyio.move_on_after(1) as scope:
            try:
                await consume(stream, log)
            except anyio.get_cancelled_exc_class():
                log("consumer: cancelled")
                raise
        assert scope.cancelled_caught
        assert log == [
            (0, 1),
            (1, "source: told that the consumer has left"),
            (1, "closed"),
            (1, "consumer: cancelled"),
        ]
        assert stream.outcome.kind == "closed"

    @any_chain
    async def test_body_is_busy(self, chain: Chain) -> None:
        """C3: the body sees the cancellation, then the source cleans up: each of them once."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
            except BaseException as exc:
                log(f"source: {kind(exc)}")
                raise
            finally:
                await anyio.sleep(1)
                log("closed")

        with anyio.move_on_after(1) as scope:
            async with wrap(source(), chain) as stream:
                async for item in stream:
                    log(item)
                    try:
                        await anyio.sleep_forever()
                    except BaseException as exc:
                        log(f"body: {kind(exc)}")
                        raise
        assert scope.cancelled_caught
        assert log == [
            (0, 1),
            (1, "body: cancelled"),
            (1, "source: GeneratorExit"),
            (2, "closed"),
        ]

    @pytest.mark.parametrize("leave", ["by the scope", "by the consumer"])
    async def test_source_resists(self, leave: str) -> None:
        """C6: a source that catches what it was told has its grace, then no await that goes on."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            for attempt in range(3):
                try:
                    await anyio.sleep_forever()
                except (StreamCancelled, anyio.get_cancelled_exc_class()) as exc:
                    log(f"{attempt}: {kind(exc)}")
            await anyio.sleep_forever()
            raise AssertionError("must not be reached")

        log.start()
        with anyio.CancelScope() as outer:
            async with with_cancellation(source(), grace=2) as stream:
                assert await anext(stream) == 1
                async with anyio.create_task_group() as tasks:
                    if leave == "by the scope":
                        tasks.start_soon(call_later, 1, outer.cancel)
                    else:
                        tasks.start_soon(call_later, 1, tasks.cancel_scope.cancel)
                    await anext(stream)
        assert outer.cancelled_caught == (leave == "by the scope")
        assert log == [
            (1, "0: told that the consumer has left"),
            (3, "1: cancelled"),
            (3, "2: cancelled"),
        ]
        assert (stream.outcome.kind, stream.outcome.grace_exceeded) == ("closed", True)


class TestScopesAndTimers:
    async def test_scope_of_the_source(self) -> None:
        """C4: a scope around one await of the source expires: the slow consumer sees nothing."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            for number in range(3):
                with anyio.move_on_after(0.05) as scope:
                    await anyio.sleep_forever()
                assert scope.cancelled_caught
                yield number

        await consume(with_cancellation(source()), log, busy=1)
        assert log == [(0.05, 0), (1.1, 1), (2.15, 2), (3.15, "end")]

    @any_chain
    async def test_timers_leave_the_body_alone(self, chain: Chain) -> None:
        """C5: no timer of a combinator touches a body that takes five times as long."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            for number in range(3):
                await anyio.sleep(1.5)
                yield number

        async with wrap(source(), chain, interval=1) as stream:
            async for item in stream:
                log(item)
                await anyio.sleep(5)
                log("body done")
        beats = log.events.count("beat")
        assert beats == (3 if "keepalive" in chain else 0)
        assert [item for item in log.events[::2] if item != "beat"] == [0, 1, 2]
        starts, ends = log[::2], log[1::2]
        assert ends == [(seconds + 5, "body done") for seconds, _ in starts]

    @chain_with_token
    async def test_grace_leaves_the_body_alone(self, chain: Chain) -> None:
        """C5: nor does the grace of a source that is cancelled while the body is busy."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                yield "last"

        await consume(wrap(source(), chain, token=token), log, token, busy=25)
        assert log == [(0, 1), (25, "last"), (50, "end")]


@pytest.mark.asyncio_only
class TestNativeCancellation:
    @any_chain
    async def test_during_an_ask(self, chain: Chain) -> None:
        """C7: ``Task.cancel()`` comes out of the block as it is, and the source is closed."""
        log = Log()
        scope = anyio.CancelScope()

        async def main() -> None:
            with scope:
                await consume(wrap(blocked(log, 1), chain), log)

        task = asyncio.create_task(main())
        await wait_all_blocked()
        task.cancel("mine")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert task.cancelling() == 1
        assert not scope.cancelled_caught
        assert log.events == [1, "source: told that the consumer has left", "closed"]

    async def test_while_the_body_is_busy(self) -> None:
        """C7: the same while the source waits at its yield."""
        log = Log()
        task = asyncio.create_task(consume(with_cancellation(blocked(log, 1)), log, busy=9))
        await wait_all_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert log.events == [1, "source: GeneratorExit", "closed"]

    async def test_while_the_block_waits_for_the_source(self) -> None:
        """C7: the same while the source cleans up, which it may finish nevertheless."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
            finally:
                await anyio.sleep(2)
                log("closed")

        async def main() -> None:
            async with with_cancellation(source()) as stream:
                await anext(stream)

        log.start()
        task = asyncio.create_task(main())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert log == [(2, "closed")]

    async def test_while_the_block_waits_for_a_source_that_was_told(self) -> None:
        """C9: the same where the body's ``StreamCancelled`` interrupts the source: it counts."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep(60)
            finally:
                await anyio.sleep(2)
                log("closed")

        async def main() -> None:
            async with with_cancellation(source()) as stream:
                await anext(stream)
                raise StreamCancelled("stop")

        log.start()
        task = asyncio.create_task(main())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert log == [(2, "closed")]

    @pytest.mark.parametrize("first", ["token", "task"])
    async def test_with_a_token_in_the_same_tick(self, first: str) -> None:
        """C8: the token goes to the source, and the task ends cancelled nevertheless."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(blocked(log, 1), token)
        task = asyncio.create_task(consume(stream, log))
        await wait_all_blocked()
        if first == "token":
            token.cancel("stop")
            task.cancel()
        else:
            task.cancel()
            token.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert log.events == [1, "source: told to stop", "closed"]
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")

    @chain_with_token
    async def test_timeout_that_does_not_fire(self, chain: Chain) -> None:
        """C9: a token leaves no trace on the consumer's task, whose timeout still works."""
        token, log = CancelToken(), Log()
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10) as timeout:
                await consume(wrap(blocked(log), chain, token=token), log, token)
                assert task.cancelling() == 0
                assert not timeout.expired()
                await asyncio.sleep(60)
        assert task.cancelling() == 0
        log("timed out")
        assert log == [
            (1, "source: told to stop"),
            (1, "closed"),
            (1, "consumer: stop"),
            (10, "timed out"),
        ]

    async def test_source_task_during_grace(self) -> None:
        """C9: nor does it leave one on the source's task: clean-up is not being cancelled."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            task = asyncio.current_task()
            assert task is not None
            try:
                await asyncio.sleep(60)
            except StreamCancelled:
                log(task.cancelling())
                await asyncio.sleep(1)
                log(task.cancelling())
                yield "last"

        await consume(with_cancellation(source(), token), log, token)
        assert log == [(1, 0), (2, 0), (2, "last"), (2, "end")]


@asynccontextmanager
async def fail_after(seconds: float) -> AsyncIterator[None]:
    with anyio.fail_after(seconds):
        yield None


async def race(timeout: AbstractAsyncContextManager[Any], token_after: float) -> Log:
    """Consume a source that needs two seconds to clean up, under a timeout of 1.5 seconds."""
    token, log = CancelToken(), Log()

    async def source() -> AsyncGenerator[object, None]:
        try:
            await anyio.sleep_forever()
            yield None
        except BaseException as exc:
            log(f"source: {kind(exc)}")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            log("closed")
            raise

    stream = with_cancellation(source(), token)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_later, token_after, token.cancel, "stop")
        with pytest.raises(TimeoutError):
            async with timeout:
                await consume(stream, log)
        log("timed out")
    assert token.cancelled
    log(stream.outcome.kind)
    return log


TOKEN_FIRST = [
    (1, "source: told to stop"),
    (3, "closed"),
    (3, "timed out"),
    (3, "cancelled"),
]
TIMEOUT_FIRST = [
    (1.5, "source: told that the consumer has left"),
    (3.5, "closed"),
    (3.5, "timed out"),
    (3.5, "closed"),
]


class TestTokenAndTimeout:
    async def test_anyio_timeout(self) -> None:
        """C10: the source sees what came first, and the timeout fires whatever came first."""
        assert await race(fail_after(1.5), token_after=1) == TOKEN_FIRST
        assert await race(fail_after(1.5), token_after=2) == TIMEOUT_FIRST

    @pytest.mark.asyncio_only
    async def test_asyncio_timeout(self) -> None:
        """C10: the same with ``asyncio.timeout()``, which cancels the consumer's task."""
        assert await race(asyncio.timeout(1.5), token_after=1) == TOKEN_FIRST
        assert await race(asyncio.timeout(1.5), token_after=2) == TIMEOUT_FIRST

    async def test_token_and_scope_in_one_tick(self) -> None:
        """C10: a token and a scope in the same tick: the source is told, the scope is left."""
        token, log = CancelToken(), Log()
        stream = with_cancellation(blocked(log, 1), token)

        def both() -> None:
            token.cancel("stop")
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, both)
            with anyio.CancelScope() as scope:
                await consume(stream, log)
        assert scope.cancelled_caught
        assert log == [(0, 1), (1, "source: told to stop"), (1, "closed")]
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")


class TestManagers:
    """Signals that are context managers: a poller, or an entry in a registry."""

    @asynccontextmanager
    async def poller(self, error: Exception | None = None) -> AsyncIterator[CancelToken]:
        """Yield a token, with a task beside it, which may fail."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.poll, error)
            yield CancelToken()
            tasks.cancel_scope.cancel()

    async def poll(self, error: Exception | None) -> None:
        await anyio.sleep_forever() if error is None else await anyio.sleep(1)
        assert error is not None
        raise error

    async def test_holds_a_task_group(self) -> None:
        """E1: the body raises while a signal holds a task group: that object, in no group."""
        error = ValueError("body")
        with pytest.raises(ValueError, match="body") as caught:
            async with with_cancellation(aiter_of(1), self.poller()) as stream:
                assert await anext(stream) == 1
                raise error
        assert caught.value is error

    async def test_fails(self) -> None:
        """E1: a task of the signal fails: the source is closed, and its error leaves the block."""
        error, log = LookupError("poller"), Log()
        with pytest.raises(ExceptionGroup) as caught:
            async with with_cancellation(blocked(log), self.poller(error)) as stream:
                async for _ in stream:
                    pass
        assert caught.value.exceptions == (error,)
        assert log.events == ["source: told that the consumer has left", "closed"]

    async def test_fails_with_the_body(self) -> None:
        """E3: a task of the signal and the body fail: both are raised."""
        poller, body = LookupError("poller"), ValueError("body")
        with pytest.raises(ExceptionGroup) as caught:
            async with with_cancellation(aiter_of(1), self.poller(poller)):
                try:
                    await anyio.sleep_forever()
                finally:
                    raise body
        assert set(caught.value.exceptions) == {poller, body}

    @pytest.mark.parametrize("failing", ["body", "source"])
    async def test_suppresses(self, failing: str) -> None:
        """E1: a signal that suppresses an error does so, as it would without a stream."""
        error, token = LookupError(failing), CancelToken()

        @contextmanager
        def suppressing() -> Iterator[CancelToken]:
            with suppress(LookupError):
                yield token

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            raise error

        async with with_cancellation(source(), suppressing()) as stream:
            assert await anext(stream) == 1
            if failing == "source":
                await anext(stream)
            raise error


class TestTokens:
    @chain_with_token
    async def test_cancelled_before_the_block(self, chain: Chain) -> None:
        """C13: the first ask raises; the source is never started, but it is closed."""
        token, log, source = CancelToken(), Log(), Untouchable()
        token.cancel("stop")
        stream = wrap(source, chain, token=token)
        await consume(stream, log)
        assert log == [(0, "consumer: stop")]
        assert source.closed == 1
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")

    async def test_cancelled_before_the_first_ask(self) -> None:
        """C13: the same when the token fires inside the block, before the first ask."""
        token, source = CancelToken(), Untouchable()
        async with with_cancellation(source, token) as stream:
            token.cancel("stop")
            with pytest.raises(StreamCancelled) as caught:
                await anext(stream)
            assert caught.value.reason == "stop"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert source.closed == 1

    async def test_cancelled_after_the_end(self) -> None:
        """C13: a token that fires when the source has finished changes nothing."""
        token = CancelToken()
        async with with_cancellation(aiter_of(1), token) as stream:
            assert [item async for item in stream] == [1]
            assert token.cancel("stop")
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert (stream.outcome.kind, stream.outcome.reason) == ("completed", None)

    async def test_cancelled_twice(self) -> None:
        """C14: the first call fires the token, and its reason stays."""
        token, log = CancelToken(), Log()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(blocked(log), token), log)
            await wait_all_blocked()
            assert token.cancel("a") is True
            assert token.cancel("b") is False
        assert token.reason == "a"
        assert log.events == ["source: told to a", "closed", "consumer: a"]

    async def test_serves_two_streams(self) -> None:
        """C20: a consumer that is cancelled ends its own stream, and leaves the token alone."""
        token, first, second = CancelToken(), Log(), Log()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(blocked(second), token), second)
            with anyio.move_on_after(1):
                await consume(with_cancellation(blocked(first), token), first)
            assert not token.cancelled
            await anyio.sleep(1)
            token.cancel("stop")
        assert first == [(1, "source: told that the consumer has left"), (1, "closed")]
        assert second == [(2, "source: told to stop"), (2, "closed"), (2, "consumer: stop")]

    async def test_listens_only_while_the_stream_is_open(self) -> None:
        """C20: a stream leaves nothing on a token that outlives it."""
        token = CancelToken()
        source = PlainSource(1)
        gone = weakref.ref(source)
        async with with_cancellation(source, token) as stream:
            assert await anext(stream) == 1
        del source, stream
        gc.collect()
        assert gone() is None
        assert token.cancel()


class TestSignalsAtOnce:
    @pytest.mark.parametrize("first", [0, 1])
    @pytest.mark.parametrize("stages", [1, 2])
    async def test_two_tokens(self, first: int, stages: int) -> None:
        """C29: two signals in the same tick: the first wins, and there is one exception."""
        log = Log()
        inner, outer = tokens = CancelToken(), CancelToken()
        if stages == 1:
            stream = with_cancellation(blocked(log, 1), inner, outer)
        else:
            stream = with_cancellation(with_cancellation(blocked(log, 1), inner), outer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, stream, log)
            await wait_all_blocked()
            tokens[first].cancel(first)
            tokens[1 - first].cancel(1 - first)
        assert log.events == [1, f"source: told to {first}", "closed", f"consumer: {first}"]
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", first)
