"""Closing: once, in the source task, bounded, and without a trace (scenarios G)."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from chains import ALONE, ORDERS, Chain, any_chain, wrap
from observing import kind
from streamkit import (
    CancelToken,
    Control,
    Outcome,
    Stage,
    Stream,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from support import START, Log, PlainSource, Probe, live_tasks, wait_all_blocked

# Where a scenario does not name its chains: each combinator, and all of them.
ALL = ORDERS[0]
each_combinator = pytest.mark.parametrize("chain", [*ALONE, ALL], ids="+".join)


@contextmanager
def takes(seconds: float) -> Iterator[None]:
    """Check how much virtual time a block takes."""
    before = anyio.current_time()
    yield
    assert anyio.current_time() - before == pytest.approx(seconds)


def is_closed(source: Any) -> bool:
    """Tell whether an async generator has ended; typing knows no ``ag_frame``."""
    return source.ag_frame is None


def kind_of(stream: Stream[Any]) -> str | None:
    return stream.outcome.kind if stream.ended else None


def leaves(exc: BaseException) -> list[BaseException]:
    """Return what is in a group, or the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [exc]


class CountsClosing(PlainSource[int]):
    """An async iterator that counts how often it is closed."""

    closed = 0

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1


# G1, G2: the ordinary ends


@any_chain
async def test_run_to_the_end(chain: Chain) -> None:
    """G1: the source runs to its end: its `finally` ran before the loop ends, in its own task."""
    probe = Probe(1, 2)
    async with wrap(probe.source(), chain) as stream:
        assert [item async for item in stream] == [1, 2]
        assert probe.closed == 1
        assert kind_of(stream) == "completed"
    assert probe.seen == []
    assert len(probe.task_ids) == 1


@each_combinator
async def test_run_to_the_end_of_an_iterator(chain: Chain) -> None:
    """G1: a source that is no generator is closed before the loop ends, too."""
    source = CountsClosing(1, 2)
    async with wrap(source, chain) as stream:
        assert [item async for item in stream] == [1, 2]
        assert source.closed == 1
    assert source.closed == 1


@any_chain
async def test_break(chain: Chain) -> None:
    """G2: the consumer breaks: the source is closed before the block ends, in its own task."""
    probe = Probe(1, 2)
    async with wrap(probe.source(), chain) as stream:
        async for _ in stream:
            break
        assert probe.closed == 0
    assert probe.closed == 1
    assert [(where, type(exc)) for where, exc in probe.seen] == [("yield", GeneratorExit)]
    assert len(probe.task_ids) == 1
    assert anyio.get_current_task().id not in probe.task_ids
    assert kind_of(stream) == "closed"
    assert stream.outcome.items == 1


async def test_break_waits_for_the_cleanup() -> None:
    """G2: the block ends when the clean-up has ended, and that may take its time."""
    log = Log()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await anyio.sleep(3)
            log("cleaned up")

    async with wrap(source(), ALL) as stream:
        await anext(stream)
        log("break")
    log("left")
    assert log == [(0.0, "break"), (3.0, "cleaned up"), (3.0, "left")]


@each_combinator
async def test_cancelled_while_the_consumer_is_busy(chain: Chain) -> None:
    """G2: a scope around the block is cancelled while the body waits for something: the same.

    Twenty times, for trio wakes the consumer and the source task in an order that it shuffles.
    """
    for _ in range(20):
        probe = Probe(1, 2)
        stream = wrap(probe.source(), chain)
        with anyio.CancelScope() as scope:
            async with stream:
                await anext(stream)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert [(where, type(exc)) for where, exc in probe.seen] == [("yield", GeneratorExit)]
        assert (probe.closed, kind_of(stream)) == (1, "closed")


# G3, G4: not entered


@any_chain
async def test_iterating_without_a_block(chain: Chain) -> None:
    """G3: the stream is iterated without `async with`: an error that shows the right code."""
    probe = Probe(1)
    stream = wrap(probe.source(), chain)
    with pytest.raises(RuntimeError, match=r"async with stream:.*async for item in stream:"):
        async for _ in stream:
            raise AssertionError("must not be iterated")
    with pytest.raises(RuntimeError, match="async with stream:"):
        await anext(stream)
    assert not probe.started


async def test_head_without_a_block() -> None:
    """G3: head() is awaited without `async with`: the same."""
    probe = Probe(1)
    with pytest.raises(RuntimeError, match="async with stream:"):
        await with_status(probe.source()).head()
    assert not probe.started


