"""Context variables in the source: whose they are, and that they outlive a ``yield``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import context as telemetry

from chains import CHAINS, Chain, any_chain, wrap
from streamkit import CancelToken, Stream, StreamCancelled
from support import wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

Leave: TypeAlias = Callable[[Stream[str], CancelToken], Any]

variable: ContextVar[str] = ContextVar("variable", default="default")

any_chain_with_cancellation = pytest.mark.parametrize(
    "chain",
    [chain for chain in CHAINS if "cancellation" in chain],
    ids="+".join,
)


async def to_the_end(stream: Stream[str], token: CancelToken) -> None:
    async for _ in stream:
        pass


async def break_out(stream: Stream[str], token: CancelToken) -> None:
    async for _ in stream:
        break


async def close(stream: Stream[str], token: CancelToken) -> None:
    await anext(stream)
    await stream.aclose()


async def close_from_another_task(stream: Stream[str], token: CancelToken) -> None:
    await anext(stream)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.aclose)


async def leave_by_scope(stream: Stream[str], token: CancelToken) -> None:
    await anext(stream)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)


async def cancel_at_a_yield(stream: Stream[str], token: CancelToken) -> None:
    await anext(stream)
    token.cancel("stop")
    with pytest.raises(StreamCancelled):
        await to_the_end(stream, token)


async def cancel_while_blocked(stream: Stream[str], token: CancelToken) -> None:
    async def fire() -> None:
        await wait_all_blocked()
        token.cancel("stop")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fire)
        with pytest.raises(StreamCancelled):
            await to_the_end(stream, token)


async def fail(stream: Stream[str], token: CancelToken) -> None:
    await anext(stream)
    raise ZeroDivisionError


ENDS: list[Leave] = [to_the_end, break_out, close, close_from_another_task, leave_by_scope, fail]
CANCELS: list[Leave] = [cancel_at_a_yield, cancel_while_blocked]


@any_chain
async def test_the_source_sees_the_callers(chain: Chain) -> None:
    """V1: the source sees what the caller had set when it opened the stream, at every item."""
    seen = []

    async def source() -> AsyncGenerator[None, None]:
        for _ in range(2):
            seen.append(variable.get())
            yield
        seen.append(variable.get())

    stream = wrap(source(), chain)
    variable.set("the caller's")
    async with stream:
        async for _ in stream:
            variable.set("set in the loop, too late")
    assert seen == ["the caller's"] * 3


@any_chain
async def test_set_at_one_item_and_read_at_the_next(chain: Chain) -> None:
    """V2: what the source sets at item 1 is there at item 2, after an await, and in ``finally``."""
    seen = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            variable.set("set at item 1")
            yield 1
            seen.append(variable.get())
            await anyio.sleep(1)
            yield 2
            seen.append(variable.get())
        finally:
            seen.append(variable.get())

    async with wrap(source(), chain) as stream:
        assert [item async for item in stream] == [1, 2]
    assert seen == ["set at item 1"] * 3


@any_chain
async def test_nothing_leaks_to_the_consumer(chain: Chain) -> None:
    """V4: what the source sets, in its steps and at its end, stays in the source."""
    seen = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            variable.set("the source's")
            yield 1
        finally:
            variable.set("set while closing")

    variable.set("the consumer's")
    async with wrap(source(), chain) as stream:
        seen.append(variable.get())
        async for _ in stream:
            seen.append(variable.get())
        seen.append(variable.get())
    seen.append(variable.get())
    assert seen == ["the consumer's"] * 4


class TestReset:
    """V3: ``reset(token)`` fails in any context but the one that made the token."""

    @any_chain
    @pytest.mark.parametrize("leave", ENDS)
    async def test_any_end(self, chain: Chain, leave: Leave) -> None:
        """V3: the source resets a variable in ``finally``, however the stream ends."""
        await self._check(chain, leave)

    @pytest.mark.parametrize("leave", CANCELS)
    @any_chain_with_cancellation
    async def test_cancelled(self, chain: Chain, leave: Leave) -> None:
        """V3: the source resets a variable in ``finally`` when a token has fired."""
        await self._check(chain, leave)

    async def _check(self, chain: Chain, leave: Leave) -> None:
        token = CancelToken()
        seen = []

        async def source() -> AsyncGenerator[str, None]:
            reset = variable.set("the source's")
            try:
                yield "item"
                if leave is not to_the_end:
                    await anyio.sleep_forever()
            finally:
                await anyio.lowlevel.cancel_shielded_checkpoint()
                seen.append(variable.get())
                variable.reset(reset)
                seen.append(variable.get())

        try:
            async with wrap(source(), chain, token=token) as stream:
                await leave(stream, token)
        except ZeroDivisionError:
            assert leave is fail
        assert seen == ["the source's", "default"]


class TestTelemetry:
    """V5: OpenTelemetry logs an error where a context is detached in another one."""

    @any_chain
    @pytest.mark.parametrize("leave", ENDS)
    async def test_any_end(
        self, chain: Chain, leave: Leave, caplog: pytest.LogCaptureFixture
    ) -> None:
        """V5: a source that attaches a context around its loop logs nothing, however it ends."""
        await self._check(chain, leave, caplog)

    @pytest.mark.parametrize("leave", CANCELS)
    @any_chain_with_cancellation
    async def test_cancelled(
        self, chain: Chain, leave: Leave, caplog: pytest.LogCaptureFixture
    ) -> None:
        """V5: a source that attaches a context around its loop logs nothing when a token fires."""
        await self._check(chain, leave, caplog)

    async def test_the_check_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        """V5: the same source without a stream, closed in another task, logs the error."""
        seen: list[object] = []
        async with aclosing(traced(seen, block=True)) as generator:
            assert await anext(generator) == "item"

            async def close() -> None:
                await generator.aclose()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
        assert [record.name for record in caplog.records] == ["opentelemetry.context"]

    async def _check(self, chain: Chain, leave: Leave, caplog: pytest.LogCaptureFixture) -> None:
        token = CancelToken()
        seen: list[object] = []
        with caplog.at_level(logging.DEBUG), attached("span", "the consumer's"):
            try:
                async with wrap(
                    traced(seen, block=leave is not to_the_end), chain, token=token
                ) as stream:
                    await leave(stream, token)
            except ZeroDivisionError:
                assert leave is fail
            assert telemetry.get_value("span") == "the consumer's"
        assert seen == ["the consumer's", "the source's", "the consumer's"]
        assert [record for record in caplog.records if record.name.startswith("opentel")] == []


@contextmanager
def attached(key: str, value: str) -> Iterator[None]:
    reset = telemetry.attach(telemetry.set_value(key, value))
    try:
        yield
    finally:
        telemetry.detach(reset)


async def traced(seen: list[object], *, block: bool) -> AsyncGenerator[str, None]:
    """Yield inside of a context; notes the span before, in and after it."""
    seen.append(telemetry.get_value("span"))
    try:
        with attached("span", "the source's"):
            try:
                yield "item"
                if block:
                    await anyio.sleep_forever()
            finally:
                seen.append(telemetry.get_value("span"))
    finally:
        seen.append(telemetry.get_value("span"))
