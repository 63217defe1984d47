"""The time that a source has for its clean-up, and what works in it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
import trio

from observing import blocked, call_later, consume, kind
from streamkit import CancelToken, StreamCancelled, with_cancellation
from support import START, Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from streamkit import Outcome
    from support import Backend


class TestGrace:
    async def test_time_of_a_slow_consumer_does_not_count(self) -> None:
        """C24: the clock of the grace stands still while the source waits for the consumer."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                for number in range(4):
                    await anyio.sleep(0.4)
                    yield number
            log("closed")

        stream = with_cancellation(source(), token, grace=2)
        await consume(stream, log, token, busy=10)
        assert log == [(1.4, 0), (11.8, 1), (22.2, 2), (32.6, 3), (42.6, "closed"), (42.6, "end")]
        assert not stream.outcome.grace_exceeded

    async def test_goes_on_after_a_pause(self) -> None:
        """C26: what the source takes between two pauses adds up, and it is cut at the sum."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                for number in range(4):
                    await anyio.sleep(0.75)
                    yield number

        stream = with_cancellation(source(), token, grace=2)
        await consume(stream, log, token, busy=10)
        # The consumer asks at 22.5, when half a second is left.
        assert log == [(1.75, 0), (12.5, 1), (23, "consumer: stop")]
        assert stream.outcome.grace_exceeded

    async def test_closing_takes_what_is_left(self) -> None:
        """C26: closing a source that was told takes the rest of its grace, not a second one."""
        token, log = CancelToken(), Log()

        class Slow:
            def __aiter__(self) -> Slow:
                return self

            async def __anext__(self) -> object:
                try:
                    await anyio.sleep_forever()
                finally:
                    await anyio.sleep(1.5)
                    log("told")
                raise AssertionError("must not be reached")

            async def aclose(self) -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    log("closing is cut")

        stream = with_cancellation(Slow(), token, grace=2)
        await consume(stream, log, token)
        assert log == [(2.5, "told"), (3, "closing is cut"), (3, "consumer: stop")]
        assert stream.outcome.grace_exceeded

    async def test_outer_scopes_are_shielded_off(self) -> None:
        """C30: a scope around the stream that is cancelled meanwhile does not reach clean-up."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled:
                await anyio.sleep(3)
                log("cleaned up")

        stream = with_cancellation(source(), token)
        with anyio.move_on_after(2) as scope:
            await consume(stream, log, token)
        assert scope.cancelled_caught
        assert log == [(4, "cleaned up")]

    @pytest.mark.real_time
    async def test_stream_in_a_loop_of_a_thread(self, backend: Backend) -> None:
        """C26: a stream in an event loop of a thread of the clean-up leaves the clock alone."""
        token = CancelToken()

        async def in_thread() -> None:
            async with with_cancellation(blocked(Log(), 1)) as inner:
                assert await anext(inner) == 1

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                run = partial(backend.run_bare, in_thread)
                await anyio.to_thread.run_sync(run)
                await anyio.sleep(5)

        async with with_cancellation(source(), token, grace=0.2) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
        assert stream.outcome is not None
        assert stream.outcome.grace_exceeded

    async def test_outer_scope_does_not_prolong_it(self) -> None:
        """C26: nor does it free a hanging source from the end of its grace."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled:
                try:
                    await anyio.sleep_forever()
                finally:
                    log("cut")

        stream = with_cancellation(source(), token, grace=2)
        with anyio.move_on_after(2) as scope:
            await consume(stream, log, token)
        assert scope.cancelled_caught
        assert log == [(3, "cut")]
        assert (stream.outcome.kind, stream.outcome.grace_exceeded) == ("cancelled", True)

    async def test_block_that_is_left_in_the_same_tick(self) -> None:
        """C24: the clock stands still for a block that a child leaves as the token fires."""
        token, log, go = CancelToken(), Log(), anyio.Event()

        async def inner() -> AsyncGenerator[object, None]:
            try:
                yield 1
            finally:
                await anyio.sleep(8)

        async def child() -> None:
            async with with_cancellation(inner(), grace=10) as stream:
                assert await anext(stream) == 1
                await go.wait()

        async def source() -> AsyncGenerator[object, None]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(child)
                    yield 1
                    await anyio.sleep_forever()
            finally:
                await anyio.sleep(1)
                log("closed")

        def fire() -> None:
            # The child is woken first.
            go.set()
            token.cancel("stop")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, fire)
            stream = with_cancellation(source(), token)
            await consume(stream, log)
        assert log == [(0, 1), (10, "closed"), (10, "consumer: stop")]
        assert not stream.outcome.grace_exceeded

    async def test_of_zero_at_an_await(self) -> None:
        """C24: with ``grace=0`` the source is told, too, and may do what needs no await."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled as stop:
                log(kind(stop))

        stream = with_cancellation(source(), token, grace=0)
        await consume(stream, log, token)
        assert log == [(1, "told to stop"), (1, "end")]
        assert not stream.outcome.grace_exceeded

    async def test_of_zero_at_a_yield(self) -> None:
        """C24: the same where the source comes to a yield before it awaits."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                yield 2
            except StreamCancelled as stop:
                log(kind(stop))

        stream = with_cancellation(source(), token, grace=0)
        await consume(stream, log, token, busy=10)
        assert log == [(0, 1), (1, "told to stop"), (10, 2), (20, "end")]
        assert (stream.outcome.kind, stream.outcome.grace_exceeded) == ("cancelled", False)

    async def test_of_zero_with_an_await(self) -> None:
        """C26: with ``grace=0`` the first await of the clean-up is cancelled."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                try:
                    await anyio.sleep(1)
                except BaseException as exc:
                    log(kind(exc))
                    raise

        stream = with_cancellation(source(), token, grace=0)
        await consume(stream, log, token)
        assert log == [(1, "told to stop"), (1, "cancelled"), (1, "consumer: stop")]
        assert stream.outcome.grace_exceeded


