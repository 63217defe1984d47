"""Errors: in order, bare, once, and without a reference cycle (scenarios E)."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import traceback
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from chains import ALONE, CHAINS, ORDERS, Chain, any_chain, wrap
from streamkit import (
    CancelToken,
    Idle,
    Outcome,
    Stream,
    StreamCancelled,
    merge,
    with_cancellation,
    with_keepalive,
    with_status,
)
from support import Backend, Log, PlainSource, Probe, aiter_of, live_tasks, wait_all_blocked

# Where a scenario does not name its chains: each combinator, and all of them.
ALL = ORDERS[0]
each_combinator = pytest.mark.parametrize("chain", [*ALONE, ALL], ids="+".join)
any_cancellable_chain = pytest.mark.parametrize(
    "chain",
    [chain for chain in CHAINS if "cancellation" in chain],
    ids="+".join,
)


async def consume(stream: Stream[Any], into: list[Any] | None = None) -> list[Any]:
    """Open a stream and take all of it."""
    items = [] if into is None else into
    try:
        async with stream:
            async for item in stream:
                items.append(item)
    finally:
        # What is raised has this frame in its traceback, and the outcome has what is raised.
        del stream
    return items


async def fire_when_blocked(token: CancelToken, reason: object = "stop") -> None:
    await wait_all_blocked()
    token.cancel(reason)


def leaves(exc: BaseException) -> list[BaseException]:
    """Return what is in a group, or the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [exc]


def notes(exc: BaseException) -> list[str]:
    return getattr(exc, "__notes__", [])


# E1, E2, E11: in order, bare, once


@any_chain
@pytest.mark.parametrize("count", [0, 3])
async def test_error_follows_the_items(chain: Chain, count: int) -> None:
    """E1: the source raises after k items, through any chain: k items, then that object, bare."""
    error = ValueError("from the source")
    probe = Probe(*range(count), error=error)
    stream = wrap(probe.source(), chain)
    items: list[int] = []
    with pytest.raises(ValueError, match="from the source") as caught:
        await consume(stream, items)
    assert items == list(range(count))
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert traceback.extract_tb(error.__traceback__)[-1].name == "source"
    assert (stream.outcome.kind, stream.outcome.error) == ("failed", error)
    assert stream.outcome.items == count
    assert probe.closed == 1


