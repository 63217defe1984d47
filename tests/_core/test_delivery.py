"""What a source sees of a signal: where it is raised, when, and what the source may do then."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from chains import ALONE, ORDERS, TWICE, Chain, wrap
from observing import blocked, call_later, consume, kind
from streamkit import CancelToken, Stream, StreamCancelled, current_cancellation, with_cancellation
from support import Log, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

TaskGroup = Any  # of anyio, asyncio or trio

chain_with_token = pytest.mark.parametrize(
    "chain",
    [chain for chain in (*ALONE, *ORDERS, *TWICE) if "cancellation" in chain],
    ids="+".join,
)


def outcome_of(stream: Stream[Any]) -> tuple[object, ...]:
    return stream.outcome.kind, stream.outcome.reason, stream.outcome.grace_exceeded


class TestTaskGroups:
    """A source with children of its own."""

    async def child(self, log: Log) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            log("child done")

    async def in_the_body(self, group: TaskGroup, start: str, log: Log) -> AsyncIterator[object]:
        async with group as tasks:
            self.start(tasks, start, log)
            yield 1
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                log("source: told")
                raise

    async def in_aexit(self, group: TaskGroup, start: str, log: Log) -> AsyncIterator[object]:
        yield 1
        async with group as tasks:
            self.start(tasks, start, log)
        raise AssertionError("must not be reached")

    def start(self, tasks: TaskGroup, start: str, log: Log) -> None:
        if start == "create_task":
            tasks.create_task(self.child(log))
        else:
            tasks.start_soon(self.child, log)

    async def check_body(self, group: TaskGroup, start: str = "start_soon") -> None:
        token, log = CancelToken(), Log()
        stream = with_cancellation(self.in_the_body(group, start, log), token)
        await consume(stream, log, token)
        assert log == [
            (0, 1),
            (1, "source: told"),
            (2, "child done"),
            (2, "consumer: stop"),
        ]
        assert outcome_of(stream) == ("cancelled", "stop", False)

    async def check_aexit(self, group: TaskGroup, start: str = "start_soon") -> None:
        token, log = CancelToken(), Log()
        stream = with_cancellation(self.in_aexit(group, start, log), token)
        await consume(stream, log, token)
        assert log == [(0, 1), (2, "child done"), (2, "consumer: stop")]
        assert outcome_of(stream) == ("cancelled", "stop", False)

    async def test_anyio_body(self) -> None:
        """C11: children are cancelled and awaited before the stream ends."""
        await self.check_body(anyio.create_task_group())

    @pytest.mark.asyncio_only
    async def test_asyncio_body(self) -> None:
        """C11: the same with ``asyncio.TaskGroup``."""
        await self.check_body(asyncio.TaskGroup(), "create_task")

    @pytest.mark.trio_only
    async def test_trio_body(self) -> None:
        """C11: the same with a nursery, whose group of one exception is unwrapped."""
        async with trio.open_nursery() as outer:
            del outer
            await self.check_body(trio.open_nursery())

    async def test_anyio_aexit(self) -> None:
        """
        C12: a source that waits in ``__aexit__`` does not go on before its children are done.

        On trio it sees the backend's own cancellation there: the nursery swallows nothing else.
        The outcome and what the consumer sees are the same.
        """
        await self.check_aexit(anyio.create_task_group())

    @pytest.mark.asyncio_only
    async def test_asyncio_aexit(self) -> None:
        """C12: the same with ``asyncio.TaskGroup``."""
        await self.check_aexit(asyncio.TaskGroup(), "create_task")

    @pytest.mark.trio_only
    async def test_trio_aexit(self) -> None:
        """C12: the same with a nursery."""
        await self.check_aexit(trio.open_nursery())

    async def test_reason_is_known_in_aexit(self) -> None:
        """C12: whatever the class of the exception, the reason is known there."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncIterator[object]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                raise AssertionError("must not be reached")
                yield None
            finally:
                log(current_cancellation())

        await consume(with_cancellation(source(), token), log, token)
        assert log == [(1, "stop"), (1, "consumer: stop")]


