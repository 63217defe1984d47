"""``merge``: several sources as one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from chains import any_chain, wrap
from leaving import leave, ways
from observing import kind
from streamkit import (
    CancelToken,
    Head,
    Metadata,
    StreamCancelled,
    StreamTimeout,
    current_cancellation,
    from_thread,
    merge,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from streamkit._sources.merge import _Member
from support import Log, PlainSource, Probe, aiter_of, live_tasks, wait_all_blocked
from support.garbage import garbage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from chains import Chain
    from streamkit import Stream

variable: ContextVar[str] = ContextVar("variable", default="default")


async def timed(name: str, *seconds: float) -> AsyncGenerator[str, None]:
    """Yield an item after each wait."""
    for number, wait in enumerate(seconds):
        await anyio.sleep(wait)
        yield f"{name}{number}"


async def blocked(
    log: Log, name: str, *, lasts: float = 1.0, last: tuple[str, ...] = (), lets_out: bool = True
) -> AsyncGenerator[str, None]:
    """Yield an item, and block until told; then take some time, and yield last items."""
    try:
        yield name
        await anyio.sleep_forever()
    except StreamCancelled as stop:
        log(f"{name}: {kind(stop)}")
        await anyio.sleep(lasts)
        for item in last:
            yield item
        if lets_out:
            raise
    except GeneratorExit:
        log(f"{name}: at a yield")
        raise
    finally:
        log(f"{name}: closed")


async def failing(error: BaseException, after: float = 1.0, *items: str) -> AsyncIterator[str]:
    for item in items:
        yield item
    await anyio.sleep(after)
    raise error


async def logged(stream: Stream[Any], log: Log) -> None:
    """Log the items of a stream that is open, and what the iteration raises."""
    try:
        async for item in stream:
            log(item)
    except (Exception, StreamCancelled) as exc:
        log(f"consumer: {kind(exc)}")
    else:
        log("end")


def kind_of(stream: Stream[Any]) -> str:
    assert stream.outcome is not None
    return stream.outcome.kind


class TestItems:
    async def test_times(self) -> None:
        """All start with the first ask, and items come when they are ready."""
        log = Log()
        async with merge(timed("a", 1, 2, 3), timed("b", 2, 2)) as stream:
            await anyio.sleep(10)
            log.start()
            await logged(stream, log)
        assert log == [(1, "a0"), (2, "b0"), (3, "a1"), (4, "b1"), (6, "a2"), (6, "end")]
        assert kind_of(stream) == "completed"
        assert stream.outcome is not None
        assert stream.outcome.items == 5

    @any_chain
    async def test_order(self, chain: Chain) -> None:
        """B5: nothing is lost or doubled, and the items of each source keep their order."""

        async def numbers(source: int) -> AsyncIterator[tuple[int, int]]:
            for number in range(50):
                if (source + number) % 3 == 0:
                    await anyio.lowlevel.checkpoint()
                yield source, number

        received: dict[int, list[int]] = defaultdict(list)
        async with wrap(merge(*(numbers(source) for source in range(5))), chain) as stream:
            async for source, number in stream:
                received[source].append(number)
        assert received == {source: list(range(50)) for source in range(5)}

    async def test_nothing(self) -> None:
        """B7: no source is a stream without items."""
        async with merge() as stream:
            assert [item async for item in stream] == []
        assert kind_of(stream) == "completed"

    async def test_one(self) -> None:
        """B7: falsy items, exceptions and tuples are items like any other."""
        items = [None, 0, (), ValueError("an item")]
        async with merge(aiter_of(*items)) as stream:
            assert [item async for item in stream] == items

    async def test_any_source(self) -> None:
        """Whatever a combinator takes: iterators, receive streams, managers, streams, threads."""
        send, receive = anyio.create_memory_object_stream[int](1)
        send.send_nowait(1)
        send.close()

        @asynccontextmanager
        async def manager() -> AsyncIterator[AsyncIterator[int]]:
            yield aiter_of(2)

        sources: list[Any] = [
            receive,
            manager(),
            PlainSource(3),
            with_cancellation(aiter_of(4)),
            merge(aiter_of(5), aiter_of(6)),
            aiter_of(7),
        ]
        async with merge(*sources) as stream:
            assert sorted([item async for item in stream]) == [1, 2, 3, 4, 5, 6, 7]

    @pytest.mark.real_time
    async def test_threads(self) -> None:
        """Blocking iterables, side by side."""
        async with merge(from_thread(range(20)), from_thread(range(20, 40))) as stream:
            assert sorted([item async for item in stream]) == list(range(40))

    async def test_read_ahead(self) -> None:
        """B1, B2: each is one item ahead at most, and goes on when its own was taken."""
        first, second = Probe(*range(5)), Probe(*range(10, 15))
        async with merge(first.source(), second.source()) as stream:
            await wait_all_blocked()
            assert first.produced == second.produced == []
            taken = [0, 0]
            for _ in range(6):
                item = await anext(stream)
                taken[item >= 10] += 1
                await wait_all_blocked()
                for probe, count in zip((first, second), taken, strict=True):
                    assert len(probe.produced) in (count, count + 1)
                assert len(first.produced) + len(second.produced) <= sum(taken) + 1

    async def test_buffer_of_its_own(self) -> None:
        """B2: a source with a buffer may be further ahead, if that was asked for."""
        probe = Probe(*range(10))
        async with merge(with_buffer(probe.source(), 3), timed("b", 5)) as stream:
            assert await anext(stream) == 0
            await wait_all_blocked()
            assert probe.produced == [0, 1, 2, 3]
            assert [item async for item in stream] == [*range(1, 10), "b0"]

    async def test_beats(self) -> None:
        """K1, K5: beats of one of them, which are items of the merged stream."""
        log = Log()
        quiet = with_keepalive(timed("a", 5), 2, "beat")
        async with merge(quiet, timed("b", 1, 2, 1)) as stream:
            log.start()
            await logged(stream, log)
        events = [(1, "b0"), (2, "beat"), (3, "b1"), (4, "b2"), (4, "beat"), (5, "a0"), (5, "end")]
        assert sorted(log, key=str) == sorted(events, key=str)

    async def test_final_items(self) -> None:
        """S8: what ``final`` of one of them adds arrives as well."""
        source = with_status(aiter_of(1, 2), final=lambda outcome: [outcome.kind, "bye"])
        async with merge(source) as stream:
            assert [item async for item in stream] == [1, 2, "completed", "bye"]

    async def test_context(self) -> None:
        """V1, V2, V4: each has the caller's variables, and its own from then on."""
        variable.set("the caller's")

        async def source(name: str) -> AsyncIterator[str]:
            yield variable.get()
            reset = variable.set(name)
            await anyio.sleep(1)
            yield variable.get()
            variable.reset(reset)

        async with merge(source("a"), source("b")) as stream:
            items = [item async for item in stream]
        assert sorted(items) == ["a", "b", "the caller's", "the caller's"]
        assert variable.get() == "the caller's"