@pytest.mark.parametrize(
    "error",
    [
        BaseException("base"),
        GeneratorExit("own"),
        ExceptionGroup("group", [ValueError("alone")]),
        BaseExceptionGroup("group", [ValueError(), KeyboardInterrupt()]),
        anyio.ClosedResourceError("of a resource in the source"),
        anyio.BusyResourceError("using"),
        TimeoutError("of the source"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_of_any_class(error: BaseException) -> None:
    """E1: an error of any class arrives as it is, those that the engine itself knows included."""
    items: list[int] = []
    with pytest.raises(type(error)) as caught:
        await consume(wrap(Probe(1, error=error).source(), ALL), items)
    assert items == [1]
    assert caught.value is error


@any_chain
async def test_error_right_after_a_yield(chain: Chain) -> None:
    """E2: the source raises without an await after a yield: the error, not an end."""
    error = ValueError()

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        raise error

    async with wrap(source(), chain) as stream:
        assert await anext(stream) == 1
        with pytest.raises(ValueError) as caught:
            await anext(stream)
    assert caught.value is error


async def test_error_while_the_consumer_waits() -> None:
    """E2: the source raises when the consumer has waited through beats: beats, then the error."""
    error = ValueError()

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        await anyio.sleep(2.5)
        raise error

    items: list[object] = []
    with pytest.raises(ValueError) as caught:
        await consume(with_status(with_keepalive(source(), 1.0, "beat")), items)
    assert items == [1, "beat", "beat"]
    assert caught.value is error


@each_combinator
async def test_error_is_raised_once(chain: Chain) -> None:
    """E11: an error of the source is raised once, then there is the end, as often as asked."""
    async with wrap(Probe(1, error=ValueError()).source(), chain) as stream:
        assert await anext(stream) == 1
        with pytest.raises(ValueError):
            await anext(stream)
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_error_raised_by_head_is_not_raised_again() -> None:
    """E11: an error that head() has raised does not come out of the iteration or the block."""
    error = ValueError()
    async with with_status(Probe[int](error=error).source()) as stream:
        with pytest.raises(ValueError) as caught:
            await stream.head()
        assert [item async for item in stream] == []
    assert caught.value is error


# E3, E4: the body and the clean-up


@each_combinator
async def test_body_and_cleanup_raise(chain: Chain) -> None:
    """E3: the body raises and the source's clean-up raises: a group of both, with a note."""
    in_body, in_cleanup = ValueError("body"), KeyError("clean-up")

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise in_cleanup

    stream = wrap(source(), chain)
    with pytest.raises(ExceptionGroup) as caught:
        async with stream:
            await anext(stream)
            raise in_body
    assert caught.value.exceptions == (in_body, in_cleanup)
    assert "closed" in notes(caught.value)[0]
    assert (stream.outcome.kind, stream.outcome.cleanup_error) == ("closed", in_cleanup)


@each_combinator
async def test_only_the_cleanup_raises(chain: Chain) -> None:
    """E3: the consumer leaves in peace and the source's clean-up raises: that error, bare."""
    in_cleanup = KeyError("clean-up")

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise in_cleanup

    with pytest.raises(KeyError) as caught:
        async with wrap(source(), chain) as stream:
            await anext(stream)
    assert caught.value is in_cleanup


async def fails_late(error: Exception) -> AsyncGenerator[int, None]:
    await anyio.sleep(2)
    raise error
    yield


@pytest.mark.parametrize("kind", [ValueError, anyio.ClosedResourceError])
async def test_error_that_the_consumer_did_not_meet(kind: type[Exception]) -> None:
    """E3: the source raises after an ask that was cancelled: it surfaces where the block ends."""
    error = kind()
    stream = wrap(fails_late(error), ALL)
    with pytest.raises(kind) as caught:
        async with stream:
            with anyio.move_on_after(1):
                await anext(stream)
            await anyio.sleep(2)
    assert caught.value is error
    assert stream.outcome.error is error


@pytest.mark.parametrize("leave_before_first_item", [True, False])
@each_combinator
async def test_group_of_the_body(chain: Chain, leave_before_first_item: bool) -> None:
    """E4: the body raises a group of its own, even one of one: the same object comes out."""
    group = ExceptionGroup("of the body", [ValueError()])
    probe = Probe(1, 2)
    with pytest.raises(ExceptionGroup) as caught:
        async with wrap(probe.source(), chain) as stream:
            if not leave_before_first_item:
                await anext(stream)
            raise group
    assert caught.value is group
    assert len(group.exceptions) == 1
    assert notes(group) == []
    assert probe.closed == (0 if leave_before_first_item else 1)


# E5: a task group across a yield


async def anyio_group_across_a_yield(log: list[object]) -> AsyncGenerator[int, None]:
    async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
        for group in (outer, inner):
            group.start_soon(block_and_log, log)
        try:
            yield 1
            raise AssertionError("must not be resumed")
        except BaseException as exc:
            log.append(type(exc))
            raise


async def asyncio_group_across_a_yield(log: list[object]) -> AsyncGenerator[int, None]:
    async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
        for group in (outer, inner):
            group.create_task(block_and_log(log))
        await asyncio.sleep(0)
        try:
            yield 1
            raise AssertionError("must not be resumed")
        except BaseException as exc:
            log.append(type(exc))
            raise


async def trio_nursery_across_a_yield(log: list[object]) -> AsyncGenerator[int, None]:
    import trio

    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        for nursery in (outer, inner):
            nursery.start_soon(block_and_log, log)
        try:
            yield 1
            raise AssertionError("must not be resumed")
        except BaseException as exc:
            log.append(type(exc))
            raise


async def block_and_log(log: list[object]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        log.append("child")


HoldsGroup = Callable[[list[object]], AsyncGenerator[int, None]]


async def check_leaving_early(source: HoldsGroup, error: Exception | None) -> None:
    log: list[object] = []
    stream = wrap(source(log), ALL)
    raised: BaseException | None = None
    try:
        async with stream:
            assert await anext(stream) == 1
            await wait_all_blocked()
            if error is not None:
                raise error
    except BaseException as exc:
        raised = exc
    assert raised is error
    assert log == [GeneratorExit, "child", "child"]
    assert (stream.outcome.kind, stream.outcome.cleanup_error) == ("closed", None)


leaving = pytest.mark.parametrize("error", [None, ValueError("body")], ids=["break", "error"])


@leaving
async def test_leaving_a_source_in_a_task_group(error: Exception | None) -> None:
    """E5: the source holds task groups across its yield and the consumer leaves: a clean close."""
    await check_leaving_early(anyio_group_across_a_yield, error)


@leaving
@pytest.mark.asyncio_only
async def test_leaving_a_source_in_an_asyncio_task_group(error: Exception | None) -> None:
    """E5: the same with asyncio.TaskGroup."""
    await check_leaving_early(asyncio_group_across_a_yield, error)


@leaving
@pytest.mark.trio_only
async def test_leaving_a_source_in_a_nursery(error: Exception | None) -> None:
    """E5: the same with a trio nursery."""
    await check_leaving_early(trio_nursery_across_a_yield, error)


# E6, E7, E9, E13: what becomes of the delivered exception


@pytest.mark.parametrize("where", ["await", "yield"])
async def test_delivered_exception_is_replaced(where: str) -> None:
    """E6: the source raises another error in its place: the consumer gets that, with context."""
    token = CancelToken()
    replacement = ValueError("instead")

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "first"
            if where == "await":
                await anyio.sleep_forever()
            yield "second"
        except StreamCancelled:
            raise replacement

    stream = wrap(source(), ALL, token=token)
    with pytest.raises(ValueError, match="instead") as caught:
        async with stream:
            assert await anext(stream) == "first"
            token.cancel("stop")
            if where == "yield":
                assert await anext(stream) == "second"
            await anext(stream)
    assert caught.value is replacement
    assert isinstance(replacement.__context__, StreamCancelled)
    assert replacement.__context__.reason == "stop"
    assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")
    assert stream.outcome.error is replacement


async def test_one_token_three_streams() -> None:
    """E7: one token ends three streams: three exceptions that share no frame, and no context."""
    token = CancelToken()
    in_sources: list[BaseException] = []
    in_consumers: list[BaseException] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            await anyio.sleep_forever()
            yield 1
        except StreamCancelled as exc:
            in_sources.append(exc)
            raise

    async def consumer() -> None:
        try:
            await consume(wrap(source(), ALL, token=token))
        except StreamCancelled as exc:
            in_consumers.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(consumer)
        await fire_when_blocked(token)
    for raised in (in_sources, in_consumers):
        assert [exc.args for exc in raised] == [("stop",)] * 3
        assert len({id(exc) for exc in raised}) == 3
        frames = [{id(frame) for frame, _ in traceback.walk_tb(e.__traceback__)} for e in raised]
        assert all(frames)
        assert not any(one & other for one, other in itertools.combinations(frames, 2))
        assert [exc.__context__ for exc in raised] == [None] * 3
        assert [exc.__cause__ for exc in raised] == [None] * 3


async def blocked() -> None:
    await anyio.sleep_forever()


async def blocked_in_anyio_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()


async def blocked_in_asyncio_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(anyio.sleep_forever())
        await anyio.sleep_forever()


async def blocked_in_nursery() -> None:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()


async def blocked_in_nested_groups() -> None:
    try:
        await blocked_in_anyio_group()
    except BaseException as exc:
        raise BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [exc])]) from None


BLOCKED = [
    blocked,
    blocked_in_anyio_group,
    blocked_in_nested_groups,
]


async def check_except_star(block: Callable[[], Awaitable[None]]) -> None:
    token = CancelToken()
    seen: list[list[tuple[bool, object]]] = []

    async def source() -> AsyncGenerator[str, None]:
        try:
            await block()
        except* StreamCancelled as group:
            seen.append([(isinstance(e, StreamCancelled), e.args[0]) for e in leaves(group)])
        yield "last"

    stream = wrap(source(), ALL, token=token)
    async with anyio.create_task_group() as group:
        group.start_soon(fire_when_blocked, token)
        assert await consume(stream) == ["last"]
    assert seen == [[(True, "stop")]]
    assert (stream.outcome.kind, stream.outcome.error) == ("cancelled", None)


@pytest.mark.parametrize("block", BLOCKED)
async def test_except_star(block: Callable[[], Awaitable[None]]) -> None:
    """E9: except* around the await in the source catches it, whatever it is blocked in."""
    await check_except_star(block)


@pytest.mark.asyncio_only
async def test_except_star_around_an_asyncio_task_group() -> None:
    """E9: the same around asyncio.TaskGroup."""
    await check_except_star(blocked_in_asyncio_group)


@pytest.mark.trio_only
async def test_except_star_around_a_nursery() -> None:
    """E9: the same around a trio nursery."""
    await check_except_star(blocked_in_nursery)


async def check_bare(block: Callable[[], Awaitable[None]]) -> None:
    token = CancelToken()

    async def source() -> AsyncGenerator[int, None]:
        await block()
        yield 1

    stream = wrap(source(), ALL, token=token)
    async with anyio.create_task_group() as group:
        group.start_soon(fire_when_blocked, token)
        with pytest.raises(StreamCancelled) as caught:
            await consume(stream)
    assert type(caught.value) is StreamCancelled
    assert caught.value.reason == "stop"
    assert "source" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")
    assert stream.outcome.error is None


@pytest.mark.parametrize("block", BLOCKED)
async def test_group_of_the_delivered_exception(block: Callable[[], Awaitable[None]]) -> None:
    """E13: it leaves the source in groups with nothing else: the consumer gets it bare and plain.

    Bare on asyncio anyway for anyio's groups, which see a CancelledError; a group on trio.
    """
    await check_bare(block)


@pytest.mark.asyncio_only
async def test_group_of_an_asyncio_task_group() -> None:
    """E13: the same through asyncio.TaskGroup, which makes a group of it on 3.11 and 3.12."""
    await check_bare(blocked_in_asyncio_group)


@pytest.mark.trio_only
async def test_group_of_a_nursery() -> None:
    """E13: the same through a trio nursery."""
    await check_bare(blocked_in_nursery)


async def test_group_with_something_else() -> None:
    """E13: it leaves the source in a group beside another error: the other error is not lost."""
    token = CancelToken()
    error = ValueError("beside it")

    async def source() -> AsyncGenerator[int, None]:
        try:
            await anyio.sleep_forever()
            yield 1
        except StreamCancelled as exc:
            raise BaseExceptionGroup("two", [exc, error]) from None

    stream = wrap(source(), ALL, token=token)
    async with anyio.create_task_group() as group:
        group.start_soon(fire_when_blocked, token)
        with pytest.raises(ExceptionGroup) as caught:
            await consume(stream)
    assert leaves(caught.value) == [error]
    assert stream.outcome.kind == "cancelled"
    assert stream.outcome.error is caught.value


# E8: exceptions for the runner


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), SystemExit(3)], ids=repr)
@each_combinator
def test_exit_reaches_the_runner(backend: Backend, chain: Chain, error: BaseException) -> None:
    """E8: KeyboardInterrupt or SystemExit in the source reaches the runner once; all is closed."""
    failing, around = Probe(1, error=error), Probe("a", "b")
    log: list[object] = []

    async def main() -> None:
        async with wrap(around.source(), chain) as outer:
            await anext(outer)
            try:
                await consume(wrap(failing.source(), chain), log)
            except BaseException as exc:
                log.append(exc)
                raise

    with pytest.raises(type(error)) as caught:
        backend.run(main)
    assert caught.value is error
    assert log == [1, error]
    assert (failing.closed, around.closed) == (1, 1)
    assert notes(error) == []  # where the harness notes what has leaked


