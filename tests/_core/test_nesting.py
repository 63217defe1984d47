"""Streams in streams, scopes around and inside of them, and sources of other libraries."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import aiostream
import anyio
import anyio.abc
import anyio.lowlevel
import asyncstdlib
import httpx
import pytest
import trio

from chains import ORDERS, Chain, any_chain, wrap
from observing import kind
from streamkit import (
    CancelToken,
    Stream,
    StreamCancelled,
    current_cancellation,
    with_cancellation,
    with_keepalive,
)
from support import Log, Probe, on_trio, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

# How often a case is run whose outcome may depend on the order in which tasks are scheduled:
# trio's is random, and so is the one in which anyio cancels tasks on asyncio.
REPEATS = 30


def kind_of(stream: Stream[Any]) -> str:
    return stream.outcome.kind


def cancelling() -> int:
    """Return how many cancellation requests the calling task has: none where there are no such."""
    task = None if on_trio() else asyncio.current_task()
    return 0 if task is None else task.cancelling()


class TestInTheLoopBody:
    @any_chain
    async def test_same_factory(self, chain: Chain) -> None:
        """N1: the same factory makes the stream of the loop and one in each round of its body."""
        probes: list[Probe[int]] = []
        inner_outcomes = []
        pairs = []

        def make() -> Stream[int]:
            probes.append(Probe(1, 2, 3))
            stream: Stream[int] = wrap(probes[-1].source(), chain)
            return stream

        async with make() as outer:
            async for a in outer:
                async with make() as inner:
                    async for b in inner:
                        pairs.append((a, b))
                        if b == 2:
                            break
                inner_outcomes.append((kind_of(inner), inner.outcome.items))
                assert not outer.ended

        assert pairs == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
        assert inner_outcomes == [("closed", 2)] * 3
        assert kind_of(outer) == "completed"
        assert [probe.closed for probe in probes] == [1] * 4
        tasks = [probe.task_ids for probe in probes]
        assert [len(ids) for ids in tasks] == [1] * 4
        # The inner streams follow each other, so an id may come again among them.
        assert tasks[0].isdisjoint(set.union(*tasks[1:]))

    async def test_beats(self) -> None:
        """N1: the outer stream of the same factory goes on beating when the inner one is closed."""

        def make() -> Stream[int | str]:
            return with_keepalive(Probe(1, block=True).source(), 10, "beat")

        async with make() as outer:
            for _ in range(3):
                async with make() as inner:
                    assert [await anext(inner), await anext(inner)] == [1, "beat"]
            with anyio.fail_after(25):
                assert [await anext(outer) for _ in range(3)] == [1, "beat", "beat"]
        assert (outer.outcome.items, outer.outcome.beats) == (1, 2)

    async def test_one_token(self) -> None:
        """N1: the inner stream of the same factory is cancelled; the outer one has its own token"""
        tokens = []

        def make() -> Stream[int]:
            tokens.append(CancelToken())
            return with_cancellation(Probe(1, 2, block=True).source(), tokens[-1])

        async with make() as outer:
            assert await anext(outer) == 1
            async with make() as inner:
                assert await anext(inner) == 1
                tokens[1].cancel("enough")
                with pytest.raises(StreamCancelled, match="enough"):
                    await anext(inner)
            assert await anext(outer) == 2
        assert (kind_of(outer), kind_of(inner)) == ("closed", "cancelled")


class TestScopesInTheSource:
    """The source yields inside a scope of its own, which is over at 1 s."""

    AT_AN_AWAIT = [(0, "inside"), (1, "expired"), (2, "after")]
    AT_A_YIELD = [
        (0, "inside"),
        (3, "the consumer slept"),
        (3, "expired"),
        (4, "after"),
        (7, "the consumer slept"),
    ]

    @any_chain
    @pytest.mark.parametrize("scope", ["move_on_after", "fail_after"])
    async def test_anyio_blocked(self, chain: Chain, scope: str) -> None:
        """N2: a scope around a yield expires while the source is blocked in the next await."""
        assert await self._expire(chain, scope, busy=0) == self.AT_AN_AWAIT

    @any_chain
    @pytest.mark.parametrize("scope", ["move_on_after", "fail_after"])
    async def test_anyio_at_a_yield(self, chain: Chain, scope: str) -> None:
        """N2: a scope around a yield expires at the yield: the next await after it sees that."""
        assert await self._expire(chain, scope, busy=3) == self.AT_A_YIELD

    @any_chain
    @pytest.mark.asyncio_only
    async def test_asyncio_blocked(self, chain: Chain) -> None:
        """N2: an asyncio.timeout around a yield expires while the source is blocked."""
        assert await self._expire(chain, "asyncio.timeout", busy=0) == self.AT_AN_AWAIT

    @any_chain
    @pytest.mark.asyncio_only
    async def test_asyncio_at_a_yield(self, chain: Chain) -> None:
        """N2: an asyncio.timeout around a yield expires at the yield.

        The source is resumed at once and not at the next ask. A native cancellation comes only
        once, and nothing tells it from the one by which ``asyncio.run()`` ends all tasks, which
        must not wait for a consumer.
        """
        assert await self._expire(chain, "asyncio.timeout", busy=3) == [
            (0, "inside"),
            (1, "expired"),
            (3, "the consumer slept"),
            (3, "after"),
            (6, "the consumer slept"),
        ]

    async def _expire(self, chain: Chain, scope: str, *, busy: float) -> Log:
        """Iterate with a consumer that is busy for some seconds after each item."""
        log = Log()

        async def source() -> AsyncGenerator[str, None]:
            try:
                async with self._scope(scope):
                    yield "inside"
                    await anyio.sleep(9)
            except TimeoutError:
                assert scope != "move_on_after"
            else:
                assert scope == "move_on_after"
            log("expired")
            await anyio.sleep(1)
            yield "after"

        log.start()
        stream = wrap(source(), chain)
        async with stream:
            async for item in stream:
                log(item)
                if busy:
                    await anyio.sleep(busy)
                    log("the consumer slept")
        assert kind_of(stream) == "completed"
        assert cancelling() == 0
        return log

    @asynccontextmanager
    async def _scope(self, name: str) -> AsyncIterator[None]:
        if name == "asyncio.timeout":
            async with asyncio.timeout(1):
                yield
        elif name == "fail_after":
            with anyio.fail_after(1):
                yield
        else:
            with anyio.move_on_after(1):
                yield

    @any_chain
    @pytest.mark.parametrize("kind", ["anyio", "native"])
    async def test_task_group(self, chain: Chain, kind: str) -> None:
        """N2: the source yields inside a task group; its child runs on while the consumer works."""
        log = Log()

        async def child() -> None:
            for _ in range(3):
                await anyio.sleep(1)
                log("child")

        async def source() -> AsyncGenerator[str, None]:
            async with task_group(kind) as start:
                start(child)
                yield "a"
                yield "b"
            log("group left")
            yield "c"

        log.start()
        stream = wrap(source(), chain)
        async with stream:
            async for item in stream:
                log(item)
                await anyio.sleep(1.5)

        assert kind_of(stream) == "completed"
        assert log == [
            (0, "a"),
            (1, "child"),
            (1.5, "b"),
            (2, "child"),
            (3, "child"),
            (3, "group left"),
            (3, "c"),
        ]


@asynccontextmanager
async def task_group(kind: str) -> AsyncIterator[Callable[[Callable[[], Any]], object]]:
    """Open anyio's task group, or the one of the backend; yields what starts a task in it."""
    if kind == "anyio":
        async with anyio.create_task_group() as tasks:
            yield tasks.start_soon
    elif on_trio():
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
    else:
        async with asyncio.TaskGroup() as group:
            yield lambda function: group.create_task(function())