class TestStop:
    """Told to stop: all of them are, with the same reason, each with its own grace."""

    async def test_blocked(self) -> None:
        """C2, C24, N7: each is told where it is blocked; the last items of each arrive."""
        log, token = Log(), CancelToken()
        sources = [
            blocked(log, "a", lasts=1, last=("a's last",)),
            blocked(log, "b", lasts=2, last=("b's last", "b's very last")),
        ]
        async with with_cancellation(merge(*sources), token) as stream:
            assert sorted([await anext(stream), await anext(stream)]) == ["a", "b"]
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await anyio.sleep(1)
                    log.start()
                    token.cancel("stop")

                tasks.start_soon(stop)
                await logged(stream, log)
        assert sorted(log[:2]) == [(0, "a: told to stop"), (0, "b: told to stop")]
        assert log[2:] == [
            (1, "a's last"),
            (1, "a: closed"),
            (2, "b's last"),
            (2, "b's very last"),
            (2, "b: closed"),
            (2, "consumer: told to stop"),
        ]
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")
        assert not stream.outcome.grace_exceeded

    @pytest.mark.parametrize("lets_out", [(False, False), (True, False), (False, True)])
    async def test_handled(self, lets_out: tuple[bool, bool]) -> None:
        """C5, C24: it ends like that one that does not handle it; if all do, so does the stream."""
        log, token = Log(), CancelToken()
        sources = [blocked(log, n, lets_out=out) for n, out in zip("ab", lets_out, strict=True)]
        async with with_cancellation(merge(*sources), token) as stream:
            await anext(stream)
            await anext(stream)
            token.cancel("stop")
            await logged(stream, log)
        assert log.events[-1] == ("consumer: told to stop" if any(lets_out) else "end")
        assert kind_of(stream) == "cancelled"

    async def test_at_a_yield(self) -> None:
        """C23: what was yielded arrives first, though the consumer is busy for long."""
        log, token = Log(), CancelToken()
        first, second = Probe("a0", "a1"), Probe("b0", "b1", "b2")
        merged = merge(first.source(), second.source(), blocked(log, "c", last=("last",)))
        async with with_cancellation(merged, token) as stream:
            received = [await anext(stream)]
            await wait_all_blocked()
            token.cancel("stop")
            await anyio.sleep(20)
            assert "c: told to stop" in log.events
            assert log[0][0] == 0
            async for item in with_errors(stream):
                received.append(item)
        assert received.pop() == "told to stop"
        for probe in first, second:
            assert [item for item in received if item in probe.items] == probe.produced
            assert probe.closed == 1
        assert "c" in received
        assert received[-1] == "last"

    async def test_own_grace(self) -> None:
        """R7, N7: each has the grace that it was given, whatever that of the merged one is."""
        log, token = Log(), CancelToken()
        sources = [
            with_cancellation(blocked(log, "a", lasts=7), grace=10),
            with_cancellation(blocked(log, "b", lasts=100), grace=3),
            blocked(log, "c", lasts=100),
        ]
        async with with_cancellation(merge(*sources), token, grace=1) as stream:
            for _ in sources:
                await anext(stream)
            log.start()
            token.cancel("stop")
            await logged(stream, log)
        assert log[3:] == [
            (3, "b: closed"),
            (5, "c: closed"),
            (7, "a: closed"),
            (7, "consumer: told to stop"),
        ]
        assert stream.outcome is not None
        assert not stream.outcome.grace_exceeded

    async def test_slow_consumer(self) -> None:
        """R7: no clock runs while the last items wait for the consumer."""
        log, token = Log(), CancelToken()
        sources = [blocked(log, n, last=(f"{n}1", f"{n}2", f"{n}3")) for n in "ab"]
        async with with_cancellation(merge(*sources), token) as stream:
            await anext(stream)
            await anext(stream)
            token.cancel("stop")
            received = []
            async for item in with_errors(stream):
                received.append(item)
                await anyio.sleep(20)
        assert sorted(received[:-1]) == ["a1", "a2", "a3", "b1", "b2", "b3"]
        assert received[-1] == "told to stop"

    async def test_no_grace(self) -> None:
        """R7: ``grace=0`` of the merged stream is for itself: the sources have their own."""
        log, token = Log(), CancelToken()
        async with with_cancellation(merge(blocked(log, "a")), token, grace=0) as stream:
            await anext(stream)
            token.cancel("stop")
            await logged(stream, log)
        assert log.events == ["a: told to stop", "a: closed", "consumer: told to stop"]

    async def test_before_the_first_ask(self) -> None:
        """C13: none of them starts, all are closed."""
        token = CancelToken()
        token.cancel("stop")
        probes = [Probe("item"), Probe("item")]
        closable = [Closable(), Closable()]
        sources: list[Any] = [*(probe.source() for probe in probes), *closable]
        async with with_cancellation(merge(*sources), token) as stream:
            assert [item async for item in with_errors(stream)] == ["told to stop"]
        assert not any(probe.started for probe in probes)
        assert [each.closed for each in closable] == [1, 1]

    async def test_while_they_begin(self) -> None:
        """C29: in the same tick as the first ask: some have begun, and some never do."""
        for turns in [*range(8)] * 10:
            token = CancelToken()
            probes = [Probe("item", block=True) for _ in range(3)]
            async with with_cancellation(merge(*(p.source() for p in probes)), token) as stream:
                async with anyio.create_task_group() as tasks:

                    async def stop(turns: int = turns, token: CancelToken = token) -> None:
                        for _ in range(turns):
                            await anyio.lowlevel.checkpoint()
                        token.cancel("stop")

                    tasks.start_soon(stop)
                    received = [item async for item in with_errors(stream)]
            assert received == ["item"] * sum(len(p.produced) for p in probes) + ["told to stop"]
            assert all(probe.closed == probe.started for probe in probes)

    async def test_when_one_has_ended(self) -> None:
        """C5: those that are left are told; one that has ended is as it was."""
        log, token = Log(), CancelToken()
        async with with_cancellation(merge(timed("a", 1), blocked(log, "b")), token) as stream:
            assert sorted([await anext(stream), await anext(stream)]) == ["a0", "b"]
            with anyio.move_on_after(5):
                await anext(stream)
            token.cancel("stop")
            await logged(stream, log)
        assert log.events == ["b: told to stop", "b: closed", "consumer: told to stop"]

    async def test_before_it_is_entered(self) -> None:
        """C13, C29: trio may have the merged source hear of it before the others have begun."""
        probe = Probe("item")
        member = _Member(probe.source())
        member.tell("stop")
        async with member.stream as stream:
            with pytest.raises(StreamCancelled, match="stop"):
                await anext(stream)
        assert not probe.started

    async def test_limit(self) -> None:
        """T1: a limit around them is the reason that they are told."""
        log = Log()
        async with with_timeout(merge(blocked(log, "a"), blocked(log, "b")), idle=5) as stream:
            with pytest.raises(StreamTimeout):
                async for _ in stream:
                    pass
        assert sum("told to no item within 5 seconds" in str(event) for event in log.events) == 2
        assert kind_of(stream) == "timed_out"

    async def test_error_while_told(self) -> None:
        """C28: one raises in its clean-up: the others have their grace, then that error comes."""
        log, token, error = Log(), CancelToken(), ValueError("clean-up")

        async def broken() -> AsyncIterator[str]:
            try:
                yield "a"
                await anyio.sleep_forever()
            except StreamCancelled:
                raise error

        merged = merge(broken(), blocked(log, "b", lasts=2, last=("last",)))
        async with with_cancellation(merged, token) as stream:
            await anext(stream)
            await anext(stream)
            token.cancel("stop")
            assert await anext(stream) == "last"
            with pytest.raises(ValueError) as caught:
                await anext(stream)
        assert caught.value is error
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.error) == ("cancelled", error)

    async def test_reason(self) -> None:
        """``current_cancellation()`` has the reason, in each of them."""
        token, reasons = CancelToken(), []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                reasons.append(current_cancellation())

        async with with_cancellation(merge(source(), source()), token) as stream:
            await anext(stream)
            await anext(stream)
            token.cancel("stop")
            assert [item async for item in with_errors(stream)] == ["told to stop"]
        assert reasons == ["stop", "stop"]

    async def test_one_of_them(self) -> None:
        """N7: a token of one of them ends that one; its exception ends the others, as an error."""
        log, token = Log(), CancelToken()
        own = with_cancellation(blocked(log, "a", lasts=1), token)
        async with merge(own, blocked(log, "b", lasts=2)) as stream:
            await anext(stream)
            await anext(stream)
            log.start()
            token.cancel("own")
            await logged(stream, log)
        assert log == [
            (0, "a: told to own"),
            (1, "a: closed"),
            (1, "b: told that the consumer has left"),
            (3, "b: closed"),
            (3, "consumer: told to own"),
        ]
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "own")

    async def test_one_of_them_handles_it(self) -> None:
        """N7: if it handles that, it has ended, and the others go on."""
        log, token = Log(), CancelToken()
        own = with_cancellation(blocked(log, "a", last=("last",), lets_out=False), token)
        async with merge(own, timed("b", 1, 5)) as stream:
            assert await anext(stream) == "a"
            token.cancel("own")
            assert sorted([item async for item in stream]) == ["b0", "b1", "last"]
        assert kind_of(stream) == "completed"

    async def test_in_a_source(self) -> None:
        """N7: consumed inside a source, which is told: so are all, with the same reason."""
        log, token = Log(), CancelToken()

        async def outer() -> AsyncIterator[str]:
            try:
                async with merge(blocked(log, "a"), blocked(log, "b", lasts=2)) as stream:
                    async for item in stream:
                        yield item
            finally:
                log("outer closed")

        async with with_cancellation(outer(), token) as stream:
            await anext(stream)
            await anext(stream)
            token.cancel("stop")
            assert [item async for item in with_errors(stream)] == ["told to stop"]
        assert sorted(map(str, log.events[:2])) == ["a: told to stop", "b: told to stop"]
        assert log.events[2:] == ["a: closed", "b: closed", "outer closed"]