# E10: no reference cycles


class Anchor:
    """Something in the source's frame that shows whether the frame still lives."""


Anchors = list["weakref.ref[Anchor]"]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def other_referrers(exc: BaseException) -> list[object]:
    """Return what refers to an exception, but for the caller."""
    frame = sys._getframe(1)
    return [
        referrer
        for referrer in gc.get_referrers(exc)
        if referrer is not frame
        and not (isinstance(referrer, CoroutineType) and referrer.cr_frame is frame)
    ]


async def anchored(
    anchors: Anchors, *, error: bool = False, cleanup_error: bool = False, block: bool = False
) -> AsyncGenerator[int, None]:
    anchor = Anchor()
    anchors.append(weakref.ref(anchor))
    try:
        yield 1
        if block:
            await anyio.sleep_forever()
        if error:
            raise ValueError("source")
    finally:
        if cleanup_error:
            raise KeyError("clean-up")


@any_chain
@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_with_an_error_of_the_source(chain: Chain) -> None:
    """E10: the source raises: nothing else holds the error, nothing at all holds the frame."""
    anchors: Anchors = []
    stream = wrap(anchored(anchors, error=True), chain)
    caught: BaseException | None = None
    try:
        await consume(stream)
    except ValueError as exc:
        caught = exc
    del stream
    assert caught is not None
    assert other_referrers(caught) == []
    del caught
    assert [anchor() for anchor in anchors] == [None]