class TestFailingChild:
    """A child of the task group that the source holds across its yield fails at 1 s."""

    @any_chain
    @pytest.mark.parametrize("kind", ["anyio", "native"])
    async def test_source_blocked(self, chain: Chain, kind: str) -> None:
        """N3: it fails while the source is blocked: the consumer gets the group of the source."""
        log, stream, group = await self._fail(chain, kind, busy=0)
        assert log == [(0, "item"), (1, "source ended"), (1, "consumer got the error")]
        assert stream.outcome.error is group

    @any_chain
    @pytest.mark.parametrize("kind", ["anyio", "native"])
    async def test_source_at_a_yield(self, chain: Chain, kind: str) -> None:
        """N3: it fails while the consumer is busy, which is told at its next ask, not before.

        ``asyncio.TaskGroup`` ends the source at once (see ``test_asyncio_at_a_yield``).
        """
        log, stream, group = await self._fail(chain, kind, busy=3)
        at_once = kind == "native" and not on_trio()
        ended = (1 if at_once else 3, "source ended")
        assert sorted(log) == sorted(
            [(0, "item"), ended, (3, "consumer not busy"), (3, "consumer got the error")]
        )
        assert log.events[-1] == "consumer got the error"
        assert stream.outcome.error is group

    async def _fail(
        self, chain: Chain, kind: str, *, busy: float
    ) -> tuple[Log, Stream[str], BaseException]:
        log = Log()
        error = ValueError("the child failed")

        async def child() -> None:
            await anyio.sleep(1)
            raise error

        async def source() -> AsyncGenerator[str, None]:
            try:
                async with task_group(kind) as start:
                    start(child)
                    yield "item"
                    await anyio.sleep_forever()
            finally:
                log("source ended")

        log.start()
        stream = wrap(source(), chain)
        with pytest.RaisesGroup(pytest.RaisesExc(ValueError, check=lambda e: e is error)) as caught:
            async with stream:
                async for item in stream:
                    log(item)
                    if busy:
                        await anyio.sleep(busy)
                        log("consumer not busy")
        log("consumer got the error")
        assert kind_of(stream) == "failed"
        assert cancelling() == 0
        return log, stream, caught.value


