"""Scopes and groups of the source's own, which unwind while it is told something."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from chains import NEVER
from leaving import leave, ways
from observing import call_later, kind
from streamkit import CancelToken, Stream, StreamCancelled, with_cancellation
from support import Log, on_trio, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

TOLD = "told that the consumer has left"

# trio runs the tasks of a turn in an order of its own.
REPEATS = 30


def outcome_of(stream: Stream[Any]) -> tuple[object, ...]:
    return stream.outcome.kind, stream.outcome.reason, stream.outcome.grace_exceeded


def kinds(exc: BaseException) -> str:
    """Name what an exception is, or what the group holds in which it comes."""
    while isinstance(exc, BaseExceptionGroup):
        [exc] = {type(leaf): leaf for leaf in exc.exceptions}.values()
    return kind(exc)


async def sleeping() -> None:
    await anyio.sleep(1)


async def waiting_for_an_event() -> None:
    event = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_later, 1, event.set)
        await event.wait()


async def giving_way() -> None:
    await anyio.sleep(1)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def waiting_for_a_future() -> None:
    if on_trio():
        await trio.sleep(1)
    else:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.set_result, None)
        await future


clean_ups = pytest.mark.parametrize(
    "clean_up", [sleeping, waiting_for_an_event, giving_way, waiting_for_a_future]
)


class Unwinding:
    """
    A source that unwinds from a scope of its own, through a clean-up in a shield.

    :param own: what it has entered, and what ends that after a second

    """

    def __init__(self, own: str, clean_up: Callable[[], Awaitable[None]], log: Log) -> None:
        self.own, self.clean_up, self.log = own, clean_up, log

    async def source(self) -> AsyncGenerator[object, None]:
        try:
            await getattr(self, self.own)()
            self.log("own scope left")
            await anyio.sleep_forever()
            yield
        except BaseException as exc:
            self.log(kinds(exc))
            await anyio.sleep(0.5)
            self.log("saved")
            raise

    async def block(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await self.clean_up()

    async def move_on_after(self) -> None:
        with anyio.move_on_after(1) as scope:
            await self.block()
        assert scope.cancelled_caught

    async def fail_after(self) -> None:
        with suppress(TimeoutError):
            with anyio.fail_after(1):
                await self.block()
            raise AssertionError("must not be reached")

    async def group(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, tasks.cancel_scope.cancel)
            await self.block()

    async def failed_group(self) -> None:
        async def fail() -> None:
            await anyio.sleep(1)
            raise LookupError

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                await self.block()
        except* LookupError:
            pass

    async def nested(self) -> None:
        with anyio.move_on_after(1) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                with anyio.move_on_after(NEVER):
                    await self.block()
        assert scope.cancelled_caught


owns = pytest.mark.parametrize(
    "own", ["move_on_after", "fail_after", "group", "failed_group", "nested"]
)


@pytest.mark.asyncio_only
async def test_error_in_a_shield() -> None:
    """C17: what is awaited in a shield fails after the token has fired: told at the next await."""
    token, log = CancelToken(), Log()

    async def source() -> AsyncGenerator[object, None]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(2, future.set_exception, LookupError("mine"))
        try:
            with anyio.CancelScope(shield=True):
                await future
        except LookupError as error:
            log(str(error))
        try:
            await anyio.sleep_forever()
            yield
        except StreamCancelled as stop:
            log(kind(stop))

    async with anyio.create_task_group() as tasks:
        log.start()
        tasks.start_soon(call_later, 1, token.cancel, "stop")
        async with with_cancellation(source(), token) as stream:
            assert [item async for item in stream] == []
    assert log == [(2, "mine"), (2, "told to stop")]


async def test_told_by_itself_before_it_waits() -> None:
    """C12: the source fires its own token, and then waits for its children."""
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
                await anyio.lowlevel.checkpoint()
                token.cancel("stop")
            raise AssertionError("must not be reached")
            yield
        except* StreamCancelled:
            log("told")
            raise

    async with with_cancellation(source(), token) as stream:
        with pytest.raises(StreamCancelled):
            await anext(stream)
    assert log.events == ["child done", "told"]


@pytest.mark.real_time
async def test_thread_that_asks() -> None:
    """C18: a thread of the source's asks whether it is cancelled: it learns of the token."""
    token, asks = CancelToken(), threading.Event()

    def work() -> None:
        while True:
            anyio.from_thread.check_cancelled()
            asks.set()
            asks.wait(0.001)

    async def source() -> AsyncGenerator[object, None]:
        try:
            await anyio.to_thread.run_sync(work)
            yield
        except BaseException as exc:
            log(kind(exc))
            await anyio.lowlevel.checkpoint()
            log("saved")
            raise

    log = Log()
    async with with_cancellation(source(), token) as stream:
        async with anyio.create_task_group() as tasks:

            async def fire() -> None:
                await anyio.to_thread.run_sync(asks.wait)
                token.cancel("stop")

            tasks.start_soon(fire)
            with pytest.raises(StreamCancelled, match="stop"):
                await anext(stream)
    assert log.events == ["told to stop", "saved"]
    assert stream.outcome.kind == "cancelled"