@any_cancellable_chain
@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_with_a_token(chain: Chain) -> None:
    """E10: a token cancels the source at an await: the same."""
    token = CancelToken()
    anchors: Anchors = []
    stream = wrap(anchored(anchors, block=True), chain, token=token)
    caught: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(fire_when_blocked, token)
        try:
            await consume(stream)
        except StreamCancelled as exc:
            caught = exc
    del stream, group
    assert caught is not None
    assert other_referrers(caught) == []
    del caught
    assert [anchor() for anchor in anchors] == [None]


class Case:
    """A stream that no frame holds, and what shows whether the frame of its source lives."""

    def __init__(self) -> None:
        self.anchors: Anchors = []
        self.stream: Any = None


async def end_normally(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors), ALL)
    await consume(case.stream)


async def leave_early(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors), ALL)
    async with case.stream:
        await anext(case.stream)


async def close_early(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors), ALL)
    async with case.stream:
        await anext(case.stream)
        await case.stream.aclose()


async def leave_a_task_group(case: Case) -> None:
    async def source() -> AsyncGenerator[int, None]:
        async with anyio.create_task_group() as group:
            anchor = Anchor()
            case.anchors.append(weakref.ref(anchor))
            group.start_soon(anyio.sleep_forever)
            yield 1

    case.stream = wrap(source(), ALL)
    async with case.stream:
        await anext(case.stream)