class TestShields:
    async def test_shielded_scope(self) -> None:
        """C17: the shielded part is whole, and the signal is delivered right after it."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2)
                    with anyio.move_on_after(1) as scope:
                        await anyio.sleep_forever()
                    log(f"whole: {scope.cancelled_caught}")
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                raise

        await consume(with_cancellation(source(), token), log, token)
        assert log == [(0, 1), (3, "whole: True"), (3, "told to stop"), (3, "consumer: stop")]

    async def test_shield_as_long_as_the_grace(self) -> None:
        """C17: so it is where the shield ends when the grace would."""
        log, token = Log(), CancelToken()

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            with anyio.move_on_after(5, shield=True):
                await anyio.sleep(1)
                log("whole")
            await anyio.sleep(1)
            log("must not be reached")

        async with with_cancellation(source(), token, grace=5) as stream:
            assert await anext(stream) == "a"
            token.cancel("stop")
            with pytest.raises(StreamCancelled):
                await anext(stream)
        assert log.events == ["whole"]

    @pytest.mark.trio_only
    async def test_trio_sleep_in_a_shield(self) -> None:
        """C17: the end of ``trio.sleep()``, itself a cancellation, is not taken for the signal."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                with trio.CancelScope(shield=True):
                    for _ in range(3):
                        await trio.sleep(1)
                    with trio.move_on_after(0.5):
                        await trio.sleep_forever()
                    log("whole")
                await trio.sleep(60)
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                raise

        await consume(with_cancellation(source(), token), log, token, after=0.5)
        assert log == [(3.5, "whole"), (3.5, "told to stop"), (3.5, "consumer: stop")]

    async def test_shield_at_the_yield(self) -> None:
        """C17: a shield that the source holds across its yield delays nothing but the await."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            with anyio.CancelScope(shield=True):
                yield 1
                await anyio.sleep(2)
                log("whole")
            try:
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                yield "last"

        await consume(with_cancellation(source(), token), log, token, busy=10)
        assert log == [(0, 1), (3, "whole"), (3, "told to stop"), (10, "last"), (20, "end")]

    async def test_worker_thread(self) -> None:
        """C18: an uncancellable thread delays the delivery, and is not left behind."""
        token, log, released = CancelToken(), Log(), threading.Event()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.to_thread.run_sync(released.wait)
                log("thread done")
                await anyio.sleep_forever()
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                raise

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 2, released.set)
            await consume(with_cancellation(source(), token), log, token)
        assert log == [(2, "thread done"), (2, "told to stop"), (2, "consumer: stop")]
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0

    @pytest.mark.asyncio_only
    async def test_future_that_cannot_be_cancelled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C19: nothing spins while the source waits on it; the signal is delivered after it."""
        token, log = CancelToken(), Log()
        loop = asyncio.get_running_loop()
        call_soon = Mock(wraps=loop.call_soon)

        class Stubborn(asyncio.Future[None]):
            def cancel(self, msg: object = None) -> bool:
                return False

        future = Stubborn()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await future
                await asyncio.sleep(60)
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                raise

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(source(), token), log)
            await wait_all_blocked()
            token.cancel("stop")
            with monkeypatch.context() as patch:
                patch.setattr(loop, "call_soon", call_soon)
                for _ in range(100):
                    await asyncio.sleep(0)
            # One call for each pass is this test's own.
            assert call_soon.call_count < 120
            assert log == []
            future.set_result(None)
        assert log.events == ["told to stop", "consumer: stop"]

    @pytest.mark.asyncio_only
    async def test_task_that_cleans_up(self) -> None:
        """C19: a task that the source waits for is cancelled once, and may clean up first."""
        token, log = CancelToken(), Log()

        async def job() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(2)
                log("job done")

        async def source() -> AsyncGenerator[object, None]:
            task = asyncio.create_task(job())
            try:
                await task
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                await asyncio.sleep(1)
                log("cleaned up")
                raise

        await consume(with_cancellation(source(), token), log, token)
        assert log == [
            (3, "job done"),
            (3, "told to stop"),
            (4, "cleaned up"),
            (4, "consumer: stop"),
        ]


async def native_gather() -> None:
    # It makes an exception of its own where none of the tasks has raised one.
    await asyncio.gather(swallowing(), swallowing(), return_exceptions=True)