@any_chain
async def test_dropped_before_it_was_entered(chain: Chain) -> None:
    """G4: built, never entered, dropped: no warning, and the source is gone with the stream."""
    probe = Probe(1)
    source = probe.source()
    gone = weakref.ref(source)
    stream = wrap(source, chain)
    del source, stream
    gc.collect()
    assert gone() is None
    assert not probe.started


@each_combinator
@pytest.mark.parametrize("opened", [False, True])
async def test_dropped_at_once(chain: Chain, opened: bool) -> None:
    """G4: what was never asked goes with the last reference to it, without a collection."""
    source = Probe(1).source()
    gone = weakref.ref(source)
    stream = wrap(source, chain)
    del source
    gc.collect()
    gc.disable()
    try:
        if opened:
            async with stream:
                pass
        del stream
        await wait_all_blocked()
        assert gone() is None
    finally:
        gc.enable()


@each_combinator
async def test_opened_and_left_at_once(chain: Chain) -> None:
    """G4: entered, never asked, left: the source never runs, and is closed."""
    probe = Probe(1)
    source = probe.source()
    async with wrap(source, chain) as stream:
        await wait_all_blocked()
    assert not probe.started
    assert is_closed(source)
    assert kind_of(stream) == "closed"


# G5, G6: closed before


@each_combinator
@pytest.mark.parametrize("asks", [0, 1, 3])
async def test_aclose_three_times(chain: Chain, asks: int) -> None:
    """G5: aclose() three times, before the first ask, in the middle, or after the end: no error."""
    source = CountsClosing(1, 2)
    async with wrap(source, chain) as stream:
        for _ in range(asks):
            await anext(stream, None)
        for _ in range(3):
            await stream.aclose()
            assert source.closed == 1
    await stream.aclose()
    assert source.closed == 1
    assert kind_of(stream) == ("completed" if asks == 3 else "closed")


@each_combinator
async def test_aclose_without_entering(chain: Chain) -> None:
    """G5: aclose() of a stream that was never entered: closes the source, which never ran."""
    probe = Probe(1)
    source = probe.source()
    stream = wrap(source, chain)
    for _ in range(2):
        await stream.aclose()
    assert is_closed(source)
    assert not probe.started


async def test_aclose_of_a_wrapped_stream() -> None:
    """G5: aclose() of a stream that another one owns: closes that one, as often as called."""
    probe = Probe(1, 2)
    inner = with_status(probe.source())
    async with with_keepalive(inner, 1000.0, "beat") as stream:
        await anext(stream)
        for _ in range(2):
            await inner.aclose()
        assert probe.closed == 1
    assert inner.outcome is stream.outcome


@each_combinator
async def test_asking_after_aclose(chain: Chain) -> None:
    """G6: an ask after aclose(), inside the block: ClosedResourceError, each time, at once."""
    async with wrap(Probe(1, 2).source(), chain) as stream:
        await anext(stream)
        await stream.aclose()
        with takes(0):
            for _ in range(2):
                with pytest.raises(anyio.ClosedResourceError):
                    await anext(stream)


@each_combinator
@pytest.mark.parametrize("asks", [0, 1, 3])
async def test_asking_after_the_block(chain: Chain, asks: int) -> None:
    """G6: an ask after the block, however it was left: ClosedResourceError, each time, at once."""
    async with wrap(Probe(1, 2).source(), chain) as stream:
        for _ in range(asks):
            await anext(stream, None)
    with takes(0):
        for _ in range(2):
            with pytest.raises(anyio.ClosedResourceError):
                await anext(stream)


async def test_asking_after_aclose_without_entering() -> None:
    """G6: an ask of a stream that was closed before it was entered: the same."""
    stream = wrap(Probe(1).source(), ALL)
    await stream.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await anext(stream)


# G7, G8: two tasks


async def ask_and_log(stream: Stream[Any], log: list[object]) -> None:
    try:
        log.append(await anext(stream))
    except (Exception, StreamCancelled) as exc:
        log.append(type(exc))