async def fail_in_the_body(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors), ALL)
    async with case.stream:
        await anext(case.stream)
        raise ValueError("body")


async def fail_in_the_cleanup(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors, cleanup_error=True), ALL)
    async with case.stream:
        await anext(case.stream)


async def fail_in_body_and_cleanup(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors, cleanup_error=True), ALL)
    async with case.stream:
        await anext(case.stream)
        raise ValueError("body")


async def fail_in_aclose(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors, cleanup_error=True), ALL)
    async with case.stream:
        await anext(case.stream)
        await case.stream.aclose()


async def fail_in_head(case: Case) -> None:
    async def source() -> AsyncGenerator[int, None]:
        anchor = Anchor()
        case.anchors.append(weakref.ref(anchor))
        if case.anchors:
            raise ValueError
        yield 1

    case.stream = with_status(source())
    async with case.stream:
        await case.stream.head()


async def fail_in_on_end(case: Case) -> None:
    case.stream = wrap(with_status(anchored(case.anchors), on_end=failing_on_end), ALL)
    await consume(case.stream)


async def fail_in_final(case: Case) -> None:
    case.stream = wrap(with_status(anchored(case.anchors), final=failing_final), ALL)
    await consume(case.stream)


async def fail_in_source_and_on_end(case: Case) -> None:
    case.stream = wrap(with_status(anchored(case.anchors, error=True), on_end=failing_on_end), ALL)
    await consume(case.stream)


async def fail_in_a_beat(case: Case) -> None:
    def beat(idle: Idle[Any]) -> str:
        raise ValueError(idle.count)

    case.stream = with_keepalive(anchored(case.anchors, block=True), 1.0, beat)
    await consume(case.stream)