async def native_task_raising_anew() -> None:
    async def job() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise asyncio.CancelledError

    await asyncio.create_task(job())


async def native_task_failing() -> None:
    async def job() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise LookupError

    try:
        await asyncio.create_task(job())
    except LookupError:
        await asyncio.sleep(60)


async def native_task_swallowing() -> None:
    await asyncio.create_task(swallowing())
    await asyncio.sleep(60)


async def swallowing() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)


@pytest.mark.asyncio_only
class TestNativeTasks:
    @pytest.mark.parametrize(
        "wait",
        [native_gather, native_task_raising_anew, native_task_failing, native_task_swallowing],
    )
    async def test_that_do_not_pass_it_on(self, wait: Callable[[], Awaitable[None]]) -> None:
        """C19: what the source awaits is cancelled, and ends in a way of its own: the source is
        told once, and no request is left in its task."""
        token, log = CancelToken(), Log()

        async def fail() -> None:
            await asyncio.sleep(0)
            raise LookupError

        async def source() -> AsyncGenerator[object, None]:
            task = asyncio.current_task()
            assert task is not None
            try:
                yield 1
                await wait()
            except BaseException as exc:
                log(kind(exc))
                assert not task.cancelling()
                with pytest.raises(BaseExceptionGroup):
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(fail())
                await asyncio.sleep(1)
                log("cleaned up")
                raise

        await consume(with_cancellation(source(), token), log, token)
        assert log == [
            (0, 1),
            (1, "told to stop"),
            (2, "cleaned up"),
            (2, "consumer: stop"),
        ]


class TestDeadlines:
    @pytest.mark.parametrize("seconds", [0.25, 1.5, 3])
    async def test_near_in_a_source_with_children(self, seconds: float) -> None:
        """C21: a deadline of the source's own delays nothing, however near, and whatever runs."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                yield 1
                try:
                    for _ in range(20):
                        with anyio.move_on_after(seconds):
                            await anyio.sleep_forever()
                except StreamCancelled as stop:
                    log(kind(stop))
                    raise

        await consume(with_cancellation(source(), token), log, token, after=1.1)
        assert log == [(0, 1), (1.1, "told to stop"), (1.1, "consumer: stop")]

    async def test_near_in_a_shield(self) -> None:
        """C17: nor does that of a shield, which is whole: the signal is delivered after it."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                yield 1
                with anyio.move_on_after(1.5, shield=True):
                    await anyio.sleep(1.25)
                    log("whole")
                await anyio.sleep(60)

        await consume(with_cancellation(source(), token), log, token)
        assert log == [(0, 1), (1.25, "whole"), (1.25, "consumer: stop")]


