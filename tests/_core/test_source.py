"""Every kind of source: taken, stepped and closed in the one task that owns it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from chains import ALONE, ORDERS, Chain, wrap
from streamkit import (
    CancelToken,
    Left,
    Stream,
    StreamCancelled,
    with_cancellation,
    with_keepalive,
    with_status,
)
from support import START, Log, wait_all_blocked

ALL = ORDERS[0]


class Record(Log):
    """Notes what happens to a source, and in which tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: set[int] = set()

    def __call__(self, event: object) -> None:
        super().__call__(event)
        self.tasks.add(anyio.get_current_task().id)


class Plain:
    """An async iterator with neither athrow() nor aclose(). It blocks after its last item."""

    def __init__(self, record: Record, *items: int, block: bool = False) -> None:
        self.record = record
        self.items = iter(items)
        self.block = block

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        for item in self.items:
            self.record(item)
            return item
        try:
            if self.block:
                await anyio.sleep_forever()
        except StreamCancelled as exc:
            self.record(exc.reason)
            raise
        raise StopAsyncIteration


class Closable(Plain):
    """The same with aclose()."""

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.record("closed")


class Throwable(Closable):
    """The same with aclose() and athrow(), which ends the iteration with one more item."""

    async def athrow(self, exc: BaseException) -> int:
        await anyio.lowlevel.checkpoint()
        assert isinstance(exc, StreamCancelled)
        self.record(exc.reason)
        self.items, self.block = iter(()), False
        return -1


class Iterable:
    """An async iterable whose __aiter__() returns another object."""

    def __init__(self, iterator: AsyncIterator[int]) -> None:
        self.iterator = iterator

    def __aiter__(self) -> AsyncIterator[int]:
        return self.iterator


async def generator(
    record: Record, *items: int, block: bool = False, error: Exception | None = None
) -> AsyncGenerator[int, None]:
    try:
        for item in items:
            record(item)
            yield item
        if error is not None:
            raise error
        if block:
            await anyio.sleep_forever()
    except StreamCancelled as exc:
        record(exc.reason)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        record("closed")


@asynccontextmanager
async def manager(record: Record, inner: AsyncIterable[int]) -> AsyncIterator[AsyncIterable[int]]:
    record("entered")
    try:
        yield inner
    except BaseException as exc:
        record(type(exc).__name__)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        record("left")


Make = Callable[..., Any]

# What makes a source, and which events of its life end up in the record.
SOURCES: dict[str, tuple[Make, list[object], list[object]]] = {
    "generator": (generator, [], ["closed"]),
    "plain iterator": (Plain, [], []),
    "iterator with aclose": (Closable, [], ["closed"]),
    "iterator with athrow": (Throwable, [], ["closed"]),
    "iterable": (lambda record, *a, **k: Iterable(Closable(record, *a, **k)), [], ["closed"]),
    "manager of a generator": (
        lambda record, *a, **k: manager(record, generator(record, *a, **k)),
        ["entered"],
        ["closed", "left"],
    ),
    "manager of an iterator": (
        lambda record, *a, **k: manager(record, Closable(record, *a, **k)),
        ["entered"],
        ["closed", "left"],
    ),
    "manager of a plain iterator": (
        lambda record, *a, **k: manager(record, Plain(record, *a, **k)),
        ["entered"],
        ["left"],
    ),
    "stream": (
        lambda record, *a, **k: wrap(generator(record, *a, **k), ("status", "keepalive")),
        [],
        ["closed"],
    ),
}

each_source = pytest.mark.parametrize("name", SOURCES)


# Every kind, every end


@each_source
@pytest.mark.parametrize("chain", [*ALONE, ALL], ids="+".join)
async def test_run_to_the_end(name: str, chain: Chain) -> None:
    """G1: a source of any kind runs to its end: all items, closed once, all in one task."""
    make, opened, closed = SOURCES[name]
    record = Record()
    stream = wrap(make(record, 1, 2), chain)
    assert record == []
    async with stream:
        assert [item async for item in stream] == [1, 2]
        assert record.events == [*opened, 1, 2, *closed]
    assert record.events == [*opened, 1, 2, *closed]
    assert len(record.tasks) == 1
    assert anyio.get_current_task().id not in record.tasks


@each_source
async def test_break(name: str) -> None:
    """G2: the consumer leaves early: a source of any kind is closed in its own task."""
    make, opened, closed = SOURCES[name]
    record = Record()
    async with wrap(make(record, 1, 2), ALL) as stream:
        assert await anext(stream) == 1
    assert [event for event in record.events if event != "GeneratorExit"] == [*opened, 1, *closed]
    assert len(record.tasks) == 1
    assert anyio.get_current_task().id not in record.tasks