async def cancel_at_a_yield(case: Case) -> None:
    token = CancelToken()
    case.stream = wrap(anchored(case.anchors, block=True), ALL, token=token)
    async with case.stream:
        await anext(case.stream)
        token.cancel("stop")
        await anext(case.stream)


async def cancel_in_the_body(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors, block=True), ALL)
    async with case.stream:
        await anext(case.stream)
        raise StreamCancelled("stop")


async def expire_around_it(case: Case) -> None:
    case.stream = wrap(anchored(case.anchors, block=True), ALL)
    with anyio.fail_after(1):
        await consume(case.stream)


WITHOUT_ERROR = [end_normally, leave_early, close_early]
WITH_ERROR = [
    fail_in_the_body,
    fail_in_the_cleanup,
    fail_in_body_and_cleanup,
    fail_in_aclose,
    fail_in_head,
    fail_in_on_end,
    fail_in_final,
    fail_in_source_and_on_end,
    fail_in_a_beat,
    cancel_at_a_yield,
    cancel_in_the_body,
    expire_around_it,
]


async def check_no_cycle(end: Callable[[Case], Awaitable[None]]) -> None:
    case = Case()
    await end(case)
    case.stream = None
    assert [anchor() for anchor in case.anchors] == [None]


@pytest.mark.parametrize("end", WITHOUT_ERROR)
@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_without_an_error(end: Callable[[Case], Awaitable[None]]) -> None:
    """E10: the stream ends or is left early: nothing holds the source's frame."""
    await check_no_cycle(end)


@pytest.mark.asyncio_only
@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_with_a_task_group_across_a_yield() -> None:
    """E10: the same where the source holds a task group across its yield.

    Not on trio: a nursery that raises a group leaves a cycle behind, also without a stream around
    it (the local ``exception`` in trio's ``Nursery._nested_child_finished``).
    """
    await check_no_cycle(leave_a_task_group)


@pytest.mark.parametrize("end", WITH_ERROR)
@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_with_any_error(end: Callable[[Case], Awaitable[None]]) -> None:
    """E10: an error comes out of a stream in any other way: the same."""
    case = Case()
    caught: BaseException | None = None
    try:
        await end(case)
    except BaseException as exc:
        caught = exc
    case.stream = None
    assert caught is not None
    assert other_referrers(caught) == []
    del caught
    assert [anchor() for anchor in case.anchors] == [None]


@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_with_one_token_and_three_streams() -> None:
    """E7: no cycles either, with the token still alive."""
    token = CancelToken()
    anchors: Anchors = []
    caught: list[BaseException] = []

    async def consumer() -> None:
        try:
            await consume(wrap(anchored(anchors, block=True), ALL, token=token))
        except StreamCancelled as exc:
            caught.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(consumer)
        await fire_when_blocked(token)
    assert len(caught) == 3
    caught.clear()
    assert [anchor() for anchor in anchors] == [None] * 3


# E12: the last hooks


async def failing_on_end(outcome: Outcome) -> None:
    await anyio.lowlevel.checkpoint()
    raise ValueError(f"on_end after {outcome.kind}")


def failing_final(outcome: Outcome) -> str:
    raise ValueError(f"final after {outcome.kind}")


def failing_finals(outcome: Outcome) -> Iterator[str]:
    yield "last"
    raise ValueError(f"final after {outcome.kind}")


@pytest.mark.parametrize(
    "hooks",
    [{"on_end": failing_on_end}, {"final": failing_final}, {"final": failing_finals}],
    ids=["on_end", "final", "final-iterator"],
)
async def test_last_hook_raises(hooks: dict[str, Any]) -> None:
    """E12: on_end or final raises: it surfaces after the items; source and helpers are closed."""
    before = live_tasks()
    probe = Probe(1, 2)
    stream = with_keepalive(with_status(wrap(probe.source(), ALL), **hooks), 1000.0, "beat")
    items: list[object] = []
    async with stream:
        with pytest.raises(ValueError, match="after completed") as caught:
            async for item in stream:
                items.append(item)
        assert items[:2] == [1, 2]
        assert probe.closed == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert not isinstance(caught.value, ExceptionGroup)
    assert (stream.outcome.kind, stream.outcome.error) == ("completed", None)
    assert live_tasks() == before