class TestScopeOfTheConsumer:
    """The user's own ``move_on_after(1)``."""

    @any_chain
    async def test_while_waiting(self, chain: Chain) -> None:
        """N4: it expires around the stream while the source is blocked."""
        probe = Probe("item", block=True)
        await self._leave(chain, probe, busy=0)
        assert [(where, kind(exc)) for where, exc in probe.seen] == [
            ("await", "told that the consumer has left")
        ]

    @any_chain
    async def test_while_busy(self, chain: Chain) -> None:
        """N4: it expires around the stream while the consumer is busy, the source at a yield."""
        probe = Probe("item", block=True)
        await self._leave(chain, probe, busy=9)
        assert [(where, type(e)) for where, e in probe.seen] == [("yield", GeneratorExit)]

    async def _leave(self, chain: Chain, probe: Probe[str], *, busy: float) -> None:
        log = Log()
        log.start()
        stream = wrap(probe.source(), chain)
        with anyio.move_on_after(1) as scope:
            async with stream:
                async for item in stream:
                    log(item)
                    await anyio.sleep(busy)
            raise AssertionError("the scope must be left")
        log("went on")
        await anyio.sleep(1)
        log("not cancelled")

        assert scope.cancelled_caught
        assert log == [(0, "item"), (1, "went on"), (2, "not cancelled")]
        assert kind_of(stream) == "closed"
        assert probe.closed == 1
        assert len(probe.task_ids) == 1
        assert cancelling() == 0

    @any_chain
    async def test_inside_the_block(self, chain: Chain) -> None:
        """N4: it expires around one ask: the stream goes on, and keeps the item for the next."""
        probe = Probe("a", "b", every=1.5)
        stream = wrap(probe.source(), chain)
        items = []
        async with stream:
            for _ in range(5):
                with anyio.move_on_after(1) as scope:
                    items.append(await anext(stream, "end"))
                if scope.cancelled_caught:
                    items.append("expired")
                    await anyio.sleep(1)
        assert items == ["expired", "a", "expired", "b", "end"]
        assert kind_of(stream) == "completed"


class TestTwoInOneTask:
    @any_chain
    @pytest.mark.parametrize("first", ["outer", "inner"])
    async def test_alternately(self, chain: Chain, first: str) -> None:
        """N5: two streams whose sources hold scopes are asked in turn; one is closed, then both."""
        log = Log()
        streams = {name: wrap(holding_scopes(name, log), chain) for name in ("outer", "inner")}
        second = "inner" if first == "outer" else "outer"
        async with streams["outer"] as outer, streams["inner"] as inner:
            for number in range(2):
                assert await anext(outer) == ("outer", number)
                assert await anext(inner) == ("inner", number)
            await streams[first].aclose()
            assert log.events == [f"{first} closed"]
            with pytest.raises(anyio.ClosedResourceError):
                await anext(streams[first])
            with anyio.fail_after(1):
                assert await anext(streams[second]) == (second, 2)
            await streams[second].aclose()
            assert log.events == [f"{first} closed", f"{second} closed"]
        assert [kind_of(stream) for stream in streams.values()] == ["closed", "closed"]
        assert len(log) == 2
        assert cancelling() == 0

    @any_chain
    async def test_one_ends_alone(self, chain: Chain) -> None:
        """N5: the outer of two streams fails while the inner one is open, which then goes on."""
        log = Log()
        failing = wrap(Probe(1, error=ValueError("failed")).source(), chain)
        async with failing, wrap(holding_scopes("inner", log), chain) as inner:
            assert await anext(failing) == 1
            assert await anext(inner) == ("inner", 0)
            with pytest.raises(ValueError, match="failed"):
                await anext(failing)
            assert await anext(inner) == ("inner", 1)
            assert await anext(failing, "end") == "end"
        assert (kind_of(failing), kind_of(inner)) == ("failed", "closed")
        assert log.events == ["inner closed"]


