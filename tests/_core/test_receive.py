"""A stream as a receive stream of anyio: where those go, it goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledObjectStream
from anyio.streams.text import TextReceiveStream

from chains import Chain, any_chain, wrap
from streamkit import (
    CancelToken,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
)
from support import Log, PlainSource, Probe, aiter_of, wait_all_blocked


class TestReceive:
    @any_chain
    async def test_items_and_the_end(self, chain: Chain) -> None:
        """N6: items, then EndOfStream, as often as one asks; after the block, it is closed."""
        stream = wrap(Probe(1, 2).source(), chain)
        assert isinstance(stream, anyio.abc.ObjectReceiveStream)
        assert isinstance(stream, AsyncIterator)
        with pytest.raises(RuntimeError, match="was not entered: write 'async with stream:'"):
            await stream.receive()
        async with stream:
            assert await stream.receive() == 1
            assert await anext(stream) == 2
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()

    @any_chain
    async def test_error(self, chain: Chain) -> None:
        """E11: an error of the source is raised once, bare, then EndOfStream."""
        error = LookupError("no")
        async with wrap(Probe(1, error=error).source(), chain) as stream:
            assert await stream.receive() == 1
            with pytest.raises(LookupError) as caught:
                await stream.receive()
            assert caught.value is error
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()

    @pytest.mark.parametrize("by", ["receive", "async for"])
    async def test_end_of_another_stream(self, by: str) -> None:
        """E1: the source raises EndOfStream, of one that it reads: an error, and no end."""
        error = anyio.EndOfStream()
        stream = with_status(Probe(1, error=error).source())
        async with stream:
            assert await stream.receive() == 1
            if by == "receive":
                with pytest.raises(RuntimeError, match="raised EndOfStream: end it by") as raised:
                    await stream.receive()
                assert raised.value.__cause__ is error
            else:
                with pytest.raises(anyio.EndOfStream) as caught:
                    await anext(stream)
                assert caught.value is error
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        assert (stream.outcome.kind, stream.outcome.error) == ("failed", error)

    async def test_stopped(self) -> None:
        """C5: the token fires while the consumer waits in receive()."""
        token = CancelToken()
        async with with_cancellation(Probe[int](block=True).source(), token) as stream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._stop, token)
                with pytest.raises(StreamCancelled) as caught:
                    await stream.receive()
            assert caught.value.reason == "stop"
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()

    async def _stop(self, token: CancelToken) -> None:
        await wait_all_blocked()
        token.cancel("stop")

    async def test_cancelled(self) -> None:
        """B4: a wait in receive() that is cancelled loses nothing."""
        async with with_cancellation(Probe(1, 2, every=3).source()) as stream:
            for item in 1, 2:
                for _ in range(2):
                    with anyio.move_on_after(1.4) as scope:
                        await stream.receive()
                    assert scope.cancelled_caught
                assert await stream.receive() == item

    async def test_beats(self) -> None:
        """K1: beats come by receive(), too."""
        async with with_keepalive(Probe(1, every=2.5).source(), 1, "beat") as stream:
            assert [await stream.receive() for _ in range(3)] == ["beat", "beat", 1]

    async def test_two_consumers(self) -> None:
        """G8: a second task in receive() is told so, and what to write."""
        stream = with_cancellation(Probe(1, every=1).source())
        async with stream, anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive)
            await wait_all_blocked()
            with pytest.raises(anyio.BusyResourceError, match=r"create_memory_object_stream\(\)"):
                await stream.receive()


class TestWrapped:
    """Streams of anyio around one of ours."""

    async def chunks(self, log: Log) -> AsyncGenerator[bytes, None]:
        try:
            yield b"head\r"
            yield b"\nbo"
            yield "d\u00fcy".encode()[:2]
            yield "d\u00fcy".encode()[2:]
            yield b""
            yield b"rest"
        finally:
            await anyio.sleep(1)
            log("closed")

    @any_chain
    async def test_buffered(self, chain: Chain) -> None:
        """N6: BufferedByteReceiveStream: lines and lengths, and the end as anyio tells it."""
        async with wrap(self.chunks(Log()), chain) as stream:
            buffered = BufferedByteReceiveStream(stream)
            assert await buffered.receive_until(b"\r\n", 100) == b"head"
            assert await buffered.receive_exactly(4) == b"bod\xc3"
            assert await buffered.receive() == b"\xbcy"
            with pytest.raises(anyio.IncompleteRead):
                await buffered.receive_exactly(100)

    async def test_text(self) -> None:
        """N6: TextReceiveStream: a character that comes in two pieces."""
        async with with_buffer(self.chunks(Log()), 2) as stream:
            text = "".join([piece async for piece in TextReceiveStream(stream)])
        assert text == "head\r\nbod\u00fcyrest"

    async def test_stapled(self) -> None:
        """N6: StapledObjectStream: one end of it."""
        send, receive = anyio.create_memory_object_stream[str](1)
        with receive:
            async with with_cancellation(aiter_of("a", "b")) as stream:
                both = StapledObjectStream(send, stream)
                await both.send("to")
                assert [item async for item in both] == ["a", "b"]
                await both.aclose()
            assert [item async for item in receive] == ["to"]

    async def test_aclose(self) -> None:
        """G15: aclose() by who was given the stream ends the source, and not the block."""
        log = Log()
        async with with_cancellation(self.chunks(log)) as stream:
            buffered = BufferedByteReceiveStream(stream)
            await buffered.receive_exactly(2)
            await buffered.aclose()
            log("the block goes on")
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()
        assert log.events == ["closed", "the block goes on"]
        assert stream.outcome.kind == "closed"


class Names(anyio.TypedAttributeSet):
    name: str = anyio.typed_attribute()


class Named(PlainSource[int], anyio.TypedAttributeProvider):
    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {Names.name: lambda: "a name"}


@asynccontextmanager
async def opened() -> AsyncIterator[Named]:
    yield Named(1)


class TestExtra:
    @any_chain
    async def test_of_the_source(self, chain: Chain) -> None:
        """N6: the typed attributes of the source are those of the stream, at any time."""
        stream = wrap(Named(1), chain)
        assert stream.extra(Names.name) == "a name"
        async with stream:
            assert [item async for item in stream] == [1]
            assert BufferedByteReceiveStream(stream).extra(Names.name) == "a name"

    async def test_of_another_source(self) -> None:
        """N6: a source without any has none, nor has one that is yet to be opened."""
        for source in aiter_of(1), opened():
            stream = with_cancellation(source)
            assert stream.extra(Names.name, None) is None
            with pytest.raises(anyio.TypedAttributeLookupError):
                stream.extra(Names.name)
            await stream.aclose()