async def with_errors(stream: Stream[Any]) -> AsyncIterator[Any]:
    """Yield what the iteration raises as its last item."""
    try:
        async for item in stream:
            yield item
    except (Exception, StreamCancelled) as exc:
        yield kind(exc)


class Closable:
    """A source that is no generator, and counts how often it is closed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.closed = 0
        self.error = error

    def __aiter__(self) -> Closable:
        return self

    async def __anext__(self) -> int:
        raise AssertionError("must not be asked")

    async def aclose(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


class TestErrors:
    async def test_first(self) -> None:
        """E1, E2: it is raised bare, when the others have been told, and are closed."""
        log, error = Log(), ValueError("first")
        async with merge(failing(error, 1), blocked(log, "b", lasts=2)) as stream:
            log.start()
            received = []
            with pytest.raises(ValueError) as caught:
                async for item in stream:
                    received.append(item)
            log("raised")
            assert [item async for item in stream] == []
        assert caught.value is error
        assert error.__context__ is None
        assert received == ["b"]
        assert log == [
            (1, "b: told that the consumer has left"),
            (3, "b: closed"),
            (3, "raised"),
        ]
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.error) == ("failed", error)

    async def test_at_once(self) -> None:
        """E1: a source fails before the others have begun."""
        for turns in range(6):

            async def source(turns: int = turns) -> AsyncIterator[str]:
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                raise ValueError("at once")
                yield ""

            probes = [Probe("item", block=True) for _ in range(3)]
            sources = [source(), *(probe.source() for probe in probes)]
            async with merge(*sources) as stream:
                with pytest.raises(ValueError, match="at once"):
                    async for _ in stream:
                        pass
            assert all(probe.closed == probe.started for probe in probes)

    async def test_what_was_yielded_before(self) -> None:
        """R5: the items of the others that were there come before the error, in order."""
        error = ValueError("after the items")
        probes = [Probe("b0", "b1", every=0.5), Probe("c0", "c1", every=0.5)]
        async with merge(failing(error), *(p.source() for p in probes)) as stream:
            received = [await anext(stream)]
            # The other one has an item as well, and the first source has failed.
            await anyio.sleep(5)
            with pytest.raises(ValueError) as caught:
                async for item in stream:
                    received.append(item)
        assert caught.value is error
        assert sorted(received) == ["b0", "c0"]
        assert [probe.produced for probe in probes] == [["b0"], ["c0"]]
        assert stream.outcome is not None
        assert stream.outcome.items == 2

    async def test_what_is_yielded_after(self) -> None:
        """What the others yield when they are told that they were left is dropped."""
        log = Log()
        async with merge(failing(ValueError()), blocked(log, "b", last=("last",))) as stream:
            assert [item async for item in with_errors(stream)] == ["b", "ValueError"]
        assert log.events == ["b: told that the consumer has left", "b: closed"]

    async def test_two(self) -> None:
        """E3, R5: another one fails in its clean-up: a group of both, and of nothing else."""
        log = Log()

        async def broken(error: BaseException, lasts: float) -> AsyncIterator[str]:
            try:
                yield "item"
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(lasts)
                raise error

        first, second = ValueError("first"), KeyError("second")
        merged = merge(failing(first), broken(second, 1), blocked(log, "c", lasts=2))
        async with merged as stream:
            with pytest.raises(BaseExceptionGroup) as caught:
                async for _ in stream:
                    pass
        assert caught.value.exceptions == (first, second)

    async def test_same_tick(self) -> None:
        """C29: two fail in the same tick: neither is lost."""
        errors = [ValueError("one"), KeyError("other")]
        async with merge(*(failing(error) for error in errors)) as stream:
            with pytest.raises((ValueError, KeyError, BaseExceptionGroup)) as caught:
                await anext(stream)
        if isinstance(caught.value, BaseExceptionGroup):
            assert sorted(map(repr, caught.value.exceptions)) == sorted(map(repr, errors))
        else:
            assert caught.value in errors

    async def test_a_group_of_a_source(self) -> None:
        """E4: a group that a source raises is passed on as it is."""
        group = ExceptionGroup("its own", [ValueError(), KeyError()])
        async with merge(failing(group), timed("b", 5)) as stream:
            with pytest.raises(ExceptionGroup) as caught:
                await anext(stream)
        assert caught.value is group

    async def test_error_and_cancellation(self) -> None:
        """R13: one was stopped by a token of its own, another fails: the error alone."""
        token, error = CancelToken(), ValueError("clean-up")

        async def broken() -> AsyncIterator[str]:
            try:
                await anyio.sleep_forever()
                yield ""
            finally:
                raise error

        async with merge(with_cancellation(timed("a", 9), token), broken()) as stream:
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await wait_all_blocked()
                    token.cancel("own")

                tasks.start_soon(stop)
                with pytest.raises(ValueError) as caught:
                    await anext(stream)
        assert caught.value is error

    async def test_not_reached(self) -> None:
        """E17: one fails while the consumer is busy, who leaves: raised where the block ends."""
        error = ValueError("unseen")
        with pytest.raises(ValueError) as caught:
            async with merge(timed("a", 0, 9), failing(error, 1)) as stream:
                assert await anext(stream) == "a0"
                await anyio.sleep(2)
        assert caught.value is error

    async def test_head(self) -> None:
        """Misuse: a Head in one of them; it belongs to all, so it is yielded around them."""

        async def refused() -> AsyncIterator[Head | str]:
            yield Head(409)
            yield "no"

        for stream in merge(refused()), with_status(merge(refused(), timed("b", 1))):
            async with stream:
                with pytest.raises(RuntimeError, match=r"a Head in a merged .* with_status\("):
                    await anext(stream)

        async def around() -> AsyncIterator[Head | str]:
            yield Head(201)
            async with merge(timed("a", 1), timed("b", 2)) as items:
                async for item in items:
                    yield item

        async with with_status(around()) as stream:
            assert (await stream.head()).status == 201
            assert [item async for item in stream] == ["a0", "b0"]

    async def test_other_metadata(self) -> None:
        """Metadata of a stage of the user's own passes."""

        class Note(Metadata):
            pass

        note = Note()
        async with merge(aiter_of(note)) as stream:
            assert [item async for item in stream] == [note]

    def test_no_source(self) -> None:
        """Misuse: one of them is no source."""
        with pytest.raises(TypeError, match="got list, which is a sync iterable"):
            merge(aiter_of(1), [1])  # type: ignore[arg-type]

    async def test_not_entered(self) -> None:
        """G3: iterated without the block, as any stream."""
        with pytest.raises(RuntimeError, match="write 'async with stream:'"):
            await anext(merge(aiter_of(1)))