async def holding_scopes(name: str, log: Log) -> AsyncGenerator[tuple[str, int], None]:
    """Yield for ever, inside a task group with a child and a scope."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            with anyio.fail_after(1e6):
                for number in count():
                    await anyio.lowlevel.checkpoint()
                    yield name, number
    finally:
        log(f"{name} closed")


def backend_cancellation() -> type[BaseException]:
    return anyio.get_cancelled_exc_class()


class TestMemoryStream:
    @any_chain
    async def test_to_the_end(self, chain: Chain) -> None:
        """N6: a receive stream as source is read to its end, and closed by its owner."""
        send, receive = anyio.create_memory_object_stream[int](3)
        with send:
            for number in range(3):
                send.send_nowait(number)
        async with wrap(receive, chain) as stream:
            assert [item async for item in stream] == [0, 1, 2]
        with pytest.raises(anyio.ClosedResourceError):
            receive.receive_nowait()
        assert kind_of(stream) == "completed"

    @any_chain
    async def test_left_early(self, chain: Chain) -> None:
        """N6: the consumer leaves: the sender is told, and what was not asked for is not taken."""
        send, receive = anyio.create_memory_object_stream[int](3)
        with send:
            send.send_nowait(0)
            send.send_nowait(1)
            async with wrap(receive, chain) as stream:
                assert await anext(stream) == 0
                assert send.statistics().current_buffer_used == 1
            with pytest.raises(anyio.BrokenResourceError):
                send.send_nowait(2)

    async def test_cancelled(self) -> None:
        """N6: a token fires while a receive stream waits: it is told, closed, nothing is lost."""
        token = CancelToken()
        send, receive = anyio.create_memory_object_stream[int](0)
        with send:
            async with with_cancellation(receive, token) as stream:
                await stopped_while_waiting(stream, token)
            assert kind_of(stream) == "cancelled"
            assert send.statistics().open_receive_streams == 0


async def stopped_while_waiting(stream: Stream[Any], token: CancelToken) -> None:
    """Ask, fire the token while everything is blocked, and expect to be told so."""

    async def fire() -> None:
        await wait_all_blocked()
        token.cancel("stop")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fire)
        with pytest.raises(StreamCancelled, match="stop"):
            await anext(stream)


def times_ten(item: int, *_: int) -> int:
    return item * 10


class TestAiostream:
    @any_chain
    async def test_as_source(self, chain: Chain) -> None:
        """N6: a pipeline of aiostream is a source that has to be entered, and to be left."""
        probe = Probe(1, 2, 3, 4)
        pipeline = (
            aiostream.stream.iterate(probe.source())
            | aiostream.pipe.map(times_ten)
            | aiostream.pipe.enumerate()
        )
        async with wrap(pipeline.stream(), chain) as stream:
            assert [await anext(stream), await anext(stream)] == [(0, 10), (1, 20)]
        assert probe.closed == 1
        assert len(probe.task_ids) == 1
        assert kind_of(stream) == "closed"

    @any_chain
    async def test_on_top(self, chain: Chain) -> None:
        """N6: a stream is the source of a pipeline of aiostream."""
        async with wrap(Probe(1, 2, 3).source(), chain) as stream:
            pipeline = aiostream.stream.enumerate(stream) | aiostream.pipe.takelast(2)
            async with pipeline.stream() as streamer:
                assert [item async for item in streamer] == [(1, 2), (2, 3)]
        assert kind_of(stream) == "completed"

    @any_chain
    @pytest.mark.asyncio_only
    async def test_merge(self, chain: Chain) -> None:
        """N6: aiostream's merge asks two streams in tasks of its own. (It knows asyncio only.)"""
        async with (
            wrap(Probe("a", "b", every=2).source(), chain) as letters,
            wrap(Probe(1, 2, every=3).source(), chain) as numbers,
            aiostream.stream.merge(letters, numbers).stream() as merged,
        ):
            assert [item async for item in merged] == ["a", 1, "b", 2]
        assert (kind_of(letters), kind_of(numbers)) == ("completed", "completed")

    async def test_cancelled(self) -> None:
        """N6: a token fires while a pipeline waits: its innermost generator sees it."""
        token = CancelToken()
        probe = Probe(1, block=True)
        pipeline = aiostream.stream.iterate(probe.source()) | aiostream.pipe.map(times_ten)
        async with with_cancellation(pipeline.stream(), token) as stream:
            assert await anext(stream) == 10
            await stopped_while_waiting(stream, token)
        assert [(where, str(exc)) for where, exc in probe.seen] == [("await", "stop")]
        assert probe.closed == 1