@each_combinator
async def test_leaving_while_another_task_waits(chain: Chain) -> None:
    """G7: the block ends while another task waits for an item: one clear error there."""
    log: list[object] = []
    probe = Probe[int](block=True)
    stream = wrap(probe.source(), chain)
    async with anyio.create_task_group() as group:
        async with stream:
            group.start_soon(ask_and_log, stream, log)
            await wait_all_blocked()
            assert log == []
        assert probe.closed == 1
    assert log == [anyio.ClosedResourceError]
    assert [where for where, _ in probe.seen] == ["await"]
    assert kind(probe.seen[0][1]) == "told that the consumer has left"
    assert kind_of(stream) == "closed"


@each_combinator
async def test_aclose_while_another_task_waits(chain: Chain) -> None:
    """G7: aclose() while another task waits for an item: the same, and the block goes on."""
    log: list[object] = []
    probe = Probe[int](block=True)
    async with anyio.create_task_group() as group:
        async with wrap(probe.source(), chain) as stream:
            group.start_soon(ask_and_log, stream, log)
            await wait_all_blocked()
            await stream.aclose()
            assert probe.closed == 1
            await wait_all_blocked()
            assert log == [anyio.ClosedResourceError]


@each_combinator
async def test_two_tasks_ask(chain: Chain) -> None:
    """G8: a second task asks while one waits: BusyResourceError there, and nothing is lost."""
    log: list[object] = []
    probe = Probe(1, 2, every=1.0)
    async with anyio.create_task_group() as group:
        async with wrap(probe.source(), chain) as stream:
            group.start_soon(ask_and_log, stream, log)
            await wait_all_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await anext(stream)
            await anyio.sleep(1)
            await wait_all_blocked()
            assert log == [1]
            assert [item async for item in stream] == [2]
    assert kind_of(stream) == "completed"


async def test_two_tasks_ask_at_once() -> None:
    """G8: with a buffer, both give the source a turn first: one waits then, and one is refused."""
    log: list[object] = []
    async with anyio.create_task_group() as group:
        async with with_buffer(Probe(1, 2, 3, every=1.0).source(), 2) as stream:
            assert await anext(stream) == 1
            for _ in range(2):
                group.start_soon(ask_and_log, stream, log)
            await wait_all_blocked()
            assert log == [anyio.BusyResourceError]
            await anyio.sleep(1)
            await wait_all_blocked()
            assert log == [anyio.BusyResourceError, 2]
            assert [item async for item in stream] == [3]
    assert kind_of(stream) == "completed"


async def test_head_and_an_ask() -> None:
    """G8: head() is awaited while another task waits for an item: the same."""
    log: list[object] = []
    async with anyio.create_task_group() as group:
        async with with_status(Probe(1, every=1.0).source()) as stream:
            group.start_soon(ask_and_log, stream, log)
            await wait_all_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await stream.head()
            await anyio.sleep(1)
            await wait_all_blocked()
            assert log == [1]
            assert (await stream.head()).decided_by == "item"


# G9: chains in chains


@each_combinator
async def test_chain_of_chains(chain: Chain) -> None:
    """G9: generators that consume streams: each is closed once, told of it the innermost last."""
    log: list[str] = []

    async def source(name: str, inner: Stream[int] | None) -> AsyncGenerator[int, None]:
        try:
            if inner is None:
                for number in itertools.count():
                    try:
                        yield number
                    except GeneratorExit:
                        log.append(f"{name} is told")
                        raise
            else:
                async with inner:
                    async for item in inner:
                        try:
                            yield item
                        except GeneratorExit:
                            log.append(f"{name} is told")
                            raise
        finally:
            await anyio.lowlevel.checkpoint()
            log.append(f"{name} is closed")

    inner = wrap(source("inner", None), chain)
    middle = wrap(source("middle", inner), chain)
    async with wrap(source("outer", middle), chain) as stream:
        assert await anext(stream) == 0
        assert await anext(stream) == 1
    assert log == [
        "outer is told",
        "middle is told",
        "inner is told",
        "inner is closed",
        "middle is closed",
        "outer is closed",
    ]
    assert [kind_of(each) for each in (inner, middle, stream)] == ["closed"] * 3


@any_chain
async def test_wrapping_a_chain_makes_one_source(chain: Chain, backend: Any) -> None:
    """G9: a chain over a chain: one source task, closed once, one outcome for all."""
    probe = Probe(1, 2)
    before = live_tasks()
    inner = wrap(probe.source(), chain)
    async with wrap(inner, chain) as stream:
        await anext(stream)
        # One source task, a task for each timeout, and one for all timers where the event loop has
        # none.
        timers = 1 if backend.is_trio and "keepalive" in chain else 0
        assert len(live_tasks() - before) == 1 + 2 * chain.count("timeout") + timers
    assert probe.closed == 1
    assert len(probe.task_ids) == 1
    assert inner.outcome is stream.outcome


