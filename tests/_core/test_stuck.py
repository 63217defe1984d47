"""``Outcome.stuck_at``: where a source was when its grace was over."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import coroutine
from typing import Any

import anyio
import anyio.to_thread
import pytest

from chains import Chain, any_chain, wrap
from leaving import is_willing, leave, ways
from streamkit import CancelToken, Stream, StreamCancelled, with_cancellation
from streamkit._core.stuck import where
from support import PlainSource

GRACE = 2.0


def here(offset: int = 0) -> str:
    """Return where the caller is, so many lines further down, as an outcome says it."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno + offset}"


class Hangs:
    """Sources whose clean-up takes too long. ``at`` is where that is."""

    at = ""

    def __init__(self, *items: int) -> None:
        self.items = items

    async def blocked(self) -> AsyncGenerator[int, None]:
        try:
            for item in self.items:
                yield item
            await anyio.sleep_forever()
        finally:
            self.at = here(1)
            await anyio.sleep(60)

    async def deep(self) -> AsyncGenerator[int, None]:
        async for item in self.blocked():
            yield item

    async def in_a_call(self) -> AsyncGenerator[int, None]:
        try:
            for item in self.items:
                yield item
            await anyio.sleep_forever()
        finally:
            async with anyio.create_task_group():
                await self.clean_up()

    async def clean_up(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            self.at = here(1)
            await anyio.sleep_forever()

    async def shielded(self) -> AsyncGenerator[int, None]:
        try:
            for item in self.items:
                yield item
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                self.at = here(1)
                await anyio.sleep(60)
            await anyio.sleep(60)

    async def goes_on(self) -> AsyncGenerator[int, None]:
        for item in self.items:
            yield item
        while True:
            try:
                self.at = here(1)
                await anyio.sleep(60)
            except StreamCancelled:
                pass


class TestOutcome:
    @any_chain
    async def test_token(self, chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
        """C26: it is stopped at an await, and its clean-up hangs: where, and it is logged."""
        hangs, token = Hangs(1), CancelToken()
        stream = with_cancellation(wrap(hangs.blocked(), chain), token, grace=GRACE)
        async with stream:
            assert await anext(stream) == 1
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._fire, token)
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert stream.outcome.grace_exceeded
        assert stream.outcome.stuck_at == hangs.at
        [record] = caplog.records
        assert (record.name, record.levelno) == ("streamkit", logging.WARNING)
        assert record.getMessage() == (
            f"Hangs.blocked was cut when its grace of {GRACE} seconds was over, at {hangs.at}"
        )

    async def _fire(self, token: CancelToken) -> None:
        await anyio.sleep(1)
        token.cancel("stop")

    @pytest.mark.parametrize("name", ["blocked", "deep", "in_a_call", "shielded", "goes_on"])
    @pytest.mark.parametrize("grace", [GRACE, 0])
    async def test_left(self, name: str, grace: float) -> None:
        """L3: the consumer leaves, in any way, and the clean-up hangs: where."""
        for way in ways():
            hangs = Hangs()
            stream = await leave(getattr(hangs, name)(), way, grace=grace)
            assert stream.outcome.grace_exceeded
            assert stream.outcome.stuck_at == hangs.at, way

    @pytest.mark.parametrize("name", ["blocked", "deep", "in_a_call", "shielded"])
    async def test_left_at_a_yield(self, name: str) -> None:
        """L3: the same where the source is at a yield, and is closed."""
        for way in filter(is_willing, ways()):
            hangs = Hangs(1)
            stream = await leave(getattr(hangs, name)(), way, items=1, grace=GRACE)
            assert stream.outcome.grace_exceeded
            assert stream.outcome.stuck_at == hangs.at, way

    @pytest.mark.real_time
    async def test_thread(self) -> None:
        """C18: the grace is over while the source is in a thread: it is there that it was."""
        at = ""

        async def source() -> AsyncGenerator[int, None]:
            nonlocal at
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                at = here(1)
                await anyio.to_thread.run_sync(wait_for_grace)
                await anyio.sleep(60)

        def wait_for_grace() -> None:
            # The grace begins before the thread does.
            anyio.from_thread.run(anyio.sleep, 0.1)

        async with with_cancellation(source(), grace=0.05) as stream:
            assert await anext(stream) == 1
            with anyio.move_on_after(0.01):
                await anext(stream)
        assert stream.outcome.grace_exceeded
        assert stream.outcome.stuck_at == at

    async def test_at_a_yield(self) -> None:
        """C26: a grace of zero is over at once, and the source goes on to a yield: there."""
        at = ""

        async def source() -> AsyncGenerator[int, None]:
            nonlocal at
            yield 1
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                at = here(1)
                yield 2
                raise AssertionError("must not be reached") from None

        token = CancelToken()
        async with with_cancellation(source(), token, grace=0) as stream:
            assert await anext(stream) == 1
            token.cancel()
            assert await anext(stream) == 2
            with pytest.raises(StreamCancelled):
                await anext(stream)
        assert stream.outcome.grace_exceeded
        assert stream.outcome.stuck_at == at

    async def test_in_time(self, caplog: pytest.LogCaptureFixture) -> None:
        """C26: the clean-up is done in time: it was nowhere, and nothing is logged."""

        async def source() -> AsyncGenerator[int, None]:
            try:
                await anyio.sleep_forever()
                yield 1
            finally:
                await anyio.sleep(GRACE / 2)

        stream = await leave(source(), "scope", grace=GRACE)
        assert (stream.outcome.grace_exceeded, stream.outcome.stuck_at) == (False, None)
        assert caplog.records == []

    async def test_inner_stream(self) -> None:
        """N7: it waits for the block of a stream inside: that one says where its source was."""
        hangs = Hangs()
        streams: list[Stream[int]] = []

        async def outer() -> AsyncGenerator[int, None]:
            async with with_cancellation(hangs.blocked(), grace=GRACE) as stream:
                streams.append(stream)
                async for item in stream:
                    yield item

        stream = await leave(outer(), "scope", grace=GRACE)
        assert (stream.outcome.grace_exceeded, stream.outcome.stuck_at) == (False, None)
        [inner] = streams
        assert inner.outcome.stuck_at == hangs.at

    async def test_iterator(self) -> None:
        """C25: a source that is no generator, and has a frame all the same."""

        class Source(PlainSource[int]):
            async def __anext__(self) -> int:
                try:
                    await anyio.sleep_forever()
                    return 1
                finally:
                    nonlocal at
                    at = here(1)
                    await anyio.sleep(60)

        at = ""
        stream = await leave(Source(), "scope", grace=GRACE)
        assert stream.outcome.stuck_at == at


class Waits:
    """Something to be awaited that waits."""

    def __await__(self) -> Generator[Any, None, None]:
        yield


async def a_coroutine() -> None:
    await Waits()


@coroutine
def of_a_generator() -> Generator[Any, None, None]:
    yield from Waits().__await__()


class Wraps:
    """Something to be awaited that makes a coroutine of it."""

    def __await__(self) -> Generator[Any, Any, None]:
        return a_coroutine().__await__()


async def items() -> AsyncIterator[int]:
    await Waits()
    yield 1


async def by_anext() -> None:
    await anext(items(), None)


LINE_OF_WAITS = inspect.getsourcelines(Waits.__await__)[1] + 1


class TestWhere:
    @pytest.mark.parametrize(
        "make",
        [a_coroutine, of_a_generator, by_anext],
        ids=["coroutine", "generator", "anext"],
    )
    def test_innermost(self, make: Callable[[], Awaitable[None]]) -> None:
        """L3: it is the innermost frame, through all that may be awaited."""

        async def outer() -> None:
            await make()

        suspended = outer()
        suspended.send(None)
        assert where(suspended) == f"{__file__}:{LINE_OF_WAITS}"
        suspended.close()

    def test_wrapper_of_a_coroutine(self) -> None:
        """L3: through an object of the interpreter that only steps a coroutine."""

        async def outer() -> None:
            await Wraps()

        suspended = outer()
        suspended.send(None)
        assert where(suspended) == f"{__file__}:{LINE_OF_WAITS}"
        suspended.close()

    def test_nothing_to_see(self) -> None:
        """L3: no frame: what has ended, what is no Python, and what is of the event loop alone."""
        ended = a_coroutine()
        ended.close()
        assert where(ended) is None
        assert where(object()) is None
        assert where(None) is None
        of_anyio = anyio.sleep(1)
        assert where(of_anyio) is None
        of_anyio.close()