@each_source
async def test_left_while_it_is_blocked(name: str) -> None:
    """G7: the block ends while a source of any kind is blocked: it is told, then closed."""
    make, opened, closed = SOURCES[name]
    record = Record()
    with anyio.move_on_after(1) as scope:
        async with wrap(make(record, 1, block=True), ALL) as stream:
            assert await anext(stream) == 1
            await anext(stream)
    assert scope.cancelled_caught
    events = [event for event in record.events if event != "StreamCancelled"]
    assert events == [*opened, 1, Left(), *closed]
    assert len(record.tasks) == 1


@each_source
async def test_nothing_runs_unless_asked(name: str) -> None:
    """R2: a source of any kind that is not asked for an item does nothing until it is closed."""
    make, _, _ = SOURCES[name]
    record = Record()
    async with wrap(make(record, 1), ALL):
        await wait_all_blocked()
        assert record.events == []
    assert record.events in ([], ["closed"])


def test_iterable_is_not_opened_before() -> None:
    """R2: wrapping an iterable does not call its __aiter__() yet, which is code of the source."""

    class Opened:
        def __aiter__(self) -> AsyncIterator[int]:
            raise AssertionError("must not be called")

    wrap(Opened(), ALL)


@each_source
async def test_token_while_it_is_blocked(name: str) -> None:
    """C25: a token fires while a source of any kind is blocked: it sees that, and is closed."""
    make, opened, closed = SOURCES[name]
    record = Record()
    token = CancelToken()
    async with wrap(make(record, 1, block=True), ALL, token=token) as stream:
        assert await anext(stream) == 1
        async with anyio.create_task_group() as group:
            group.start_soon(call_when_blocked, token.cancel, "stop")
            with pytest.raises(StreamCancelled) as caught:
                await anext(stream)
    assert caught.value.reason == "stop"
    events = [event for event in record.events if event != "StreamCancelled"]
    assert events == [*opened, 1, "stop", *closed]
    assert stream.outcome.kind == "cancelled"


async def call_when_blocked(function: Callable[..., object], *args: object) -> None:
    await wait_all_blocked()
    function(*args)


@each_source
async def test_token_at_a_yield(name: str) -> None:
    """C25: a token fires while the consumer is busy: the source sees it at its next item.

    One without athrow() has no place for it there: it is closed instead.
    """
    make, opened, closed = SOURCES[name]
    has_athrow = name in ("generator", "iterator with athrow", "manager of a generator", "stream")
    record = Record()
    token = CancelToken()
    items: list[int] = []
    async with wrap(make(record, 1, 2, 3), ALL, token=token) as stream:
        items.append(await anext(stream))
        token.cancel("stop")
        with nullcontext() if name == "iterator with athrow" else pytest.raises(StreamCancelled):
            async for item in stream:
                items.append(item)
    assert items == [1, 2, *([-1] if name == "iterator with athrow" else [])]
    told = ["stop"] if has_athrow else []
    events = [e for e in record.events if e not in ("StreamCancelled", "GeneratorExit")]
    assert events == [*opened, 1, 2, *told, *closed]
    assert stream.outcome.kind == "cancelled"


# Errors


class Fails(Plain):
    """Raises where it is told to."""

    def __init__(self, record: Record, where: str, error: Exception) -> None:
        super().__init__(record, 1)
        self.where = where
        self.error = error

    def __aiter__(self) -> AsyncIterator[int]:
        if self.where == "iter":
            raise self.error
        return super().__aiter__()

    async def __anext__(self) -> int:
        if self.where == "next":
            raise self.error
        return await super().__anext__()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.record("closed")
        if self.where == "close":
            raise self.error


@pytest.mark.parametrize("where", ["iter", "next", "close"])
@pytest.mark.parametrize("managed", [False, True], ids=["iterator", "manager"])
async def test_iterator_raises(where: str, managed: bool) -> None:
    """E1: __aiter__(), __anext__() or aclose() raises: that object, bare; the rest is closed."""
    record = Record()
    error = ValueError(where)
    iterator = Fails(record, where, error)
    with pytest.raises(ValueError, match=where) as caught:
        async with wrap(manager(record, iterator) if managed else iterator, ALL) as stream:
            async for _ in stream:
                pass
    assert caught.value is error
    if where != "iter":
        assert record.events.count("closed") == 1
    assert ("left" in record.events) == managed