class TestLeaving:
    async def test_blocked(self) -> None:
        """L1: however the consumer goes, each is told, has its grace, and is closed by then."""
        for way in ways():
            log = Log()
            log.start()
            sources = [blocked(log, "a", lasts=1), blocked(log, "b", lasts=2)]
            merged = merge(*(after_first(source) for source in sources))
            stream = await leave(merged, way)
            assert kind_of(stream) == "closed", way
            told = [event for event in log.events if "told that the consumer" in str(event)]
            assert len(told) == 2, way
            assert log.events[-2:] == ["a: closed", "b: closed"], way

    async def test_at_a_yield(self) -> None:
        """L2: one is at the yield that the consumer has, one has an item that waits."""
        for way in ways():
            log = Log()
            stream = await leave(merge(blocked(log, "a"), blocked(log, "b")), way, items=1)
            assert kind_of(stream) == "closed", way
            events = sorted(map(str, log.events))
            assert events == ["a: at a yield", "a: closed", "b: at a yield", "b: closed"], way

    async def test_grace(self) -> None:
        """L3, L6: each hangs for as long as its own grace, and the merged one waits."""
        log = Log()
        with anyio.move_on_after(1):
            sources = [
                with_cancellation(blocked(log, "a", lasts=99), grace=2),
                with_cancellation(blocked(log, "b", lasts=99), grace=7),
            ]
            async with with_cancellation(merge(*sources), grace=1) as stream:
                log.start()
                async for _ in stream:
                    pass
        assert [entry for entry in log if "closed" in str(entry)] == [
            (3, "a: closed"),
            (8, "b: closed"),
        ]

    async def test_in_its_grace(self) -> None:
        """L2: left while all are in their grace: it is not cut, and what they yield is dropped."""
        log, token = Log(), CancelToken()
        sources = [blocked(log, n, lasts=2, last=("last", "very last")) for n in "ab"]
        async with with_cancellation(merge(*sources), token) as stream:
            await anext(stream)
            await anext(stream)
            log.start()
            token.cancel("stop")
            with anyio.move_on_after(1):
                await anext(stream)
        assert sorted(log, key=str) == [
            (0, "a: told to stop"),
            (0, "b: told to stop"),
            (2, "a: closed"),
            (2, "b: closed"),
        ]
        assert kind_of(stream) == "cancelled"

    async def test_aclose(self) -> None:
        """G15: by another task, and no task or source is left."""
        before = live_tasks()
        probes = [Probe("item", block=True) for _ in range(3)]
        async with merge(*(probe.source() for probe in probes)) as stream:
            for _ in probes:
                await anext(stream)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.aclose)
            assert [probe.closed for probe in probes] == [1, 1, 1]
            assert live_tasks() - before == set()

    async def test_ask_that_is_cancelled(self) -> None:
        """B4, L12: a timeout around an ask, just as an item arrives: it is there for the next."""
        async with merge(timed("a", 1, 1), timed("b", 2, 2)) as stream:
            received = []
            while len(received) < 4:
                with anyio.move_on_after(1):
                    received.append(await anext(stream))
        assert sorted(received) == ["a0", "a1", "b0", "b1"]

    @pytest.mark.parametrize("error", [None, ValueError("closing")])
    async def test_never_asked(self, error: BaseException | None) -> None:
        """G4, G5: entered or not, all are closed, also if one of them raises."""
        for entered in True, False:
            sources = [Closable(error), Closable(), Closable(error)]
            stream = merge(*sources)
            with nullcontext() if error is None else pytest.raises(ValueError, match="closing"):
                if entered:
                    async with stream:
                        pass
                else:
                    await stream.aclose()
            assert [source.closed for source in sources] == [1, 1, 1]

    @pytest.mark.asyncio_only
    async def test_natively(self) -> None:
        """C7: ``Task.cancel()`` of its own source task: an error, and all are closed before."""
        log = Log()
        async with merge(blocked(log, "a"), blocked(log, "b")) as stream:
            await anext(stream)
            await anext(stream)
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await wait_all_blocked()
                    [task] = [t for t in asyncio.all_tasks() if "of merge of" in t.get_name()]
                    task.cancel()
                    # Again, while it waits for them.
                    await anyio.sleep(0.5)
                    task.cancel()

                tasks.start_soon(cancel)
                with pytest.raises(anyio.BrokenResourceError):
                    await anext(stream)
        assert sorted(map(str, log.events[-2:])) == ["a: closed", "b: closed"]


async def after_first(source: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    """Take the first item, and pass on the others."""
    await anext(source)
    async for item in source:
        yield item


def test_names() -> None:
    """A stream of merged sources says what they are."""
    stream = merge(timed("a", 1), with_cancellation(timed("b", 1)))
    assert repr(stream) == "<Stream of merge of timed, Stream, new>"


async def test_no_cycle() -> None:
    """E7: when a merged stream has ended, reference counts have freed it."""

    async def words(fails: bool) -> AsyncGenerator[str, None]:
        yield "a"
        await anyio.sleep(1)
        if fails:
            raise ValueError

    async def read(fails: bool) -> None:
        stream = merge(words(False), words(fails))
        try:
            async with stream:
                async for _ in stream:
                    pass
        except ValueError:
            pass
        finally:
            # The traceback of an error includes this frame.
            del stream

    for fails in (False, True):
        await read(fails)
        with garbage() as found:
            await read(fails)
        assert found == []