# G10, G11: clean-up that misbehaves


class HangsInClosing(PlainSource[int]):
    async def aclose(self) -> None:
        await anyio.sleep_forever()


async def hangs_in_finally(*items: int) -> AsyncGenerator[int, None]:
    try:
        for item in items:
            yield item
    finally:
        await anyio.sleep_forever()


async def hangs_in_finally_with_a_group(*items: int) -> AsyncGenerator[int, None]:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        try:
            for item in items:
                yield item
        finally:
            await anyio.sleep_forever()


hanging = pytest.mark.parametrize(
    "source", [hangs_in_finally, hangs_in_finally_with_a_group, HangsInClosing]
)
Hanging = Callable[..., AsyncIterator[int]]


@hanging
async def test_cleanup_hangs(source: Hanging) -> None:
    """G10: the source's clean-up hangs: it is cut after the grace, and the outcome says so."""
    stream = with_keepalive(with_cancellation(source(1, 2), grace=3.0), 1000.0, "beat")
    with takes(3.0):
        async with stream:
            await anext(stream)
    assert stream.outcome.grace_exceeded
    assert (stream.outcome.kind, stream.outcome.cleanup_error) == ("closed", None)


@hanging
@each_combinator
async def test_cleanup_hangs_after_an_error(chain: Chain, source: Hanging) -> None:
    """G10: the same when the body has raised: its exception is kept, bare; 5 s are the default."""
    error = ValueError("body")
    stream = wrap(source(1, 2), chain)
    with takes(5.0):
        with pytest.raises(ValueError, match="body") as caught:
            async with stream:
                await anext(stream)
                raise error
    assert caught.value is error
    assert error.__context__ is None
    assert stream.outcome.grace_exceeded


@hanging
async def test_cleanup_hangs_in_aclose(source: Hanging) -> None:
    """G10: the same in aclose(), which waits for it, and no longer."""
    async with with_cancellation(source(1, 2), grace=3.0) as stream:
        await anext(stream)
        with takes(3.0):
            await stream.aclose()
        with takes(0):
            await stream.aclose()


async def test_closing_of_an_iterator_hangs_at_the_end() -> None:
    """G10: the source has ended and its aclose() hangs: the consumer gets the end all the same."""
    stream = with_cancellation(HangsInClosing(1), grace=3.0)
    with takes(3.0):
        async with stream:
            assert [item async for item in stream] == [1]
    assert (stream.outcome.kind, stream.outcome.grace_exceeded) == ("completed", True)


async def test_cleanup_in_time_is_not_cut() -> None:
    """G10: clean-up that ends within the grace is shielded from the scope that ended the block."""
    log = Log()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await anyio.sleep(2.9)
            log("cleaned up")

    stream = with_cancellation(source(), grace=3.0)
    log.start()
    with anyio.CancelScope() as scope:
        async with stream:
            await anext(stream)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert log == [(2.9, "cleaned up")]
    assert not stream.outcome.grace_exceeded


async def test_error_is_kept_when_the_wait_is_cancelled() -> None:
    """G10: the body has raised, and a scope around the block expires during the clean-up."""
    log = Log()
    error = ValueError("body")

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await anyio.sleep(3)
            log("cleaned up")

    log.start()
    with pytest.raises(ValueError, match="body") as caught:
        with anyio.move_on_after(1):
            async with wrap(source(), ALL) as stream:
                await anext(stream)
                raise error
    log("left")
    assert caught.value is error
    assert log == [(3.0, "cleaned up"), (3.0, "left")]


async def yields_in_finally() -> AsyncGenerator[str, None]:
    try:
        yield "first"
    finally:
        yield "too late"


@each_combinator
async def test_source_yields_while_it_is_closed(chain: Chain) -> None:
    """G11: the source yields in `finally` on close: that surfaces; helpers are gone."""
    before = live_tasks()
    stream = wrap(yields_in_finally(), chain)
    with pytest.raises(RuntimeError, match=r"ignored GeneratorExit.*except StreamCancelled"):
        async with stream:
            assert await anext(stream) == "first"
    assert live_tasks() == before
    assert isinstance(stream.outcome.cleanup_error, RuntimeError)


