"""The scopes around a source, next to those that it holds itself, and who is told the reason."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from observing import blocked, call_later, consume, kind
from streamkit import CancelToken, Left, StreamCancelled, current_cancellation, with_cancellation
from streamkit._core.backend import get_backend
from streamkit._core.scopes import Scopes
from streamkit._core.signal import Signal
from support import Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class TestScopesOfTheSource:
    @pytest.mark.parametrize("end", ["break", "error", "cancel", "token", "exhaustion"])
    async def test_held_across_a_yield(self, end: str) -> None:
        """P17: a task group and a scope that the source holds unwind in order, however it ends."""
        token, log = CancelToken(), Log()

        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log("child done")

        async def source() -> AsyncGenerator[object, None]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(child)
                    with anyio.move_on_after(100):
                        yield 1
                        await anyio.sleep(1)
                        yield 2
                    tasks.cancel_scope.cancel()
            finally:
                await anyio.sleep(1)
                log("closed")

        log.start()
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                try:
                    async with with_cancellation(source(), token) as stream:
                        async for item in stream:
                            log(item)
                            await anyio.sleep(10)
                            if end == "break":
                                break
                            if end == "error":
                                raise LookupError
                            if end == "cancel":
                                tasks.start_soon(call_later, 0, scope.cancel)
                                await anyio.sleep_forever()
                            if end == "token":
                                token.cancel("stop")
                except (LookupError, StreamCancelled) as exc:
                    log(kind(exc))
        items: list[object] = [1, 2] if end == "exhaustion" else [1]
        raised = {"error": ["LookupError"], "token": ["told to stop"]}
        assert log.events == [*items, "child done", "closed", *raised.get(end, [])]

    async def test_group_is_left_early(self) -> None:
        """P15: ``GeneratorExit`` does not come out in the group that a task group makes of it."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                try:
                    yield 1
                except BaseException as exc:
                    log(kind(exc))
                    raise

        async with with_cancellation(source()) as stream:
            assert await anext(stream) == 1
        assert log.events == ["GeneratorExit"]
        assert (stream.outcome.kind, stream.outcome.cleanup_error) == ("closed", None)

    async def test_source_waits_for_the_ask(self) -> None:
        """P13: the source is not resumed before its consumer asks."""
        log = Log()

        async def source() -> AsyncGenerator[object, None]:
            for number in range(2):
                log(f"step {number}")
                yield number

        await consume(with_cancellation(source()), log, busy=10)
        assert log == [(0, "step 0"), (0, 0), (10, "step 1"), (10, 1), (20, "end")]

    async def test_error_in_a_cancelled_task(self) -> None:
        """P14: a cancelled scope does not eat an error of the source's clean-up."""
        error = LookupError("mine")

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            finally:
                raise error

        with pytest.raises(LookupError) as caught:
            with anyio.move_on_after(1):
                async with with_cancellation(source()) as stream:
                    await anext(stream)
        assert caught.value is error
        assert isinstance(error.__context__, anyio.get_cancelled_exc_class())

    async def test_scope_around_both(self) -> None:
        """C17: a token fires while the source is in a shield of its own, then a scope around the
        stream is cancelled: when the shield ends, it is told of the token alone."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3)
                await anyio.sleep_forever()
                yield None
            except BaseException as exc:
                log(kind(exc))
                await anyio.sleep(1)
                log("saved")
                raise

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            with anyio.move_on_after(2) as scope:
                async with with_cancellation(source(), token) as stream:
                    await anext(stream)
        assert scope.cancelled_caught
        assert log == [(3, "told to stop"), (4, "saved")]


class TestStreamsInTheSource:
    @pytest.mark.parametrize("busy", [0, 10])
    async def test_inner_source_is_told(self, busy: float) -> None:
        """
        P18: the signal of a stream reaches the sources of the streams inside it as such.

        Twenty times, for trio runs the two source tasks in an order that it throws dice for.
        """

        async def scenario() -> None:
            token, log = CancelToken(), Log()

            async def outer() -> AsyncGenerator[object, None]:
                try:
                    async with with_cancellation(blocked(log, 1)) as inner:
                        async for item in inner:
                            yield item
                except BaseException as exc:
                    log(f"outer: {kind(exc)}")
                    raise

            await consume(with_cancellation(outer(), token), log, token, busy=busy)
            assert log == [
                (0, 1),
                (1, "source: told to stop"),
                (1, "closed"),
                (1, "outer: told to stop"),
                (busy or 1, "consumer: stop"),
            ]

        for _ in range(20):
            await scenario()


@pytest.mark.real_time
class TestThreads:
    async def test_token_from_a_foreign_thread(self) -> None:
        """P11: a thread without an event loop wakes a source on an idle one."""
        token, log = CancelToken(), Log()
        threading.Timer(0.05, token.cancel, ["stop"]).start()
        with anyio.fail_after(10):
            await consume(with_cancellation(blocked(log), token), log)
        assert log.events == ["source: told to stop", "closed", "consumer: stop"]

    async def test_deadline_around_the_stream(self) -> None:
        """P10: a deadline around the stream works after a cancel from a foreign thread."""
        token, log = CancelToken(), Log()
        threading.Timer(0.05, token.cancel, ["stop"]).start()
        with anyio.fail_after(10):
            with anyio.move_on_after(0.5) as scope:
                await consume(with_cancellation(blocked(log), token), log)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert log.events == ["source: told to stop", "closed", "consumer: stop"]


class TestCurrentCancellation:
    async def test_from_any_depth(self) -> None:
        """C22: frames, ``finally`` blocks, child tasks and streams in a source know the reason."""
        token = CancelToken()
        reason = object()
        seen: dict[str, object] = {}

        async def note(place: str) -> None:
            seen[place] = current_cancellation()

        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                await note("child task")

        async def inner() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await note("before")
                await anyio.sleep_forever()
            finally:
                await note("inner finally")

        async def source() -> AsyncGenerator[object, None]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(child)
                    async for item in inner():
                        yield item
            finally:
                await anyio.sleep(1)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(note, "new task")
                async with with_cancellation(late()) as stream:
                    seen["inner stream"] = await anext(stream)

        async def late() -> AsyncGenerator[object, None]:
            yield current_cancellation()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, reason)
            async with with_cancellation(source(), token) as stream:
                assert await anext(stream) == 1
                with pytest.raises(StreamCancelled) as caught:
                    await anext(stream)
                assert caught.value.reason is reason
                assert current_cancellation() is None
        assert seen.pop("before") is None
        assert set(seen) == {"child task", "inner finally", "new task", "inner stream"}
        assert set(seen.values()) == {reason}

    @pytest.mark.real_time
    async def test_from_a_thread(self) -> None:
        """C22: so does a worker thread (in real time: a virtual clock does not wait for it)."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                log(await anyio.to_thread.run_sync(current_cancellation))

        await consume(with_cancellation(source(), token), log, token, after=0.02)
        assert log.events == [1, "stop", "consumer: stop"]

    @pytest.mark.parametrize("end", ["leave", "exhaust", "cancel"])
    async def test_without_a_signal(self, end: str) -> None:
        """C22: a source that its consumer leaves has that for a reason; one that ends has none."""
        seen: list[Any] = []

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                if end == "cancel":
                    await anyio.sleep_forever()
            finally:
                seen.append(current_cancellation())

        with anyio.move_on_after(1):
            async with with_cancellation(source(), CancelToken()) as stream:
                async for _ in stream:
                    if end == "leave":
                        break
        assert seen == [None if end == "exhaust" else Left()]

    async def test_of_the_innermost_stream(self) -> None:
        """C22: where two streams are told to stop, the inner one answers inside of it."""
        inner_token, outer_token, log = CancelToken(), CancelToken(), Log()

        async def inner() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled:
                await anyio.sleep(2)
                log(f"inner: {current_cancellation()}")

        async def outer() -> AsyncGenerator[object, None]:
            try:
                async with with_cancellation(inner(), inner_token) as stream:
                    async for item in stream:
                        yield item
            finally:
                log(f"outer: {current_cancellation()}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, inner_token.cancel, "inner")
            tasks.start_soon(call_later, 2, outer_token.cancel, "outer")
            await consume(with_cancellation(outer(), outer_token), log)
        assert log == [
            (3, "inner: inner"),
            (3, "outer: outer"),
            (3, "consumer: outer"),
        ]


@pytest.mark.asyncio_only
async def test_asked_and_over_before_it_was_reached() -> None:
    """C24: a source whose wait goes on until the grace is over is told then."""
    backend = get_backend()
    scopes = Scopes(5, backend.now, backend.loop, backend.make_scope)
    with scopes:
        scopes.signal = Signal("stop", 5)
        scopes.arm()
        assert scopes.reach_source()
        scopes.begin_grace()
        with pytest.raises(asyncio.CancelledError):
            await anyio.sleep(6)
        assert scopes.expired
        assert scopes.claim("deadline exceeded")
        assert scopes.delivered