class TestAsyncstdlib:
    @any_chain
    async def test_as_source(self, chain: Chain) -> None:
        """N6: iterators of asyncstdlib as a source."""
        probe = Probe(1, 2, 3, 4, 5)
        pairs = asyncstdlib.batched(asyncstdlib.map(times_ten, probe.source()), 2)
        async with wrap(pairs, chain) as stream:
            assert [item async for item in stream] == [(10, 20), (30, 40), (50,)]
        assert probe.closed == 1
        assert len(probe.task_ids) == 1

    @any_chain
    async def test_scoped(self, chain: Chain) -> None:
        """N6: the scope of an iterator, a context manager, as a source; left in the source task."""
        probe = Probe(1, 2, 3)
        async with wrap(asyncstdlib.scoped_iter(probe.source()), chain) as stream:
            assert await anext(stream) == 1
        assert probe.closed == 1
        assert len(probe.task_ids) == 1

    @any_chain
    async def test_on_top(self, chain: Chain) -> None:
        """N6: a stream is the source of iterators of asyncstdlib."""
        async with wrap(Probe(1, 2, 3).source(), chain) as stream:
            pairs = asyncstdlib.enumerate(asyncstdlib.pairwise(stream))
            assert await asyncstdlib.list(pairs) == [(0, (1, 2)), (1, (2, 3))]
        assert kind_of(stream) == "completed"


@pytest.mark.trio_only
class TestSafeChannel:
    @any_chain
    async def test_as_source(self, chain: Chain) -> None:
        """N6: a generator behind trio.as_safe_channel, a context manager, is entered and left."""
        probe = Probe(1, 2, 3)
        async with wrap(trio.as_safe_channel(probe.source)(), chain) as stream:
            assert [item async for item in stream] == [1, 2, 3]
        assert kind_of(stream) == "completed"
        assert probe.closed == 1

    @any_chain
    async def test_left_early(self, chain: Chain) -> None:
        """N6: the consumer leaves while a safe channel is at a yield."""
        probe = Probe(1, 2, block=True)
        async with wrap(trio.as_safe_channel(probe.source)(), chain) as stream:
            assert await anext(stream) == 1
        assert kind_of(stream) == "closed"
        assert probe.closed == 1

    async def test_cancelled(self) -> None:
        """N6: a token fires while a safe channel waits.

        The generator runs in a task of trio's, which is cancelled in trio's way; what it learns
        from ``current_cancellation()`` is the reason.
        """
        token = CancelToken()
        seen = []

        @trio.as_safe_channel
        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
                await trio.sleep_forever()
            except trio.Cancelled:
                seen.append(current_cancellation())
                raise

        async with with_cancellation(source(), token) as stream:
            assert await anext(stream) == 1
            await stopped_while_waiting(stream, token)
        assert seen == ["stop"]
        assert kind_of(stream) == "cancelled"

    async def test_on_top(self) -> None:
        """N6: a stream inside of a generator behind trio.as_safe_channel, which is left early."""
        probe = Probe(1, 2, 3)

        @trio.as_safe_channel
        async def doubled() -> AsyncGenerator[int, None]:
            async with wrap(probe.source(), ORDERS[0]) as stream:
                async for item in stream:
                    yield item * 2

        async with doubled() as channel:
            assert await anext(channel) == 2
        assert probe.closed == 1