async def test_source_yields_while_it_is_closed_after_an_error() -> None:
    """G11: the same when the body has raised: a group of both."""
    error = ValueError("body")
    with pytest.raises(ExceptionGroup) as caught:
        async with wrap(yields_in_finally(), ALL) as stream:
            await anext(stream)
            raise error
    assert caught.value.exceptions[0] is error
    assert isinstance(caught.value.exceptions[1], RuntimeError)


# G12, G13, G14: ways to leave


@each_combinator
async def test_cancelled_with_an_item_waiting(chain: Chain) -> None:
    """G12: the block is left by cancellation while an item waits for an ask: promptly."""
    probe = Probe(1, 2, every=1.0)
    stream = wrap(probe.source(), chain)
    log = Log()
    with anyio.CancelScope() as scope:
        async with stream:
            log("entered")
            with anyio.move_on_after(0.5):
                await anext(stream)
            await anyio.sleep(1)
            assert probe.produced == [1]
            log("cancel")
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    log("left")
    assert log == [(0.0, "entered"), (1.5, "cancel"), (1.5, "left")]
    assert probe.closed == 1
    assert (stream.outcome.kind, stream.outcome.items) == ("closed", 0)


async def test_cancelled_with_last_items_waiting() -> None:
    """G12: the same where a cancelled source goes on with last items: it is not asked for more."""
    token = CancelToken()
    log = Log()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await anyio.sleep_forever()
        except StreamCancelled:
            for number in itertools.count(2):
                log(number)
                yield number
        finally:
            log("closed")

    log.start()
    stream = wrap(source(), ALL, token=token)
    with anyio.CancelScope() as scope:
        async with stream:
            await anext(stream)
            token.cancel("stop")
            await wait_all_blocked()
            assert log.events == [2]
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert log == [(0.0, 2), (0.0, "closed")]
    assert kind_of(stream) == "cancelled"


ENDS = ["end", "break", "error", "token", "scope", "aclose"]


@each_combinator
@pytest.mark.parametrize("end", ENDS)
async def test_nothing_is_left(chain: Chain, end: str) -> None:
    """G13: however a stream ends: no live task; the harness looks for warnings and generators."""
    before = live_tasks()
    token = CancelToken()
    probe = Probe(1, 2)
    stream = wrap(probe.source(), chain, token=token)
    with anyio.CancelScope() as scope:
        try:
            async with stream:
                await anext(stream)
                assert len(live_tasks()) > len(before)
                if end == "end":
                    assert [item async for item in stream] == [2]
                elif end == "error":
                    raise ZeroDivisionError
                elif end == "token":
                    token.cancel("stop")
                elif end == "scope":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
                elif end == "aclose":
                    await stream.aclose()
        except ZeroDivisionError:
            assert end == "error"
    assert scope.cancelled_caught == (end == "scope")
    assert live_tasks() == before
    assert probe.closed == 1


async def test_memory_stream_is_closed() -> None:
    """G13: a source that is a memory stream is closed with the stream around it."""
    send, receive = anyio.create_memory_object_stream[int](1)
    with send:
        async with wrap(receive, ALL) as stream:
            send.send_nowait(1)
            assert await anext(stream) == 1
        assert send.statistics().open_receive_streams == 0


async def blocks_after_a_yield(seen: list[BaseException]) -> AsyncGenerator[int, None]:
    try:
        yield 1
        await anyio.sleep_forever()
    except BaseException as exc:
        seen.append(exc)
        raise


async def yields_again(seen: list[BaseException]) -> AsyncGenerator[int, None]:
    try:
        yield 1
        yield 2
    except BaseException as exc:
        seen.append(exc)
        raise


async def handles_it(seen: list[BaseException]) -> AsyncGenerator[int, None]:
    try:
        yield 1
        await anyio.sleep_forever()
    except BaseException as exc:
        seen.append(exc)
        await anyio.sleep(1)