@pytest.mark.asyncio_only
class TestAskedTwice:
    """A native task, for which the source waits, swallows the request; the source waits again."""

    @pytest.mark.parametrize("has_child", [False, True])
    @pytest.mark.parametrize("grace", [1, 3, 5])
    async def test_told_at_the_next_wait(self, grace: float, has_child: bool) -> None:
        """C24: the source is told there, and has what is left of its grace, short or long."""
        token, log = CancelToken(), Log()

        async def stubborn() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
            await asyncio.sleep(0.25)

        async def source() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                if has_child:
                    tasks.start_soon(anyio.sleep_forever)
                yield 1
                try:
                    await asyncio.create_task(stubborn())
                    await asyncio.create_task(stubborn())
                    await anyio.sleep_forever()
                except StreamCancelled as exc:
                    log(kind(exc))
                    await anyio.sleep(100)

        stream = with_cancellation(source(), token, grace=grace)
        await consume(stream, log, token)
        assert log == [(0, 1), (1.5, "told to stop"), (1 + grace, "consumer: stop")]
        assert stream.outcome.grace_exceeded


class TestCleanUpThatFails:
    """C26: whether it was cut does not depend on what it raises then."""

    async def outcome(self, source: AsyncGenerator[int, None]) -> Outcome:
        stream = with_cancellation(source, grace=2)
        with pytest.raises(ValueError, match="clean-up"):
            async with stream:
                await anext(stream)
        assert str(stream.outcome.cleanup_error) == "clean-up"
        return stream.outcome

    async def test_after_it_was_cut(self) -> None:
        """C26: it is cut at the end of the grace, and raises another error: cut."""

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                try:
                    await anyio.sleep(3)
                finally:
                    raise ValueError("clean-up")

        assert (await self.outcome(source())).grace_exceeded
        assert anyio.current_time() == START + 2

    async def test_in_time(self) -> None:
        """C26: it is cancelled by a scope of its own, and raises an error: not cut."""

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                with anyio.move_on_after(1):
                    try:
                        await anyio.sleep(3)
                    finally:
                        raise ValueError("clean-up")

        assert not (await self.outcome(source())).grace_exceeded

    async def test_that_nothing_can_cut(self) -> None:
        """C26: it takes longer than the grace in a shield of its own, then raises: not cut."""

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3)
                raise ValueError("clean-up")

        assert not (await self.outcome(source())).grace_exceeded

    async def test_closed_after_it_was_cut(self) -> None:
        """C26: it is cut, yields all the same, and raises an error when it is closed: cut."""
        token = CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            for _ in range(2):
                with suppress(BaseException):
                    await anyio.sleep(3)
            try:
                yield 2
            finally:
                raise ValueError("clean-up")

        stream = with_cancellation(source(), token, grace=2)
        with pytest.raises(ValueError, match="clean-up"):
            async with stream:
                assert await anext(stream) == 1
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call_later, 1, token.cancel, "stop")
                    assert await anext(stream) == 2
                async for _ in stream:
                    raise AssertionError("must not go on")
        assert stream.outcome.grace_exceeded


# What a clean-up may await. Each takes less than a second.


async def anyio_task_group() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 0.5)
        await anyio.sleep(0.25)


async def anyio_cancelled_task_group() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        await anyio.sleep(0.25)
        tasks.cancel_scope.cancel()


async def anyio_failed_task_group() -> None:
    async def fail() -> None:
        await anyio.sleep(0.25)
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            await anyio.sleep_forever()


async def anyio_fail_after() -> None:
    with anyio.fail_after(1):
        await anyio.sleep(0.25)