async def test_iterable_and_iterator_are_both_closed() -> None:
    """G9: __aiter__() returns another object, and both have aclose(): the iterator's is first."""
    record = Record()

    class ClosableIterable(Iterable):
        async def aclose(self) -> None:
            record("iterable closed")

    async with wrap(ClosableIterable(Closable(record, 1)), ALL) as stream:
        assert await anext(stream) == 1
    assert record.events == [1, "closed", "iterable closed"]


async def test_iterable_is_closed_after_its_iterator_failed() -> None:
    """G9: the same when closing the iterator raises: the iterable is closed all the same."""
    record = Record()
    error = ValueError("close")

    class ClosableIterable(Iterable):
        async def aclose(self) -> None:
            record("iterable closed")

    with pytest.raises(ValueError, match="close") as caught:
        async with wrap(ClosableIterable(Fails(record, "close", error)), ALL) as stream:
            assert await anext(stream) == 1
    assert caught.value is error
    assert record.events == [1, "closed", "iterable closed"]


# Memory streams


async def test_memory_stream() -> None:
    """G1: a memory object stream: its items, and its end; closed by then."""
    send, receive = anyio.create_memory_object_stream[int](3)
    with send:
        for item in (1, 2, 3):
            send.send_nowait(item)
    async with wrap(receive, ALL) as stream:
        assert [item async for item in stream] == [1, 2, 3]
        with pytest.raises(anyio.ClosedResourceError):
            receive.receive_nowait()


async def test_memory_stream_and_a_token() -> None:
    """C32: a token fires in the wait for a memory stream: the item that comes next is not lost."""
    send, receive = anyio.create_memory_object_stream[int](1)
    token = CancelToken()
    with send, receive.clone() as other:
        async with wrap(receive, ALL, token=token) as stream:
            async with anyio.create_task_group() as group:
                group.start_soon(call_when_blocked, token.cancel, "stop")
                with pytest.raises(StreamCancelled):
                    await anext(stream)
            send.send_nowait(1)
            assert other.receive_nowait() == 1


async def test_memory_stream_left_early() -> None:
    """G2: the consumer leaves a memory stream early: its sender learns that nobody receives."""
    send, receive = anyio.create_memory_object_stream[int](1)
    with send:
        async with wrap(receive, ALL) as stream:
            send.send_nowait(1)
            assert await anext(stream) == 1
        with pytest.raises(anyio.BrokenResourceError):
            send.send_nowait(2)


# Context managers


@pytest.mark.parametrize("scope", [anyio.CancelScope, anyio.create_task_group])
@pytest.mark.parametrize("end", ["end", "break", "token", "late token"])
async def test_manager_that_holds_a_scope(scope: Callable[[], Any], end: str) -> None:
    """G16: the manager enters a scope or a task group: entered and left in one task, in order."""
    log: list[str] = []
    token = CancelToken()

    @asynccontextmanager
    async def held() -> AsyncIterator[AsyncIterable[int]]:
        if scope is anyio.CancelScope:
            with anyio.CancelScope():
                yield numbers()
            return
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            try:
                yield numbers()
            finally:
                group.cancel_scope.cancel()

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("child")

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            if end == "late token":
                await anyio.sleep_forever()
            yield 2
        except BaseException as exc:
            log.append(type(exc).__name__)
            raise

    stream = wrap(held(), ALL, token=token)
    async with stream:
        assert await anext(stream) == 1
        await wait_all_blocked()
        if end == "end":
            assert [item async for item in stream] == [2]
        elif end != "break":
            token.cancel("stop")
            with pytest.raises(StreamCancelled):
                while True:
                    await anext(stream)
    inside = {"end": [], "break": ["GeneratorExit"]}.get(end, ["StreamCancelled"])
    children = ["child"] if scope is anyio.create_task_group else []
    # A blocked source and its child are woken together, in either order.
    assert sorted(log) == sorted([*inside, *children])
    assert stream.outcome.cleanup_error is None