@each_combinator
@pytest.mark.parametrize("source", [blocks_after_a_yield, yields_again, handles_it])
async def test_stream_cancelled_leaves_the_block(
    chain: Chain,
    source: Callable[[list[BaseException]], AsyncGenerator[int, None]],
) -> None:
    """G14: the body raises StreamCancelled: the source gets it with the same reason."""
    seen: list[BaseException] = []
    error = StreamCancelled("enough")
    stream = wrap(source(seen), chain)
    with pytest.raises(StreamCancelled) as caught:
        async with stream:
            await anext(stream)
            raise error
    assert caught.value is error
    assert [type(exc).__name__ for exc in seen] == ["StreamCancelled"]
    assert isinstance(seen[0], StreamCancelled)
    assert seen[0] is not error
    assert seen[0].reason == "enough"
    assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "enough")
    assert stream.outcome.error is None


async def test_stream_cancelled_leaves_the_block_in_a_group() -> None:
    """G14: the same from a task group in the body, which makes a group of it."""
    seen: list[BaseException] = []
    group = BaseExceptionGroup("of a task group", [StreamCancelled("enough")])
    with pytest.raises(BaseExceptionGroup) as caught:
        async with wrap(blocks_after_a_yield(seen), ALL) as stream:
            await anext(stream)
            raise group
    assert caught.value is group
    assert [getattr(exc, "reason", None) for exc in seen] == ["enough"]


async def test_stream_cancelled_leaves_the_block_and_cleanup_fails() -> None:
    """G14: the same where the source raises another error then: that one, with the other as its
    context."""
    error, cleanup_error = StreamCancelled("enough"), ValueError("clean-up")

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await anyio.sleep_forever()
        except StreamCancelled:
            raise cleanup_error from None

    with pytest.raises(ValueError, match="clean-up") as caught:
        async with wrap(source(), ALL) as stream:
            await anext(stream)
            raise error
    assert caught.value is cleanup_error
    assert caught.value.__context__ is error


# G15: aclose() from everywhere


@each_combinator
@pytest.mark.parametrize("how", ["itself", "child", "inner"])
async def test_source_closes_its_own_stream(chain: Chain, how: str) -> None:
    """G15: the source, a task of it, or a source inside it calls aclose() of its own stream."""
    log = Log()

    async def closing_inner() -> AsyncGenerator[int, None]:
        await stream.aclose()
        await anyio.sleep_forever()
        yield 0

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            if how == "itself":
                await stream.aclose()
                log("returned")
                await anyio.sleep_forever()
            elif how == "child":
                async with anyio.create_task_group() as group:
                    group.start_soon(stream.aclose)
                    await anyio.sleep_forever()
            else:
                async with wrap(closing_inner(), chain) as inner:
                    await anext(inner)
            yield 2
        finally:
            log("closed")

    log.start()
    stream = wrap(source(), chain)
    async with stream:
        assert await anext(stream) == 1
        with pytest.raises(anyio.ClosedResourceError):
            await anext(stream)
    assert log == [(0.0, "returned")] * (how == "itself") + [(0.0, "closed")]
    assert kind_of(stream) == "closed"


@each_combinator
@pytest.mark.parametrize("moment", ["before", "between", "during"])
async def test_another_task_closes_the_stream(chain: Chain, moment: str) -> None:
    """G15: another task calls aclose(): before the first ask, between two asks, or during one."""
    probe = Probe(1, 2, every=1.0)

    async def close() -> None:
        if moment == "during":
            await anyio.sleep(1.5)
        await stream.aclose()
        closed_at.append(probe.closed)

    closed_at: list[int] = []
    stream = wrap(probe.source(), chain)
    async with anyio.create_task_group() as group:
        async with stream:
            if moment == "during":
                group.start_soon(close)
            if moment != "before":
                assert await anext(stream) == 1
            if moment != "during":
                group.start_soon(close)
                await wait_all_blocked()
            with pytest.raises(anyio.ClosedResourceError):
                await anext(stream)
    assert closed_at == [probe.closed] == [0 if moment == "before" else 1]
    assert kind_of(stream) == "closed"


async def test_two_tasks_close_the_stream() -> None:
    """G15: two tasks call aclose() while clean-up takes time: both return when it is done."""
    log = Log()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await anyio.sleep(2)
            log("closed")

    async def close() -> None:
        await stream.aclose()
        log("returned")

    log.start()
    async with wrap(source(), ALL) as stream:
        await anext(stream)
        async with anyio.create_task_group() as group:
            group.start_soon(close)
            group.start_soon(close)
    assert log == [(2.0, "closed"), (2.0, "returned"), (2.0, "returned")]