class TestWhere:
    @chain_with_token
    async def test_silent_source(self, chain: Chain) -> None:
        """
        C21: a blocked source is told in the next iteration of the loop.

        A second checkpoint is needed on trio, which runs the tasks of an iteration in any order.
        """
        token, log = CancelToken(), Log()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, wrap(blocked(log), chain, token=token, interval=7), log)
            await anyio.sleep(3600)
            log.clear()  # of beats
            token.cancel("stop")
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            assert log[0] == (3600, "source: told to stop")
        assert log.events == ["source: told to stop", "closed", "consumer: stop"]

    @pytest.mark.parametrize("at", ["await", "yield"])
    async def test_deep_source(self, at: str) -> None:
        """
        C22: the innermost of ten plain generators is told first, then each around it.

        The leak check sees to it that none of them is left to the garbage collector. At a yield it
        is the next await that raises, in the innermost frame again.
        """
        token, log = CancelToken(), Log()

        async def layer(depth: int) -> AsyncGenerator[object, None]:
            try:
                if depth == 10:
                    yield 1
                    await anyio.sleep_forever()
                else:
                    async for item in layer(depth + 1):
                        yield item
            except StreamCancelled as stop:
                log((depth, stop.reason))
                raise

        stream = with_cancellation(layer(1), token)
        await consume(stream, log, token, busy=10 if at == "yield" else 0)
        told: list[tuple[float, object]] = [(1, (depth, "stop")) for depth in range(10, 0, -1)]
        assert log == [(0, 1), *told, (10 if at == "yield" else 1, "consumer: stop")]

    async def test_yield_in_a_deep_source(self) -> None:
        """
        C22: a source comes to a yield before it awaits: told there, the innermost frame first.

        Python raises what is thrown into a generator in that one alone, so it is thrown into each.
        """
        token, log = CancelToken(), Log()

        async def inner() -> AsyncGenerator[object, None]:
            try:
                yield 1
                yield 2
                raise AssertionError("must not be reached")
            except BaseException as exc:
                log(f"inner: {kind(exc)}")
                raise

        async def outer() -> AsyncGenerator[object, None]:
            async with aclosing(inner()) as items:
                try:
                    async for item in items:
                        yield item
                except BaseException as exc:
                    log(f"outer: {kind(exc)}")
                    raise

        await consume(with_cancellation(outer(), token), log, token, busy=10)
        assert log == [
            (0, 1),
            (1, "inner: told to stop"),
            (1, "outer: told to stop"),
            (10, 2),
            (20, "consumer: stop"),
        ]

    @chain_with_token
    async def test_at_a_yield_before_an_await(self, chain: Chain) -> None:
        """C23: the source is told now and not when its slow consumer asks again."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                yield "last"
                yield "very last"

        stream = wrap(source(), chain, token=token)
        await consume(stream, log, token, busy=10)
        assert log == [
            (0, 1),
            (1, "told to stop"),
            (10, "last"),
            (20, "very last"),
            (30, "end"),
        ]
        assert outcome_of(stream) == ("cancelled", "stop", False)

    async def test_at_a_yield_before_a_yield(self) -> None:
        """C23: the same when it comes to another yield: the item in flight arrives first."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                yield "in flight"
                raise AssertionError("must not be reached")
            except StreamCancelled as stop:
                log(kind(stop))
                yield "last"

        await consume(with_cancellation(source(), token), log, token, busy=10)
        assert log == [
            (0, 1),
            (1, "told to stop"),
            (10, "in flight"),
            (20, "last"),
            (30, "end"),
        ]

    async def test_item_arrives_in_the_same_tick(self) -> None:
        """C31: the item that ends the wait is delivered, then the exception, once."""
        token, log = CancelToken(), Log()
        arrived = anyio.Event()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await arrived.wait()
                yield 1
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(kind(stop))
                await anyio.sleep(1)
                yield "last"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(source(), token), log)
            await wait_all_blocked()
            arrived.set()
            token.cancel("stop")
        # The source task is ahead of the consumer, which has the item a moment later.
        assert sorted(map(str, log.events[:2])) == ["1", "told to stop"]
        assert log.events[2:] == ["last", "end"]

    async def test_source_without_athrow_or_aclose(self) -> None:
        """C25: a plain iterator is told while it is blocked, then dropped."""
        token, log = CancelToken(), Log()

        class Plain:
            def __aiter__(self) -> Plain:
                return self

            async def __anext__(self) -> object:
                try:
                    await anyio.sleep_forever()
                except StreamCancelled as stop:
                    log(kind(stop))
                    raise
                raise AssertionError("must not be reached")

        await consume(with_cancellation(Plain(), token), log, token)
        assert log == [(1, "told to stop"), (1, "consumer: stop")]

    @pytest.mark.parametrize("has_aclose", [False, True])
    async def test_source_without_athrow_at_rest(self, has_aclose: bool) -> None:
        """C25: between two items it is resumed; if it does not await, it is asked no more."""
        token, log = CancelToken(), Log()

        class Counter:
            number = 0

            def __aiter__(self) -> Counter:
                return self

            async def __anext__(self) -> int:
                self.number += 1
                log(f"step {self.number}")
                return self.number

        class Closable(Counter):
            async def aclose(self) -> None:
                log("closed")

        source = Closable() if has_aclose else Counter()
        await consume(with_cancellation(source, token), log, token, busy=10)
        assert log == [
            (0, "step 1"),
            (0, 1),
            (1, "step 2"),
            *([(1, "closed")] if has_aclose else []),
            (10, 2),
            (20, "consumer: stop"),
        ]

    async def test_receive_stream(self) -> None:
        """C25: anyio's receive stream has no ``athrow``: told while blocked, closed after."""
        token, log = CancelToken(), Log()
        send, receive = anyio.create_memory_object_stream[int]()
        with send:
            await consume(with_cancellation(receive, token), log, token)
            with pytest.raises(anyio.BrokenResourceError):
                send.send_nowait(1)
        assert log == [(1, "consumer: stop")]