@pytest.mark.real_time
class TestHttpx:
    @any_chain
    async def test_to_the_end(self, chain: Chain) -> None:
        """N6: a response body over a real connection is read to its end."""
        async with line_server("one", "two") as (url, log):
            async with wrap(lines(url), chain) as stream:
                assert [line async for line in stream] == ["one", "two"]
            assert kind_of(stream) == "completed"
            await log.wait_for("client gone")

    @any_chain
    @pytest.mark.allow_gc_generators
    async def test_left_early(self, chain: Chain) -> None:
        """N6: the consumer leaves in the middle of a body: the connection is closed.

        httpx leaves its inner generators to the garbage collector, also without a stream.
        """
        async with line_server("one", "two", block=True) as (url, log):
            async with wrap(lines(url), chain) as stream:
                assert await anext(stream) == "one"
            assert kind_of(stream) == "closed"
            await log.wait_for("client gone")

    async def test_cancelled(self) -> None:
        """N6: a token fires while the body waits for the network: the connection is closed."""
        token = CancelToken()
        seen = []

        async def source(url: str) -> AsyncGenerator[str, None]:
            async with aclosing(lines(url)) as body:
                try:
                    async for line in body:
                        yield line
                except StreamCancelled as stop:
                    seen.append(stop.reason)
                    raise

        async with line_server("one", block=True) as (url, log):
            async with with_cancellation(source(url), token) as stream:
                assert await anext(stream) == "one"
                await stopped_while_waiting(stream, token)
            assert seen == ["stop"]
            assert kind_of(stream) == "cancelled"
            await log.wait_for("client gone")

    @pytest.mark.allow_gc_generators
    async def test_the_raw_body(self) -> None:
        """N6: the byte stream of a response, no generator, is iterated and closed by its owner.

        httpx leaves its inner generators to the garbage collector, also without a stream.
        """
        async with (
            line_server("one", "two", block=True) as (url, log),
            httpx.AsyncClient(trust_env=False, verify=False) as client,
        ):
            response = await client.send(client.build_request("GET", url), stream=True)
            body = response.stream
            assert isinstance(body, httpx.AsyncByteStream)
            async with with_keepalive(body, 1e6, b"beat") as stream:
                assert await anext(stream) == b"one\n"
            assert kind_of(stream) == "closed"
            await log.wait_for("client gone")


async def lines(url: str) -> AsyncGenerator[str, None]:
    async with (
        httpx.AsyncClient(trust_env=False, verify=False) as client,
        client.stream("GET", url) as response,
    ):
        async for line in response.aiter_lines():
            yield line