async def test_aclose_is_cancelled() -> None:
    """G15: a cancelled aclose() stops waiting, not closing: the block still waits for that."""
    log = Log()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await anyio.sleep(2)
            log("closed")

    log.start()
    async with wrap(source(), ALL) as stream:
        await anext(stream)
        with anyio.move_on_after(1):
            await stream.aclose()
        log("gave up")
    log("left")
    assert log == [(1.0, "gave up"), (2.0, "closed"), (2.0, "left")]


async def test_aclose_raises_the_error_of_the_cleanup() -> None:
    """G15: clean-up raises in aclose(): it raises that, and the end of the block does not again."""
    error = ValueError("clean-up")

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise error

    async with wrap(source(), ALL) as stream:
        await anext(stream)
        with pytest.raises(ValueError, match="clean-up") as caught:
            await stream.aclose()
    assert caught.value is error


@pytest.mark.parametrize("where", ["finally", "on_end"])
async def test_aclose_in_the_closing_itself(where: str) -> None:
    """G15: the source's `finally`, or on_end, calls aclose(): it returns, no deadlock."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            if where == "finally":
                await stream.aclose()
            log.append("source")

    async def on_end(outcome: Outcome) -> None:
        if where == "on_end":
            await stream.aclose()
        log.append("on_end")

    stream = wrap(with_status(source(), on_end=on_end), ALL)
    async with stream:
        await anext(stream)
    assert log == ["source", "on_end"]


@each_combinator
async def test_source_handles_its_closing(chain: Chain) -> None:
    """G2: a generator that catches GeneratorExit and returns has closed like any other."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        except GeneratorExit:
            log.append("closed")

    async with wrap(source(), chain) as stream:
        assert await anext(stream) == 1
    assert log == ["closed"]
    assert kind_of(stream) == "closed"
    assert stream.outcome.cleanup_error is None


# G16, G17: scopes and task groups that the source holds across a yield


@asynccontextmanager
async def in_move_on_after() -> AsyncGenerator[None, None]:
    with anyio.move_on_after(1000):
        yield


@asynccontextmanager
async def in_fail_after() -> AsyncGenerator[None, None]:
    with anyio.fail_after(1000):
        yield


@asynccontextmanager
async def in_shield() -> AsyncGenerator[None, None]:
    with anyio.CancelScope(shield=True):
        yield


@asynccontextmanager
async def in_task_group() -> AsyncGenerator[None, None]:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


@asynccontextmanager
async def in_all_of_them() -> AsyncGenerator[None, None]:
    async with in_task_group(), in_move_on_after(), in_task_group(), in_fail_after():
        yield


@asynccontextmanager
async def in_asyncio_timeout() -> AsyncGenerator[None, None]:
    async with asyncio.timeout(1000):
        yield