class TestUnwinding:
    @owns
    @clean_ups
    @pytest.mark.parametrize("after", [1.25, 1.75])
    async def test_token(
        self, own: str, clean_up: Callable[[], Awaitable[None]], after: float
    ) -> None:
        """L5: a token fires meanwhile: the scope catches its own, and the next await is told."""
        token, log = CancelToken(), Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, after, token.cancel, "stop")
            stream = with_cancellation(Unwinding(own, clean_up, log).source(), token)
            async with stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(2, "own scope left"), (2, "told to stop"), (2.5, "saved")]
        assert outcome_of(stream) == ("cancelled", "stop", False)

    @owns
    @clean_ups
    async def test_left(self, own: str, clean_up: Callable[[], Awaitable[None]]) -> None:
        """L5: the same where its consumer leaves meanwhile."""
        for way in ways():
            log = Log()
            log.start()
            source = Unwinding(own, clean_up, log).source()
            stream = await leave(source, way, after=1.5)
            assert (way, log) == (
                way,
                [(2, "own scope left"), (2, TOLD), (2.5, "saved")],
            )
            assert outcome_of(stream) == ("closed", None, False)

    @owns
    @clean_ups
    async def test_outer_token(self, own: str, clean_up: Callable[[], Awaitable[None]]) -> None:
        """L5: the same for the token of a stream around."""
        token, log = CancelToken(), Log()

        async def outer() -> AsyncIterator[object]:
            async with with_cancellation(Unwinding(own, clean_up, log).source()) as inner:
                async for item in inner:
                    yield item

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, token.cancel, "stop")
            async with with_cancellation(outer(), token) as stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(2, "own scope left"), (2, "told to stop"), (2.5, "saved")]

    @owns
    @clean_ups
    async def test_same_tick(self, own: str, clean_up: Callable[[], Awaitable[None]]) -> None:
        """
        L5: both in one tick: what comes first is raised, and what is left of the other comes next.

        The scope may be passed by what the source is told. It never takes that for its own.
        """
        if own == "failed_group" and not on_trio():
            # anyio's group drops a cancellation where a child has failed.
            return
        for shift in (-1e-9, 0, 1e-9):
            for number in range(6):
                token, log = CancelToken(), Log()
                log.start()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call_later, 1 + shift, token.cancel, "stop")
                    source = Unwinding(own, clean_up, log).source()
                    async with with_cancellation(source, token) as stream:
                        if number % 2:
                            tasks.start_soon(anyio.lowlevel.checkpoint)
                        with suppress(StreamCancelled, anyio.ClosedResourceError):
                            await anext(stream)
                assert log[-2:] == [(2, "told to stop"), (2.5, "saved")]
                assert outcome_of(stream) == ("cancelled", "stop", False)

    @pytest.mark.asyncio_only
    async def test_same_tick_without_clean_up(self) -> None:
        """L5: the scope has cancelled the await, and then a token fires: it catches its own."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncIterator[object]:
            with anyio.move_on_after(1) as scope:
                await anyio.sleep_forever()
            log(f"caught: {scope.cancelled_caught}")
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        log.start()
        async with anyio.create_task_group() as tasks:
            # Its time comes first; but only then it wakes, as the source does.
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with with_cancellation(source(), token) as stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(1, "caught: True"), (1, "told to stop")]

    async def test_every_sleep_is_a_scope(self) -> None:
        """L5: a ``sleep`` ends in the tick in which an outer token fires: told, with its grace."""
        for number in range(REPEATS):
            token, log = CancelToken(), Log()

            async def inner(log: Log = log) -> AsyncIterator[object]:
                try:
                    for _ in range(99):
                        await anyio.sleep(1)
                    yield
                except BaseException as exc:
                    log(kind(exc))
                    await anyio.sleep(1)
                    log("saved")
                    raise

            async def outer(source: Any = inner) -> AsyncIterator[object]:
                async with with_cancellation(source()) as stream:
                    async for item in stream:
                        yield item

            log.start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 1 + number % 3, token.cancel, "stop")
                async with with_cancellation(outer(), token) as stream:
                    with pytest.raises(StreamCancelled):
                        await anext(stream)
            at = 1 + number % 3
            assert log == [(at, "told to stop"), (at + 1, "saved")]

    async def test_shield_that_is_lowered(self) -> None:
        """L5: the source raises a shield, and lowers it: it is told when it is lowered."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            try:
                with anyio.CancelScope(shield=True) as scope:
                    await anyio.sleep(2)
                    scope.shield = False
                    log("open")
                    await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        for way in ways():
            log.clear()
            log.start()
            await leave(source(), way)
            assert (way, log) == (way, [(2, "open"), (2, TOLD)])

    @pytest.mark.asyncio_only
    async def test_shield_that_is_lowered_by_another_task(self) -> None:
        """L5: the same where another task lowers it, while the source waits."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            try:
                with shield:
                    await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        for way in ways():
            log.clear()
            log.start()
            shield = anyio.CancelScope(shield=True)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 2, setattr, shield, "shield", False)
                await leave(source(), way)
            assert (way, log) == (way, [(2, TOLD)])


class TestSameTick:
    """Several things end the stream in one tick."""

    @pytest.mark.parametrize("first", ["token", "leaving"])
    async def test_token_and_leaving(self, first: str) -> None:
        """L5: the first wins, and the source hears of one."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                await anyio.sleep(1)
                log("saved")
                raise

        for _ in range(REPEATS):
            log.clear()
            token = CancelToken()
            async with with_cancellation(source(), token) as stream:
                with anyio.move_on_after(1):
                    await anext(stream)
                if first == "token":
                    token.cancel("stop")
                closing = stream.aclose()
                if first == "leaving":
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(call_later, 0, token.cancel, "stop")
                        await closing
                else:
                    await closing
            told = "told to stop" if first == "token" else TOLD
            assert log.events == [told, "saved"]
            assert outcome_of(stream)[0] == ("cancelled" if first == "token" else "closed")

    async def test_token_and_a_scope(self) -> None:
        """L5: a token and a scope around: each is seen by whom it is for; one is told once."""
        for shift in (-1e-9, 0, 1e-9):
            for _ in range(10):
                log, token = Log(), CancelToken()

                async def source(log: Log = log) -> AsyncIterator[object]:
                    try:
                        await anyio.sleep_forever()
                        yield
                    except BaseException as exc:
                        log("stop" if "stop" in kind(exc) else kind(exc))
                        await anyio.sleep(1)
                        log("saved")
                        raise

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call_later, 1 + shift, token.cancel, "stop")
                    with anyio.move_on_after(1) as scope, suppress(StreamCancelled):
                        async with with_cancellation(source(), token) as stream:
                            await anext(stream)
                            await wait_all_blocked()
                kinds = {"stop": "cancelled", TOLD: "closed"}
                assert len(log) == 2
                assert log.events[1] == "saved"
                assert outcome_of(stream)[0] == kinds[str(log.events[0])]
                assert scope.cancel_called