class Events(list[str]):
    """A list of events that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = anyio.Event()

    def __call__(self, event: str) -> None:
        self.append(event)
        self._changed.set()

    async def wait_for(self, event: str) -> None:
        with anyio.fail_after(10):
            while event not in self:
                self._changed = anyio.Event()
                await self._changed.wait()


@asynccontextmanager
async def line_server(*answer: str, block: bool = False) -> AsyncIterator[tuple[str, Events]]:
    """Serve lines over HTTP, each in a chunk; yields the URL and what the server has seen.

    :param block: leave the body open after the last line
    """
    log = Events()

    async def serve(client: anyio.abc.SocketStream) -> None:
        async with client:
            await client.receive()
            await client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for line in answer:
                await client.send(f"{len(line) + 1:x}\r\n{line}\n\r\n".encode())
            if not block:
                await client.send(b"0\r\n\r\n")
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await client.receive()
            log("client gone")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}/", log
        tasks.cancel_scope.cancel()


LEVELS = ("outer", "middle", "inner")


class Nest:
    """Three streams inside each other: the source of each but the innermost consumes the next.

    :param blocked: the level whose source is blocked in an await of its own. The levels around it
        wait for its next item, those inside of it are at a yield. "consumer": all are at a yield.
        "nobody": items flow, so that a task may be anywhere.
    :param opened: whether a source iterates the next stream "itself", or a "child" of its task
        group does so and sends it the items
    :param chains: the combinators of each level, which share a token
    :param handled: whether the level around the one that is stopped catches that, and goes on

    """

    def __init__(
        self,
        blocked: str,
        opened: str,
        *,
        chains: Sequence[Chain] = (("cancellation",),) * 3,
        handled: bool = False,
    ) -> None:
        self.tokens = {name: CancelToken() for name in LEVELS}
        self.streams: dict[str, Stream[int | str]] = {}
        self.items: list[int | str] = []
        #: what was raised in the source of each level, in its innermost frame
        self.seen: dict[str, list[BaseException]] = {name: [] for name in LEVELS}
        self.closed: list[str] = []
        self._blocked = blocked
        self._opened = opened
        self._chains = dict(zip(LEVELS, chains, strict=True))
        self._handled = handled
        self._flowing = anyio.Event()
        self._fired = anyio.Event()

    async def stop(self, level: str, *, after: int = 0) -> BaseException | None:
        """Consume the outer stream and fire the token of a level; returns what is raised.

        :param after: when "nobody" is blocked: for how many checkpoints to wait before
        """
        async with anyio.create_task_group() as tasks:
            try:
                async with self._open("outer") as stream:
                    tasks.start_soon(self._fire, level, after)
                    async for item in stream:
                        self.items.append(item)
                        self._flowing.set()
                        await self._maybe_block("consumer")
            except BaseException as exc:
                return exc
        return None

    async def _fire(self, level: str, after: int) -> None:
        if self._blocked == "nobody":
            await self._flowing.wait()
            for _ in range(after):
                await anyio.lowlevel.checkpoint()
            self.tokens[level].cancel(f"stop {level}")
            return
        await wait_all_blocked()
        self.tokens[level].cancel(f"stop {level}")
        await wait_all_blocked()
        self._fired.set()

    async def _maybe_block(self, name: str) -> None:
        if name == self._blocked:
            await self._fired.wait()
        else:
            await anyio.lowlevel.checkpoint()

    def _open(self, name: str) -> Stream[int | str]:
        source = self._inner() if name == "inner" else self._outer(name)
        self.streams[name] = wrap(source, self._chains[name], token=self.tokens[name])
        return self.streams[name]

    async def _inner(self) -> AsyncGenerator[int, None]:
        with self._noted("inner"):
            for number in count():
                yield number
                await self._maybe_block("inner")

    async def _outer(self, name: str) -> AsyncGenerator[int | str, None]:
        try:
            async with self._items(LEVELS[LEVELS.index(name) + 1]) as items:
                with self._noted(name):
                    async for item in items:
                        yield item
                        await self._maybe_block(name)
        except (StreamCancelled, BaseExceptionGroup) as exc:
            if not self._handled or current_cancellation() is not None:
                raise
            [stop] = leaves(exc)
            assert isinstance(stop, StreamCancelled)
            yield f"handled {stop.reason}"

    @asynccontextmanager
    async def _items(self, name: str) -> AsyncIterator[AsyncIterable[int | str]]:
        if self._opened == "itself":
            async with self._open(name) as stream:
                yield stream
            return
        send, receive = anyio.create_memory_object_stream[int | str](0)

        async def child() -> None:
            with send:
                async with self._open(name) as stream:
                    async for item in stream:
                        await send.send(item)

        with receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                yield receive

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            self.seen[name].append(exc)
            raise
        finally:
            self.closed.append(name)


def leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


class TestTokenInANest:
    """N7: the form of a case is in its name: what is stopped, who is blocked, who opened what."""

    any_level = pytest.mark.parametrize("level", LEVELS)
    anybody = pytest.mark.parametrize("blocked", [*reversed(LEVELS), "consumer", "nobody"])
    opened_by = pytest.mark.parametrize("opened", ["itself", "child"])

    @any_level
    @anybody
    @opened_by
    async def test_reason(self, level: str, blocked: str, opened: str) -> None:
        """N7: the token of a level fires: each source from there on inwards sees that, typed.

        The consumer receives it bare, however many task groups had it in a group.
        """
        for number in range(REPEATS):
            nest = Nest(blocked, opened)
            error = await nest.stop(level, after=number)
            self._check_inwards(nest, level)
            assert type(error) is StreamCancelled
            assert error.reason == f"stop {level}"
            assert [kind_of(stream) for stream in nest.streams.values()] == ["cancelled"] * 3

    @pytest.mark.parametrize("level", LEVELS[1:])
    @anybody
    @opened_by
    async def test_outwards(self, level: str, blocked: str, opened: str) -> None:
        """N7: the token of a level fires: the level around it catches that, and goes on."""
        for number in range(REPEATS):
            nest = Nest(blocked, opened, handled=True)
            assert await nest.stop(level, after=number) is None
            self._check_inwards(nest, level)
            assert nest.items[-1] == f"handled stop {level}"
            kinds = {name: kind_of(stream) for name, stream in nest.streams.items()}
            outwards = LEVELS[: LEVELS.index(level)]
            assert kinds == {
                name: "completed" if name in outwards else "cancelled" for name in LEVELS
            }
            assert not any(nest.tokens[name].cancelled for name in LEVELS if name != level)

    @any_chain
    @pytest.mark.parametrize("blocked", ["inner", "consumer"])
    @opened_by
    async def test_any_chain(self, chain: Chain, blocked: str, opened: str) -> None:
        """N7: the token of the outer stream fires; the streams inside it may know of no token."""
        for _ in range(REPEATS // 10):
            nest = Nest(blocked, opened, chains=[("cancellation", *chain), chain, chain])
            error = await nest.stop("outer")
            self._check_inwards(nest, "outer")
            assert type(error) is StreamCancelled
            assert error.reason == "stop outer"
            assert [kind_of(stream) for stream in nest.streams.values()] == ["cancelled"] * 3

    @pytest.mark.parametrize("between", [0, 1])
    async def test_before_the_inner_source_has_begun(self, between: int) -> None:
        """N7: the outer token fires when the inner stream has just been opened, and asked."""

        async def source(stream: Stream[str], token: CancelToken | None) -> AsyncIterator[str]:
            async with stream:
                if token is not None:
                    token.cancel("stop")
                async for item in stream:
                    yield item

        for _ in range(REPEATS):
            token = CancelToken()
            inner = wrap(Probe[str](block=True).source(), ("keepalive",))
            outer = source(inner, token)
            for _ in range(between):
                outer = source(with_keepalive(outer, 1e6, "beat"), None)
            async with with_cancellation(outer, token) as stream:
                with pytest.raises(StreamCancelled, match="stop"):
                    await anext(stream)
            assert (inner.outcome.kind, inner.outcome.reason) == ("cancelled", "stop")

    def _check_inwards(self, nest: Nest, level: str) -> None:
        inwards = LEVELS[LEVELS.index(level) :]
        seen = {name: [repr(exc) for exc in nest.seen[name]] for name in inwards}
        assert seen == {name: [f"StreamCancelled('stop {level}')"] for name in inwards}
        for name in inwards:
            outcome = nest.streams[name].outcome
            assert outcome.reason == f"stop {level}"
        assert sorted(nest.closed) == sorted(LEVELS)
        numbers = [item for item in nest.items if isinstance(item, int)]
        assert numbers == list(range(len(numbers)))
        assert cancelling() == 0


class TestDepth:
    @pytest.mark.parametrize("chain", ORDERS[::5], ids="+".join)
    async def test_traceback(self, chain: Chain) -> None:
        """N8: an error through 100 and more combinators: its traceback is that of a single one."""
        frames = []
        for repeats in 1, 34:
            error = ValueError("failed")
            with pytest.raises(ValueError, match="failed") as caught:
                async with wrap(Probe(1, error=error).source(), chain * repeats) as stream:
                    assert await anext(stream) == 1
                    await anext(stream)
            assert caught.value is error
            assert kind_of(stream) == "failed"
            frames.append([frame.name for frame in traceback.extract_tb(error.__traceback__)])
        assert frames[0] == frames[1]

    @pytest.mark.parametrize("chain", ORDERS[::5], ids="+".join)
    async def test_stack(self, chain: Chain) -> None:
        """N8: the stack below the source and its consumer is as deep as with one combinator."""
        depths = []

        async def source() -> AsyncGenerator[int, None]:
            depths.append(len(traceback.extract_stack()))
            yield 1

        for repeats in 1, 34:
            async with wrap(source(), chain * repeats) as stream:
                assert [item async for item in stream] == [1]
        assert depths[0] == depths[1]

    @pytest.mark.parametrize("chain", ORDERS[::5], ids="+".join)
    async def test_cancelled(self, chain: Chain) -> None:
        """N8: a token on 34 levels at once reaches a source under 102 combinators once."""
        token = CancelToken()
        probe = Probe(1, block=True)
        async with wrap(probe.source(), chain * 34, token=token) as stream:
            assert await anext(stream) == 1
            await stopped_while_waiting(stream, token)
        assert [(where, repr(exc)) for where, exc in probe.seen] == [
            ("await", "StreamCancelled('stop')")
        ]
        assert probe.closed == 1


class TestContextManager:
    async def test_at_a_yield(self) -> None:
        """N7: a source in a context manager gets the reason at its yield, and not GeneratorExit."""
        token = CancelToken()
        seen: list[BaseException] = []

        async def numbers() -> AsyncGenerator[int, None]:
            try:
                for number in count():
                    yield number
            except BaseException as exc:
                seen.append(exc)
                raise

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterable[int]]:
            async with aclosing(numbers()) as generator:
                yield generator

        async with with_cancellation(source(), token) as stream:
            assert await anext(stream) == 0
            token.cancel("stop")
            assert await anext(stream) == 1
            with pytest.raises(StreamCancelled, match="stop"):
                await anext(stream)
        assert [repr(exc) for exc in seen] == ["StreamCancelled('stop')"]