class TestReactions:
    @chain_with_token
    async def test_last_items(self, chain: Chain) -> None:
        """C24: items of a source that handles the signal arrive, in order; nothing comes after."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
                raise AssertionError("must not be reached")
            except StreamCancelled as stop:
                yield f"{stop.reason} 1"
                await anyio.sleep(1)
                yield f"{stop.reason} 2"
                yield f"{stop.reason} 3"

        stream = wrap(source(), chain, token=token)
        await consume(stream, log, token)
        assert log == [
            (0, 1),
            (1, "stop 1"),
            (2, "stop 2"),
            (2, "stop 3"),
            (2, "end"),
        ]
        assert outcome_of(stream) == ("cancelled", "stop", False)

    @pytest.mark.parametrize("silent", [True, False])
    async def test_source_goes_on(self, silent: bool) -> None:
        """C26: a source that swallows the exception is told once, and cut at the end of grace."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                for number in range(100):
                    try:
                        await anyio.sleep(0.75)
                    except StreamCancelled as stop:
                        log(kind(stop))
                    if not silent:
                        yield number
            except BaseException as exc:
                log(kind(exc))
                raise
            raise AssertionError("must not be reached")

        stream = with_cancellation(source(), token, grace=2)
        await consume(stream, log, token)
        entries = [
            (0.75, 0),
            (1, "told to stop"),
            (1, 1),
            (1.75, 2),
            (2.5, 3),
            (3, "cancelled"),
            (3, "consumer: stop"),
        ]
        assert log == [entry for entry in entries if not (silent and isinstance(entry[1], int))]
        assert outcome_of(stream) == ("cancelled", "stop", True)

    async def test_source_never_awaits(self) -> None:
        """C26: a source that goes on without ever blocking is cut at a yield."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            for number in range(100):
                try:
                    yield number
                except StreamCancelled as stop:
                    log(kind(stop))
            raise AssertionError("must not be reached")

        stream = with_cancellation(source(), token, grace=0)
        await consume(stream, log, token, busy=0.75)
        assert log.events.count("told to stop") == 1
        assert log[-1][1] == "consumer: stop"
        assert outcome_of(stream) == ("cancelled", "stop", True)

    async def test_retry_loop(self) -> None:
        """C27: ``except Exception`` does not eat it."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            for attempt in range(5):
                log(f"attempt {attempt}")
                try:
                    await anyio.sleep(0.75)
                    raise OSError("try again")
                except Exception as exc:
                    log(kind(exc))
            yield None

        await consume(with_cancellation(source(), token), log, token)
        assert log == [
            (0, "attempt 0"),
            (0.75, "OSError"),
            (0.75, "attempt 1"),
            (1, "consumer: stop"),
        ]

    @pytest.mark.parametrize("at", ["await", "yield"])
    async def test_another_error(self, at: str) -> None:
        """C28: the consumer gets an error raised while the signal is handled; outcome has both."""
        token, error = CancelToken(), LookupError("mine")

        async def source() -> AsyncGenerator[object, None]:
            try:
                if at == "await":
                    await anyio.sleep_forever()
                yield 1
                yield 2
            except StreamCancelled:
                await anyio.sleep(1)
                raise error from None

        async with anyio.create_task_group() as tasks:
            stream = with_cancellation(source(), token)
            async with stream:
                tasks.start_soon(call_later, 1, token.cancel, "stop")
                if at == "yield":
                    assert await anext(stream) == 1
                    await anyio.sleep(5)
                    assert await anext(stream) == 2
                with pytest.raises(LookupError) as caught:
                    await anext(stream)
        assert caught.value is error
        assert isinstance(error.__context__, StreamCancelled)
        assert outcome_of(stream) == ("cancelled", "stop", False)
        assert stream.outcome.error is error