async def test_source_of_a_manager_holds_a_task_group() -> None:
    """E5: the generator of a manager holds a task group across its yield: a clean close."""
    log: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("child")

    async def numbers() -> AsyncGenerator[int, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            yield 1

    @asynccontextmanager
    async def held() -> AsyncIterator[AsyncIterable[int]]:
        yield numbers()
        raise AssertionError("must be left with an exception")

    async with wrap(held(), ALL) as stream:
        assert await anext(stream) == 1
        await wait_all_blocked()
    assert log == ["child"]
    assert stream.outcome.kind == "closed"
    assert stream.outcome.cleanup_error is None


class Delegating:
    """An async iterator that is no generator, around one."""

    def __init__(self, inner: AsyncGenerator[int, None]) -> None:
        self.inner = inner

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        return await anext(self.inner)

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.parametrize("managed", [False, True], ids=["iterator", "manager"])
async def test_iterator_holds_a_scope(managed: bool) -> None:
    """G16: an iterator that is no generator holds a scope between its items: it unwinds in order.

    So nothing may be entered on top of that scope in order to close the iterator.
    """
    log: list[str] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            with anyio.CancelScope():
                yield 1
                raise AssertionError("must not be resumed")
        finally:
            log.append("closed")

    @asynccontextmanager
    async def held() -> AsyncIterator[AsyncIterable[int]]:
        yield Delegating(numbers())

    async with wrap(held() if managed else Delegating(numbers()), ALL) as stream:
        assert await anext(stream) == 1
    assert log == ["closed"]
    assert stream.outcome.cleanup_error is None


@pytest.mark.parametrize("where", ["enter", "exit"])
async def test_manager_raises(where: str) -> None:
    """E1: entering or leaving the manager raises: that object, bare, after the items."""
    error = ValueError(where)
    record = Record()

    @asynccontextmanager
    async def failing() -> AsyncIterator[AsyncIterable[int]]:
        if where == "enter":
            raise error
        yield generator(record, 1)
        raise error

    items: list[int] = []
    with pytest.raises(ValueError, match=where) as caught:
        async with wrap(failing(), ALL) as stream:
            async for item in stream:
                items.append(item)
    assert caught.value is error
    assert items == ([] if where == "enter" else [1])
    assert record.events == ([] if where == "enter" else [1, "closed"])
    assert stream.outcome.kind == "failed"


async def test_manager_of_an_iterator_that_is_slow_to_close() -> None:
    """G10: the iterator of a manager has the grace of the stream to close, and no more."""
    record = Record()

    class Slow(Closable):
        async def aclose(self) -> None:
            record("closing")
            await anyio.sleep(100)

    stream = with_cancellation(manager(record, Slow(record, 1, block=True)), grace=2)
    with anyio.move_on_after(1):
        async with stream:
            async for _ in stream:
                pass
    assert anyio.current_time() == START + 3
    assert record[:4] == [(0, "entered"), (0, 1), (1, Left()), (1, "closing")]
    assert record[-1] == (3, "left")


async def test_manager_swallows_the_cancellation() -> None:
    """C24: the manager handles StreamCancelled, as it may: a normal end, and still cancelled."""
    record = Record()
    token = CancelToken()

    @asynccontextmanager
    async def swallowing() -> AsyncIterator[AsyncIterable[int]]:
        try:
            yield generator(record, 1, block=True)
        except StreamCancelled as exc:
            record(f"manager: {exc.reason}")

    async with wrap(swallowing(), ALL, token=token) as stream:
        assert await anext(stream) == 1
        async with anyio.create_task_group() as group:
            group.start_soon(call_when_blocked, token.cancel, "stop")
            assert [item async for item in stream] == []
    assert record.events == [1, "stop", "closed", "manager: stop"]
    assert stream.outcome.kind == "cancelled"


async def test_iterable_that_is_a_manager_too() -> None:
    """N6: what is both an iterable and a context manager is entered and left: some insist on it."""
    record = Record()

    class Both(Closable):
        async def __aenter__(self) -> Self:
            record("entered")
            return self

        async def __aexit__(self, *args: object) -> None:
            record("left")

    async with wrap(Both(record, 1), ALL) as stream:
        assert [item async for item in stream] == [1]
    assert record.events == ["entered", 1, "closed", "left"]


# Streams


async def test_stream_of_a_manager() -> None:
    """G9: a manager that yields a stream, which it enters: each closes its own source."""
    record = Record()
    inner = wrap(generator(record, 1, 2), ALL)

    @asynccontextmanager
    async def opening() -> AsyncIterator[AsyncIterable[int]]:
        async with inner:
            yield inner
        record("left")

    async with wrap(opening(), ALL) as stream:
        assert [item async for item in stream] == [1, 2]
    assert record.events == [1, 2, "closed", "left"]
    assert inner.outcome.kind == stream.outcome.kind == "completed"


async def test_stream_keeps_the_kind_of_the_last_combinator() -> None:
    """R10: a stream as a source gives its stages to the new one, which has what that one offers."""
    record = Record()
    stream = with_status(with_keepalive(with_status(generator(record, 1)), 1000.0, "beat"))
    async with stream:
        assert (await stream.head()).decided_by == "item"
        assert [item async for item in stream] == [1]
    assert isinstance(stream, Stream)
    assert len(record.tasks) == 1