async def anyio_fail_after_that_expires() -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.25):
            await anyio.sleep_forever()


async def anyio_shield() -> None:
    with anyio.move_on_after(0.25, shield=True) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def anyio_lock_and_stream() -> None:
    send, receive = anyio.create_memory_object_stream[int]()
    async with anyio.Lock(), anyio.create_task_group() as tasks, send, receive:
        tasks.start_soon(send.send, 1)
        assert await receive.receive() == 1


async def asyncio_timeout() -> None:
    async with asyncio.timeout(1):
        await asyncio.sleep(0.25)


async def asyncio_timeout_that_expires() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await asyncio.sleep(60)


async def asyncio_task_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0.5))
        await asyncio.sleep(0.25)


async def asyncio_failed_task_group() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.25)
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await asyncio.sleep(60)


async def asyncio_wait_for() -> None:
    assert await asyncio.wait_for(asyncio.sleep(0.25, "done"), 1) == "done"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(60), 0.25)


async def asyncio_gather_and_shield() -> None:
    first, second = await asyncio.gather(asyncio.sleep(0.25, 1), asyncio.sleep(0.5, 2))
    assert (first, second) == (1, 2)
    await asyncio.shield(asyncio.sleep(0.25))


async def trio_nursery() -> None:
    async with trio.open_nursery() as tasks:
        tasks.start_soon(trio.sleep, 0.5)
        await trio.sleep(0.25)


async def trio_timeouts() -> None:
    with trio.fail_after(1):
        await trio.sleep(0.25)
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(0.25):
            await trio.sleep_forever()
    with trio.move_on_after(0.25):
        await trio.sleep_forever()


occasion = pytest.mark.parametrize(
    "occasion",
    [
        "told while blocked",
        "told at a yield",
        "told in an inner stream while blocked",
        "told in an inner stream at a yield",
        "left",
        "cancelled",
    ],
)


@occasion
class TestCleanUp:
    @pytest.mark.parametrize(
        "clean_up",
        [
            anyio_task_group,
            anyio_cancelled_task_group,
            anyio_failed_task_group,
            anyio_fail_after,
            anyio_fail_after_that_expires,
            anyio_shield,
            anyio_lock_and_stream,
        ],
    )
    async def test_with_anyio(self, clean_up: Callable[[], Awaitable[None]], occasion: str) -> None:
        """C30: groups, timeouts, shields and locks of anyio work in a clean-up."""
        await self.check(clean_up, occasion)

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize(
        "clean_up",
        [
            asyncio_timeout,
            asyncio_timeout_that_expires,
            asyncio_task_group,
            asyncio_failed_task_group,
            asyncio_wait_for,
            asyncio_gather_and_shield,
        ],
    )
    async def test_with_asyncio(
        self, clean_up: Callable[[], Awaitable[None]], occasion: str
    ) -> None:
        """C30: so do those of asyncio, which look at ``Task.cancelling()``."""
        await self.check(clean_up, occasion)

    @pytest.mark.trio_only
    @pytest.mark.parametrize("clean_up", [trio_nursery, trio_timeouts])
    async def test_with_trio(self, clean_up: Callable[[], Awaitable[None]], occasion: str) -> None:
        """C30: so do those of trio."""
        await self.check(clean_up, occasion)

    @pytest.mark.real_time
    async def test_with_a_thread(self, occasion: str) -> None:
        """C30: so does a worker thread (in real time: a virtual clock does not wait for it)."""

        async def clean_up() -> None:
            assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()

        await self.check(clean_up, occasion, tick=0.1)

    async def check(
        self, clean_up: Callable[[], Awaitable[None]], occasion: str, tick: float = 1.0
    ) -> None:
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            except BaseException as exc:
                log(kind(exc))
                # Twice, for one cancellation could be spent by the first.
                await clean_up()
                await clean_up()
                log("cleaned up")
                raise

        async def outer() -> AsyncGenerator[object, None]:
            async with with_cancellation(source()) as inner:
                async for item in inner:
                    if "at a yield" in occasion:
                        log(item)
                        await anyio.sleep_forever()
                    yield item

        stream = with_cancellation(outer() if "inner" in occasion else source(), token)
        if occasion == "left":
            async with stream:
                log(await anext(stream))
        elif occasion == "cancelled":
            with anyio.move_on_after(tick):
                await consume(stream, log, busy=5 * tick)
        else:
            busy = 5 * tick if "at a yield" in occasion else 0
            await consume(stream, log, token, after=tick, busy=busy)
        if "told" in occasion:
            assert log.events == [1, "told to stop", "cleaned up", "consumer: stop"]
        else:
            assert log.events == [1, "GeneratorExit", "cleaned up"]
