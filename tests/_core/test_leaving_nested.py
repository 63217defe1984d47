"""Streams inside of a source that is left or told, each with a grace of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from leaving import leave, ways
from observing import call_later, consume, kind
from streamkit import CancelToken, Left, Stream, StreamCancelled, with_cancellation, with_timeout
from support import Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

TOLD = "told that the consumer has left"


def outcome_of(stream: Stream[Any]) -> tuple[object, ...]:
    return stream.outcome.kind, stream.outcome.reason, stream.outcome.grace_exceeded


class Nest:
    """
    Three streams inside each other. The clean-up of each takes a while, of its grace of 3 seconds.

    :param takes: seconds that the clean-up takes, from the inside out
    :param items: how many items there are, until the innermost source is blocked

    """

    def __init__(self, *takes: float, items: int = 0) -> None:
        self.log = Log()
        self.takes = takes
        self.items = items
        self.streams: list[Stream[Any]] = []

    def open(self, number: int = 3) -> AsyncGenerator[object, None]:
        """Return the source of the outermost stream."""
        return self.innermost() if number == 1 else self.around(number)

    async def innermost(self) -> AsyncGenerator[object, None]:
        try:
            for number in range(self.items):
                yield number
            await anyio.sleep_forever()
        except BaseException as exc:
            self.log((1, kind(exc)))
            raise
        finally:
            await self.clean_up(1)

    async def around(self, number: int) -> AsyncGenerator[object, None]:
        try:
            stream = with_cancellation(self.open(number - 1), grace=3)
            self.streams.append(stream)
            async with stream:
                try:
                    async for item in stream:
                        yield item
                except BaseException as exc:
                    self.log((number, kind(exc)))
                    raise
        finally:
            await self.clean_up(number)

    async def clean_up(self, number: int) -> None:
        try:
            await anyio.sleep(self.takes[number - 1])
        except BaseException:
            self.log((number, "cut"))
            raise
        self.log((number, "saved"))


class TestGraces:
    @pytest.mark.parametrize("items", [0, 1])
    async def test_clock_of_the_outer_stands_still(self, items: int) -> None:
        """L6: the inner ones hang: the outer ones have all of their time left."""
        told = "GeneratorExit" if items else TOLD
        for way in ways():
            nest = Nest(99, 2, 2, items=items)
            nest.log.start()
            outer = await leave(nest.open(), way, items=items, grace=3)
            # Of the three, the first is told as its consumer is: that one leaves it.
            assert (way, sorted(map(str, nest.log[:3]))) == (
                way,
                [f"(1.0, ({number}, '{told}'))" for number in (1, 2, 3)],
            )
            assert (way, nest.log[3:]) == (
                way,
                [(4, (1, "cut")), (6, (2, "saved")), (8, (3, "saved"))],
            )
            middle, inner = nest.streams
            assert outcome_of(inner) == ("closed", None, True)
            assert outcome_of(middle) == outcome_of(outer) == ("closed", None, False)

    @pytest.mark.parametrize("items", [0, 1])
    async def test_each_has_its_own(self, items: int) -> None:
        """L6: each hangs: the bound is the sum along the path."""
        for way in ways():
            nest = Nest(99, 99, 99, items=items)
            nest.log.start()
            outer = await leave(nest.open(), way, items=items, grace=3)
            assert (way, nest.log[3:]) == (
                way,
                [(4, (1, "cut")), (7, (2, "cut")), (10, (3, "cut"))],
            )
            for stream in (outer, *nest.streams):
                assert outcome_of(stream) == ("closed", None, True)

    @pytest.mark.parametrize("items", [0, 1])
    async def test_with_a_token(self, items: int) -> None:
        """L6: the same for the token of the outer stream, which each source is told of."""
        token, nest = CancelToken(), Nest(99, 2, 2, items=items)
        stream = with_cancellation(nest.open(), token, grace=3)
        nest.log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with stream:
                for _ in range(items):
                    await anext(stream)
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert [event for _, event in nest.log[:3]] == [
            (number, "told to stop") for number in (3, 2, 1)
        ]
        assert nest.log[3:] == [(4, (1, "cut")), (6, (2, "saved")), (8, (3, "saved"))]
        assert outcome_of(stream) == ("cancelled", "stop", False)

    async def test_block_that_is_left_in_the_grace(self) -> None:
        """L6: the source opens another stream in its clean-up, and waits for the end of that."""
        log = Log()

        async def slow() -> AsyncIterator[object]:
            try:
                yield 1
            finally:
                await anyio.sleep(4)
                log("inner closed")

        async def source() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            finally:
                await anyio.sleep(1)
                async with with_cancellation(slow()) as stream:
                    await anext(stream)
                await anyio.sleep(1)
                log("saved")
                async with with_cancellation(slow()) as stream:
                    await anext(stream)
                try:
                    await anyio.sleep(2)
                finally:
                    log("cut")

        log.start()
        stream = await leave(source(), "aclose", grace=3)
        assert log == [
            (6, "inner closed"),
            (7, "saved"),
            (11, "inner closed"),
            (12, "cut"),
        ]
        assert outcome_of(stream) == ("closed", None, True)

    @pytest.mark.parametrize("items", [0, 1])
    async def test_in_aclose(self, items: int) -> None:
        """L6: the same where the source closes an inner stream by hand."""
        log = Log()

        async def slow() -> AsyncIterator[object]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(4)
                log("inner closed")

        async def source() -> AsyncIterator[object]:
            async with with_cancellation(slow()) as stream:
                try:
                    for _ in range(items):
                        yield await anext(stream)
                    await anext(stream)
                    await anyio.sleep_forever()
                finally:
                    await stream.aclose()
                    await anyio.sleep(2)
                    log("saved")

        for way in ways():
            log.clear()
            log.start()
            stream = await leave(source(), way, items=items, grace=3)
            assert (way, log) == (way, [(5, "inner closed"), (7, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    async def test_left_in_the_closing_of_an_inner_stream(self) -> None:
        """L6: the outer stream is left while its source waits for an inner block to end."""
        log = Log()

        async def slow() -> AsyncIterator[object]:
            try:
                yield 1
            finally:
                await anyio.sleep(10)
                log("inner closed")

        async def source() -> AsyncIterator[object]:
            try:
                async with with_cancellation(slow(), grace=20) as stream:
                    await anext(stream)
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                await anyio.sleep(2)
                log("saved")
                raise

        for way in ways():
            log.clear()
            log.start()
            stream = await leave(source(), way, grace=3)
            assert (way, log) == (way, [(10, "inner closed"), (10, TOLD), (12, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    async def test_many_levels(self) -> None:
        """L6: the reason of the outermost passes through all levels, and tells each once."""
        log = Log()

        async def level(number: int) -> AsyncIterator[object]:
            try:
                if number:
                    async with with_cancellation(level(number - 1)) as stream:
                        async for item in stream:
                            yield item
                else:
                    await anyio.sleep_forever()
            except StreamCancelled as stop:
                await anyio.sleep(1)
                log((number, stop.reason))
                raise

        for way in ("scope", "break"):
            log.clear()
            log.start()
            stream = await leave(level(9), way, grace=1.5)
            assert log == [(number + 2, (number, Left())) for number in range(10)]
            assert outcome_of(stream) == ("closed", None, False)


class TestTasksInside:
    """The inner stream is in another task than the source."""

    async def test_block_that_a_child_waits_for(self) -> None:
        """L6: the outer one is left while a child waits for an inner block to end."""
        log = Log()

        async def slow() -> AsyncIterator[object]:
            try:
                yield 1
            finally:
                await anyio.sleep(6)
                log("inner closed")

        async def child() -> None:
            async with with_cancellation(slow(), grace=9) as stream:
                await anext(stream)

        async def source() -> AsyncIterator[object]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(child)
                    await anyio.sleep_forever()
                yield
            finally:
                await anyio.sleep(2)
                log("saved")

        for way in ways():
            log.clear()
            log.start()
            stream = await leave(source(), way, grace=3)
            assert (way, log) == (way, [(6, "inner closed"), (8, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    async def test_opened_in_the_grace(self) -> None:
        """L6: a stream that is opened after the token, and left with a scope, is left."""
        token, log = CancelToken(), Log()

        async def inner() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        async def source() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            finally:
                with anyio.move_on_after(1):
                    async with with_cancellation(inner()) as stream:
                        await anext(stream)
                log(outcome_of(stream))

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with with_cancellation(source(), token) as stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(2, TOLD), (2, ("closed", None, False))]

    async def test_in_a_group_of_the_outermost(self) -> None:
        """N7: the reason of the outermost passes by one between that was not told."""
        token, log = CancelToken(), Log()

        async def inner() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        async def child() -> None:
            async with with_cancellation(inner()) as stream:
                await anext(stream)

        async def middle(tasks: Any) -> AsyncIterator[object]:
            # In the context of this source, and in the group of the one around.
            tasks.start_soon(child)
            yield 1

        async def outer() -> AsyncIterator[object]:
            async with anyio.create_task_group() as tasks:
                async with with_cancellation(middle(tasks)) as stream:
                    assert await anext(stream) == 1
                await anyio.sleep_forever()
            yield

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with with_cancellation(outer(), token) as stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(1, "told to stop")]

    async def test_child_has_the_grace_of_its_stream(self) -> None:
        """L6: a child of the source consumes a stream: that is told the same, with a grace of its
        own, which is longer."""
        token, log = CancelToken(), Log()

        async def inner() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except BaseException as exc:
                log(kind(exc))
                await anyio.sleep(2)
                log("saved")
                raise

        async def child() -> None:
            async with with_cancellation(inner(), grace=3) as stream:
                await anext(stream)

        async def outer() -> AsyncGenerator[object, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                await anyio.sleep_forever()
            yield None

        await consume(with_cancellation(outer(), token, grace=1), log, token)
        assert log == [(1, "told to stop"), (3, "saved"), (3, "consumer: stop")]


class TestKinds:
    async def test_inner_streams_are_closed(self) -> None:
        """L6: a consumer that leaves the outer stream leaves the inner ones: none is cancelled."""
        for way in ways():
            nest = Nest(0, 0, 0)
            outer = await leave(nest.open(), way)
            assert [outcome_of(stream) for stream in (outer, *nest.streams)] == [
                ("closed", None, False)
            ] * 3

    async def test_a_child_consumes(self) -> None:
        """L6: a child of the source consumes the inner stream, and is cancelled with its group."""
        log = Log()

        async def inner() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                await anyio.sleep(1)
                log("saved")
                raise

        async def child(stream: Stream[object]) -> None:
            async with stream:
                async for _ in stream:
                    raise AssertionError("must not be reached")

        async def source(stream: Stream[object]) -> AsyncIterator[object]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child, stream)
                await anyio.sleep_forever()
            yield

        for way in ways():
            log.clear()
            log.start()
            stream = with_cancellation(inner())
            outer = await leave(source(stream), way)
            assert (way, log) == (way, [(1, TOLD), (2, "saved")])
            assert outcome_of(outer) == outcome_of(stream) == ("closed", None, False)

    async def test_own_signal_of_an_inner_stream(self) -> None:
        """L6: the outer one is left as the inner token fires: each is told once."""
        for order in (0, 1):
            token, nest = CancelToken(), Nest(1, 1, 1)
            source = with_cancellation(nest.open(2), token)

            async def outer(source: Any = source) -> AsyncIterator[object]:
                async with source as stream:
                    async for item in stream:
                        yield item

            async with with_cancellation(outer()) as stream:
                with anyio.move_on_after(1):
                    await anext(stream)
                if order:
                    token.cancel("stop")
            if not order:
                token.cancel("stop")
            told = [event for _, event in nest.log if "told" in str(event)]
            expected = "told to stop" if order else TOLD
            assert told == [(2, expected), (1, expected)]

    async def test_a_limit_of_the_inner_stream(self) -> None:
        """L6: ``with_timeout`` inside of the source goes on in its grace, and the outer waits."""
        log = Log()

        async def slow() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            except StreamCancelled as stop:
                log(stop.reason)
                raise

        async def source() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            finally:
                with pytest.raises(TimeoutError):
                    async with with_timeout(slow(), idle=2) as stream:
                        await anext(stream)
                log("saved")

        log.start()
        await leave(source(), "scope")
        assert [str(event) for event in log] == [
            "(3.0, TimedOut(limit='idle', seconds=2))",
            "(3.0, 'saved')",
        ]
