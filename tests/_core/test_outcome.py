"""The outcome: one value, written once, that says what happened and when."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chains import ORDERS, Chain, any_chain, wrap
from streamkit import (
    CancelToken,
    Outcome,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
)
from support import START, Probe, aiter_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from streamkit import Stream


def check_no_outcome(stream: Stream[Any], why: str) -> None:
    assert not stream.ended
    with pytest.raises(RuntimeError, match=f"{why}.*; read it after 'async with stream:', or ask"):
        _ = stream.outcome


class TestValue:
    def test_frozen(self) -> None:
        """S10: an outcome cannot be changed, neither in a field nor by a new attribute."""
        outcome = Outcome(kind="completed", started_at=1.0, ended_at=2.0)
        for field in dataclasses.fields(Outcome):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(outcome, field.name, None)
        with pytest.raises((AttributeError, TypeError)):
            outcome.other = 1  # type: ignore[attr-defined]
        assert not hasattr(outcome, "__dict__")

    def test_equal(self) -> None:
        """S10: outcomes are compared by their values, so that a test can write one down."""
        one, same, other = (
            Outcome(kind="cancelled", reason=reason, started_at=1.0, ended_at=2.0)
            for reason in ("stop", "stop", "no")
        )
        assert one == same
        assert one != other
        assert hash(one) == hash(same)

    def test_by_keyword(self) -> None:
        """S10: no field is given by its position: there are many, and there may be more."""
        with pytest.raises(TypeError):
            Outcome("completed")  # type: ignore[misc,call-arg]


class TestWhenWritten:
    @any_chain
    async def test_not_before_the_end(self, chain: Chain) -> None:
        """S10: there is no outcome before the source is closed, and the same one ever after."""
        closing: list[bool] = []

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                await anyio.sleep(1)
                closing.append(stream.ended)
                check_no_outcome(stream, "its source is not closed")

        stream: Stream[str] = wrap(source(), chain)
        check_no_outcome(stream, "it was not entered")
        async with stream:
            check_no_outcome(stream, "its source is not closed")
            assert await anext(stream) == "a"
            check_no_outcome(stream, "its source is not closed")
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            assert stream.ended
            outcome = stream.outcome
        assert stream.ended
        assert stream.outcome is outcome
        assert closing == [False]

    async def test_of_what_was_wrapped(self) -> None:
        """S10: the streams of a chain share the outcome, and say of which there is none yet."""
        inner = with_cancellation(aiter_of(1))
        middle = with_keepalive(inner, 10, "beat")
        check_no_outcome(inner, "it was not entered")
        async with with_status(middle) as outer:
            for stream in inner, middle:
                check_no_outcome(stream, "<StatusStream of .*> has no outcome yet: its source")
            assert [item async for item in outer] == [1]
            assert inner.ended
        assert inner.outcome is middle.outcome is outer.outcome

    async def test_of_a_long_chain(self) -> None:
        """N8: the first of 3,000 streams has the outcome of all, and ends them all."""
        first = stream = with_buffer(aiter_of(1), 0)
        for _ in range(3000):
            stream = with_buffer(stream, 0)
        assert not first.ended
        with pytest.raises(RuntimeError, match="has no outcome yet"):
            _ = first.outcome
        with pytest.raises(RuntimeError, match=r"belongs to .*: iterate that one"):
            await anext(first)
        async with stream:
            assert await anext(stream) == 1
            await first.aclose()
            assert first.ended
        assert first.outcome is stream.outcome
        assert first.outcome.kind == "closed"

    async def test_never_entered(self) -> None:
        """S10: a stream that was never open has no outcome, and says so."""
        stream = with_status(aiter_of(1))
        await stream.aclose()
        assert not stream.ended
        with pytest.raises(RuntimeError, match="no outcome: it was closed without having been"):
            _ = stream.outcome


class TestFirstTerminalEventWins:
    """Each test lets a second thing happen after the one that decides."""

    async def test_end_then_token(self) -> None:
        """S10: the source has ended, then its token fires."""
        token = CancelToken()
        async with with_cancellation(aiter_of(1), token) as stream:
            assert [item async for item in stream] == [1]
            outcome = stream.outcome
            assert token.cancel("late")
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert stream.outcome is outcome
        assert (outcome.kind, outcome.reason) == ("completed", None)

    async def test_end_then_error_of_the_body(self) -> None:
        """S10: the source has ended, then the body raises."""
        with pytest.raises(LookupError, match="body"):
            async with with_cancellation(aiter_of(1)) as stream:
                assert [item async for item in stream] == [1]
                raise LookupError("body")
        assert stream.outcome.kind == "completed"
        assert stream.outcome.error is None

    async def test_error_then_token(self) -> None:
        """S10: the source has failed, then its token fires, and the body is cancelled."""
        error = LookupError("source")
        token = CancelToken()
        with pytest.raises(StreamCancelled, match="body"):
            async with with_cancellation(Probe(error=error).source(), token) as stream:
                with pytest.raises(LookupError):
                    await anext(stream)
                outcome = stream.outcome
                token.cancel("late")
                raise StreamCancelled("body")
        assert stream.outcome is outcome
        assert (outcome.kind, outcome.error, outcome.reason) == ("failed", error, None)

    async def test_token_then_leaving(self) -> None:
        """S10: a token has been delivered, then the consumer leaves without asking again."""
        probe = Probe(1, block=True)
        token = CancelToken()
        async with with_cancellation(probe.source(), token) as stream:
            await anext(stream)
            token.cancel("stop")
            await anyio.sleep(1)
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")
        assert [type(exc).__name__ for _, exc in probe.seen] == ["StreamCancelled"]

    async def test_leaving_then_token(self) -> None:
        """S10: the consumer leaves, and a token fires while the source is being closed."""
        token = CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                token.cancel("late")
                await anyio.sleep(1)

        async with with_cancellation(source(), token) as stream:
            await anext(stream)
        assert (stream.outcome.kind, stream.outcome.reason) == ("closed", None)
        assert stream.outcome.cleanup_error is None

    async def test_token_then_end(self) -> None:
        """S10: a token is delivered to a source that handles it and ends as if nothing was."""
        token = CancelToken()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "first"
                await anyio.sleep_forever()
            except StreamCancelled:
                yield "last"

        async with with_cancellation(source(), token) as stream:
            assert await anext(stream) == "first"
            token.cancel("stop")
            assert [item async for item in stream] == ["last"]
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")

    async def test_token_then_error(self) -> None:
        """S10: a token is delivered to a source that then fails: cancelled, with the error."""
        token = CancelToken()
        error = LookupError("while it was cancelled")

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "first"
                await anyio.sleep_forever()
            except StreamCancelled:
                raise error from None

        async with with_cancellation(source(), token) as stream:
            assert await anext(stream) == "first"
            token.cancel("stop")
            with pytest.raises(LookupError):
                await anext(stream)
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")
        assert stream.outcome.error is error

    async def test_two_tokens(self) -> None:
        """S10: two tokens fire: the reason is that of the first."""
        one, two = CancelToken(), CancelToken()
        async with with_cancellation(Probe(1, block=True).source(), one, two) as stream:
            await anext(stream)
            two.cancel("two")
            one.cancel("one")
            with pytest.raises(StreamCancelled, match="two"):
                await anext(stream)
        assert stream.outcome.reason == "two"

    async def test_error_of_the_closing(self) -> None:
        """S10: the consumer leaves and the source's clean-up fails: closed, with that error."""
        error = LookupError("clean-up")

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                raise error

        with pytest.raises(LookupError) as caught:
            async with with_status(source()) as stream:
                await anext(stream)
        assert caught.value is error
        assert stream.outcome.kind == "closed"
        assert stream.outcome.error is None
        assert stream.outcome.cleanup_error is error

    @pytest.mark.parametrize("grace", [0, 2.0])
    async def test_grace_exceeded(self, grace: float) -> None:
        """S10: a source that does not stop in time is cut: cancelled, and the outcome says so."""
        token = CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            while True:
                with suppress(StreamCancelled):
                    await anyio.sleep_forever()

        async with with_cancellation(source(), token, grace=grace) as stream:
            await anext(stream)
            token.cancel("stop")
            with pytest.raises(StreamCancelled):
                await anext(stream)
        assert stream.outcome.kind == "cancelled"
        assert stream.outcome.grace_exceeded
        assert stream.outcome.ended_at == START + grace