async def test_source_and_on_end_raise() -> None:
    """E12: the source raises, then on_end: a group of both, so that neither is lost."""
    error = KeyError("source")
    stream = with_status(Probe(1, error=error).source(), on_end=failing_on_end)
    with pytest.raises(ExceptionGroup) as caught:
        await consume(stream)
    assert leaves(caught.value)[0] is error
    assert [repr(leaf) for leaf in leaves(caught.value)[1:]] == [
        "ValueError('on_end after failed')"
    ]
    assert notes(caught.value)


async def test_on_end_raises_after_the_consumer_left() -> None:
    """E12: on_end raises when nobody asks any more: it surfaces where the block is left."""
    before = live_tasks()
    probe = Probe(1, 2)
    with pytest.raises(ValueError, match="on_end after closed"):
        async with wrap(with_status(probe.source(), on_end=failing_on_end), ALL) as stream:
            await anext(stream)
    assert probe.closed == 1
    assert live_tasks() == before


async def test_body_and_on_end_raise() -> None:
    """E12: the body raises, then on_end: a group of both."""
    error = KeyError("body")
    with pytest.raises(ExceptionGroup) as caught:
        async with with_status(Probe(1, 2).source(), on_end=failing_on_end) as stream:
            await anext(stream)
            raise error
    assert leaves(caught.value)[0] is error
    assert [repr(leaf) for leaf in leaves(caught.value)[1:]] == [
        "ValueError('on_end after closed')"
    ]


async def test_every_on_end_runs() -> None:
    """E12: the on_end of one stage raises: those of the others still run, and are told."""
    log: list[str] = []

    async def on_end(outcome: Outcome) -> None:
        log.append(outcome.kind)

    inner = with_status(aiter_of(1), on_end=failing_on_end)
    with pytest.raises(ValueError, match="on_end after completed"):
        await consume(with_status(inner, on_end=on_end))
    assert log == ["failed"]


async def test_on_end_takes_too_long() -> None:
    """E12: on_end is cut after its time, and says so; the source was closed before."""
    log = Log()

    async def on_end(outcome: Outcome) -> None:
        log("on_end")
        try:
            await anyio.sleep_forever()
        finally:
            log("cut")

    log.start()
    probe = Probe(1)
    with pytest.raises(TimeoutError, match=r"2\.0 seconds"):
        await consume(with_status(probe.source(), on_end=on_end, on_end_timeout=2.0))
    assert log == [(0.0, "on_end"), (2.0, "cut")]
    assert probe.closed == 1


async def test_source_without_a_module() -> None:
    """E1: what ``exec()`` has made need not be in a module; its error is its own all the same."""
    names: dict[str, Any] = {}
    exec("async def source():\n    yield 1\n    raise LookupError('gone')", names)
    async with with_keepalive(names["source"](), 1, "beat") as stream:
        assert await anext(stream) == 1
        with pytest.raises(LookupError, match="gone"):
            await anext(stream)


async def test_class_that_cannot_be_changed() -> None:
    """E6: an error of a frozen class has the cancellation as its context, and is not replaced."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    error = Frozen(1)

    class Failing(PlainSource[int]):
        async def aclose(self) -> None:
            raise error

    with anyio.CancelScope() as scope, pytest.raises(Frozen) as caught:
        async with with_keepalive(Failing(1, 2), 1, "beat") as stream:
            assert await anext(stream) == 1
            scope.cancel()
            await anyio.sleep_forever()
    assert caught.value is error
    assert isinstance(error.__context__, anyio.get_cancelled_exc_class())


async def test_class_that_cannot_be_changed_in_a_merged_source() -> None:
    """E6: nor is it where several sources are merged."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    error, token = Frozen(1), CancelToken()

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        with suppress(StreamCancelled):
            await anyio.sleep_forever()
        raise error

    with pytest.raises(Frozen) as caught:
        async with with_cancellation(merge(source()), token) as stream:
            async for _ in stream:
                token.cancel("stop")
    assert caught.value is error
    assert isinstance(error.__context__, StreamCancelled)