@asynccontextmanager
async def in_asyncio_task_group() -> AsyncGenerator[None, None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(anyio.sleep_forever())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def in_nursery() -> AsyncGenerator[None, None]:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


Holder = Callable[[], AbstractAsyncContextManager[None]]

HOLDERS = [in_move_on_after, in_fail_after, in_shield, in_task_group, in_all_of_them]
ways_to_leave = pytest.mark.parametrize("end", ["break", "error", "scope", "token", "last ask"])


async def check_unwinding(holder: Holder, end: str) -> None:
    token = CancelToken()
    log: list[str] = []
    tasks: set[int] = set()
    error = ValueError("body")

    async def source() -> AsyncGenerator[int, None]:
        try:
            async with holder():
                tasks.add(anyio.get_current_task().id)
                try:
                    yield 1
                    yield 2
                finally:
                    log.append("inside")
            log.append("swallowed")
        finally:
            await anyio.lowlevel.checkpoint()
            tasks.add(anyio.get_current_task().id)
            log.append("outside")

    stream = wrap(source(), ALL, token=token)
    raised: BaseException | None = None
    with anyio.CancelScope() as scope:
        try:
            async with stream:
                await anext(stream)
                await wait_all_blocked()
                if end == "error":
                    raise error
                if end == "scope":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
                if end in ("token", "last ask"):
                    token.cancel("stop")
                if end == "last ask":
                    assert await anext(stream) == 2
                    await anext(stream)
        except (ValueError, StreamCancelled) as exc:
            raised = exc
    assert log == ["inside", "outside"]
    assert len(tasks) == 1
    assert scope.cancelled_caught == (end == "scope")
    assert raised is (error if end == "error" else raised if end == "last ask" else None)
    assert isinstance(raised, StreamCancelled) == (end == "last ask")
    assert kind_of(stream) == ("cancelled" if end in ("token", "last ask") else "closed")
    assert stream.outcome.cleanup_error is None
    # The scopes of this task are as they were.
    with anyio.move_on_after(1) as after:
        await anyio.sleep_forever()
    assert after.cancelled_caught


@ways_to_leave
@pytest.mark.parametrize("holder", HOLDERS)
async def test_scopes_across_a_yield(holder: Holder, end: str) -> None:
    """G16: the source is suspended in its own scopes when the block ends: they unwind in order."""
    await check_unwinding(holder, end)


@ways_to_leave
@pytest.mark.asyncio_only
@pytest.mark.parametrize("holder", [in_asyncio_timeout, in_asyncio_task_group])
async def test_asyncio_scopes_across_a_yield(holder: Holder, end: str) -> None:
    """G16: the same in asyncio.timeout() or asyncio.TaskGroup."""
    await check_unwinding(holder, end)


@ways_to_leave
@pytest.mark.trio_only
async def test_nursery_across_a_yield(end: str) -> None:
    """G16: the same in a trio nursery."""
    await check_unwinding(in_nursery, end)


CHILD_ERRORS = [
    [ValueError("child")],
    [GeneratorExit("child")],
    [ValueError("child"), GeneratorExit("child")],
]


def make_source(errors: list[BaseException]) -> AsyncGenerator[int, None]:
    async def child(error: BaseException) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    async def source() -> AsyncGenerator[int, None]:
        async with anyio.create_task_group() as group:
            for error in errors:
                group.start_soon(child, error)
            yield 1

    return source()


@pytest.mark.parametrize("errors", CHILD_ERRORS, ids=repr)
async def test_children_raise_on_close(errors: list[BaseException]) -> None:
    """G17: children of the source's task group raise on close: all that they raise surfaces."""
    stream = wrap(make_source(errors), ALL)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with stream:
            await anext(stream)
            await wait_all_blocked()
    assert {id(leaf) for leaf in leaves(caught.value)} == {id(error) for error in errors}
    assert kind_of(stream) == "closed"
    assert stream.outcome.cleanup_error is caught.value


@pytest.mark.parametrize("errors", CHILD_ERRORS, ids=repr)
async def test_body_and_children_raise(errors: list[BaseException]) -> None:
    """G17: the same when the body has raised: its exception is there as well."""
    in_body = KeyError("body")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with wrap(make_source(errors), ALL) as stream:
            await anext(stream)
            await wait_all_blocked()
            raise in_body
    assert caught.value.exceptions[0] is in_body
    assert {id(leaf) for leaf in leaves(caught.value)} == {id(e) for e in [in_body, *errors]}


class SlowToClose(PlainSource[int]):
    """Takes so many seconds to be closed."""

    closed = 0

    def __init__(self, seconds: float) -> None:
        super().__init__(1)
        self.seconds = seconds

    async def aclose(self) -> None:
        await anyio.sleep(self.seconds)
        self.closed += 1


class TestNeverEntered:
    async def test_in_a_cancelled_scope(self) -> None:
        """G5: aclose() of a stream that was never entered, in a cancelled scope: closed all the
        same."""
        source = SlowToClose(2)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await with_cancellation(source).aclose()
        assert source.closed == 1

    async def test_could_not_be_entered(self) -> None:
        """G5: the same for a stream that could not be entered."""

        class Broken(Stage[int, int]):
            def on_open(self, control: Control) -> None:
                raise LookupError("broken")

        source = SlowToClose(2)
        with anyio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(LookupError, match="broken"):
                await with_stage(source, Broken()).__aenter__()
        assert source.closed == 1

    async def test_hangs(self) -> None:
        """G10: and one whose clean-up hangs: cut at the end of the grace."""
        source = SlowToClose(1000)
        await with_cancellation(source).aclose()
        assert source.closed == 0
        assert anyio.current_time() == START + 5

    @pytest.mark.parametrize(("grace", "closed"), [(3, 0), (30, 1)])
    async def test_grace(self, grace: float, closed: int) -> None:
        """G10: its clean-up is bounded by the grace that it was given."""
        source = SlowToClose(10)
        await with_keepalive(with_cancellation(source, grace=grace), 1.0, "beat").aclose()
        assert source.closed == closed
        assert anyio.current_time() == START + min(grace, 10)