class TestCounts:
    @pytest.mark.parametrize("chain", ORDERS, ids="+".join)
    async def test_times(self, chain: Chain) -> None:
        """S10: times are those of anyio's clock: entered, first item there, source closed."""

        async def source() -> AsyncGenerator[str, None]:
            try:
                await anyio.sleep(10)
                yield "a"
                await anyio.sleep(20)
                yield "b"
            finally:
                await anyio.sleep(2)

        stream = wrap(source(), chain)
        await anyio.sleep(100)
        async with stream:
            await anyio.sleep(5)
            async for _ in stream:
                await anyio.sleep(50)
            await anyio.sleep(1000)
        outcome = stream.outcome
        assert outcome.started_at == START + 100
        assert outcome.first_item_at == START + 115
        assert outcome.ended_at == START + 115 + 50 + 20 + 50 + 2
        assert outcome.items == 2
        assert outcome.beats == 0

    async def test_on_end_takes_its_time(self) -> None:
        """S10: the end is when the source was closed, whatever on_end does after that."""

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(3)

        async with with_status(Probe("a", every=1).source(), on_end=on_end) as stream:
            assert [item async for item in stream] == ["a"]
            assert anyio.current_time() == START + 4
        assert stream.outcome.ended_at == START + 1

    async def test_no_item(self) -> None:
        """S10: without an item there is no time of the first one; a beat is none."""
        async with with_keepalive(Probe[int](block=True).source(), 10, "beat") as stream:
            assert [await anext(stream), await anext(stream)] == ["beat", "beat"]
        assert stream.outcome == Outcome(
            kind="closed", beats=2, started_at=START, ended_at=START + 20
        )

    @any_chain
    async def test_never_asked(self, chain: Chain) -> None:
        """S10: a stream of which nothing was asked."""
        async with wrap(Probe("a").source(), chain) as stream:
            await anyio.sleep(7)
        assert stream.outcome == Outcome(kind="closed", started_at=START, ended_at=START + 7)

    async def test_items_and_beats(self) -> None:
        """S10: what the consumer got, item by item and beat by beat."""
        async with with_keepalive(Probe(*range(5), every=25).source(), 10, "beat") as stream:
            got = [await anext(stream) for _ in range(8)]
        assert got == ["beat", "beat", 0, "beat", "beat", 1, "beat", "beat"]
        assert stream.outcome.items == 2
        assert stream.outcome.beats == 6

    @any_chain
    async def test_item_that_nobody_took(self, chain: Chain) -> None:
        """S10: an item that was there when the consumer left does not count."""
        probe = Probe("a", "b", every=5)
        async with wrap(probe.source(), chain) as stream:
            assert await anext(stream) == "a"
            with anyio.move_on_after(2):
                await anext(stream)
            await anyio.sleep(10)
            assert probe.produced == ["a", "b"]
        assert stream.outcome.items == 1
        assert stream.outcome.kind == "closed"

    async def test_last_items(self) -> None:
        """S10: the items that final adds do not count."""
        async with with_status(aiter_of("a"), final=lambda outcome: ["b", "c"]) as stream:
            assert [item async for item in stream] == ["a", "b", "c"]
        assert stream.outcome.items == 1
