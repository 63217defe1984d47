"""No generator is left behind: all that a source has begun is closed with it (scenarios Y)."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import aiostream
import anyio
import anyio.lowlevel
import asyncstdlib
import httpx
import pytest
import trio

from streamkit import (
    CancelToken,
    Stage,
    Stream,
    StreamCancelled,
    current_cancellation,
    with_buffer,
    with_cancellation,
    with_stage,
    with_status,
    with_timeout,
)
from streamkit._core.closing import add_context, close_each
from streamkit._core.exceptions import was_cancelled_before
from streamkit._core.generators import Generators, _begun_by
from streamkit._core.unwinding import close_all
from support import Backend, Log, PlainSource, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator

where: ContextVar[object] = ContextVar("where", default="nowhere")


class Notes(list[Any]):
    """What happened, and in which tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: set[int] = set()

    def __call__(self, *event: object) -> None:
        self.tasks.add(anyio.get_current_task().id)
        self.append(event if len(event) > 1 else event[0])

    def forget(self) -> None:
        self.clear()
        self.tasks.clear()

    def closed(self) -> list[Any]:
        return [event[1] for event in self if type(event) is tuple and event[0] == "closed"]

    def seen(self) -> list[Any]:
        return [event[1:] for event in self if type(event) is tuple and event[0] == "seen"]


@contextmanager
def noting(notes: Notes, name: object) -> Iterator[None]:
    """Note what a generator sees, around a context variable that is set and reset."""
    notes("begun", name)
    token = where.set(name)
    try:
        yield
    except BaseException as exc:
        notes("seen", name, kind(exc))
        raise
    finally:
        where.reset(token)


def kind(exc: BaseException) -> str:
    """Name an exception, in the same way on each backend."""
    if any(isinstance(leaf, StreamCancelled) for leaf in leaves(exc)):
        return "told"
    if isinstance(exc, anyio.get_cancelled_exc_class()):
        return "cancelled"
    return type(exc).__name__


def leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [exc]


async def save(notes: Notes, name: object) -> None:
    """Clean up, which takes its time, and is shielded where it would not be by the grace."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(0.1)
    notes("closed", name)


async def layer(
    depth: int, notes: Notes, *, last: int = 100, block: bool = False
) -> AsyncGenerator[int, None]:
    """Yield numbers through so many plain generators, 0 being the innermost."""
    try:
        with noting(notes, depth):
            if depth:
                async for item in layer(depth - 1, notes, last=last, block=block):
                    yield item
            else:
                for number in range(last):
                    await anyio.lowlevel.checkpoint()
                    yield number
                if block:
                    await anyio.sleep_forever()
    finally:
        await save(notes, depth)


async def shared(notes: Notes) -> AsyncGenerator[int, None]:
    """Yield numbers, in whatever task."""
    try:
        for number in range(100):
            yield number
    finally:
        await save(notes, 0)


class Left(Exception):
    pass


async def by_break(stream: Stream[Any], token: CancelToken) -> None:
    async with stream:
        async for item in stream:
            if item == 2:
                break


async def by_error(stream: Stream[Any], token: CancelToken) -> None:
    with pytest.raises(Left):
        async with stream:
            async for item in stream:
                if item == 2:
                    raise Left


async def by_aclose(stream: Stream[Any], token: CancelToken) -> None:
    async with stream:
        async for item in stream:
            if item == 2:
                await stream.aclose()
                break


async def by_scope(stream: Stream[Any], token: CancelToken) -> None:
    with anyio.CancelScope() as scope:
        async with stream:
            async for item in stream:
                if item == 2:
                    scope.cancel()
                    await anyio.sleep_forever()


async def by_token(stream: Stream[Any], token: CancelToken) -> None:
    with pytest.raises(StreamCancelled, match="stop"):
        async with stream:
            async for item in stream:
                if item == 2:
                    token.cancel("stop")
                    # It is told while the consumer is busy, at its yield.
                    await wait_all_blocked()


async def by_token_while_blocked(stream: Stream[Any], token: CancelToken) -> None:
    with pytest.raises(StreamCancelled, match="stop"):
        async with stream, anyio.create_task_group() as group:

            async def stop() -> None:
                await anyio.sleep(1)
                token.cancel("stop")

            group.start_soon(stop)
            try:
                async for _ in stream:
                    pass
            except StreamCancelled as exc:
                stopped = exc
            else:
                raise AssertionError("the stream must not end")
        raise stopped


async def by_scope_while_blocked(stream: Stream[Any], token: CancelToken) -> None:
    with anyio.move_on_after(1):
        async with stream:
            async for _ in stream:
                pass


async def by_the_end(stream: Stream[Any], token: CancelToken) -> None:
    async with stream:
        async for _ in stream:
            pass


Way = Callable[[Stream[Any], CancelToken], Any]
LEAVING: list[Way] = [by_break, by_error, by_aclose, by_scope]
AT_A_YIELD: list[Way] = [*LEAVING, by_token]
any_way = pytest.mark.parametrize("way", AT_A_YIELD, ids=lambda way: way.__name__)


def told_by(way: Way) -> str:
    return "told" if way is by_token else "GeneratorExit"


# Y1: plain generators inside each other


class TestDeep:
    @any_way
    @pytest.mark.parametrize("depth", range(1, 11))
    async def test_at_a_yield(self, way: Way, depth: int) -> None:
        """Y1: plain generators, closed at a yield: the innermost first, in task and context."""
        notes, token = Notes(), CancelToken()
        await way(with_cancellation(layer(depth - 1, notes), token), token)
        assert notes.closed() == list(range(depth))
        # Each has reset what it had set, before the one around it did.
        assert notes.seen() == [(number, told_by(way)) for number in range(depth)]
        assert len(notes.tasks) == 1

    @pytest.mark.parametrize("way", [by_token_while_blocked, by_scope_while_blocked])
    @pytest.mark.parametrize("depth", [1, 2, 10])
    async def test_blocked(self, way: Way, depth: int) -> None:
        """Y1: the same, where the innermost one is blocked."""
        notes, token = Notes(), CancelToken()
        source = layer(depth - 1, notes, last=3, block=True)
        await way(with_cancellation(source, token), token)
        assert notes.closed() == list(range(depth))
        assert len(notes.tasks) == 1

    @any_way
    async def test_within_one_grace(self, way: Way) -> None:
        """Y1: the clean-up of all together has one grace, and each is closed in any case."""
        notes, token, log = Notes(), CancelToken(), Log()

        async def slow(depth: int) -> AsyncGenerator[int, None]:
            try:
                if depth:
                    async for item in slow(depth - 1):
                        yield item
                else:
                    for number in range(10):
                        yield number
            finally:
                try:
                    await anyio.sleep(2)
                    log(f"{depth} saved")
                finally:
                    notes("closed", depth)

        log.start()
        stream = with_cancellation(slow(4), token, grace=5)
        await way(stream, token)
        assert log == [(2, "0 saved"), (4, "1 saved")]
        assert anyio.current_time() == pytest.approx(log._start + 5)  # type: ignore[operator]
        assert notes.closed() == [0, 1, 2, 3, 4]
        assert stream.outcome.grace_exceeded
        assert stream.outcome.cleanup_error is None

    async def test_read_ahead(self) -> None:
        """Y1: the same in a stream that reads ahead."""
        notes = Notes()
        async with with_buffer(layer(3, notes), 4) as stream:
            await anext(stream)
            await wait_all_blocked()
        assert notes.closed() == [0, 1, 2, 3]
        assert len(notes.tasks) == 1

    async def test_limit_of_time(self) -> None:
        """C22: a limit of time tells the innermost first, too."""
        notes = Notes()
        with pytest.raises(TimeoutError):
            async with with_timeout(layer(2, notes), total=1) as stream:
                async for _ in stream:
                    await anyio.sleep(0.4)
        assert notes.seen() == [(0, "told"), (1, "told"), (2, "told")]

    async def test_the_way_of_what_is_told(self) -> None:
        """C22: told at a yield: what leaves a generator is raised in the one around it."""
        token, seen = CancelToken(), []

        async def raises_another() -> AsyncGenerator[int, None]:
            try:
                yield 1
                yield 2
            except StreamCancelled as stop:
                seen.append(stop.reason)
                raise ValueError("another") from None

        async def passes_on() -> AsyncGenerator[int, None]:
            try:
                async for item in raises_another():
                    yield item
            except ValueError as exc:
                seen.append(str(exc))
                raise

        async def handles() -> AsyncGenerator[object, None]:
            try:
                async for item in passes_on():
                    yield item
            except ValueError as exc:
                seen.append(str(exc))
                yield f"last, after {exc}, of {current_cancellation()}"

        async with with_cancellation(handles(), token) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            assert [item async for item in stream] == [2, "last, after another, of stop"]
        assert seen == ["stop", "another", "another"]
        assert stream.outcome.kind == "cancelled"

    @pytest.mark.parametrize("how", ["returns", "yields"])
    async def test_an_inner_one_handles_it(self, how: str) -> None:
        """C22: an inner one handles what it is told: the one around it is told all the same."""
        token, notes = CancelToken(), Notes()

        async def inner() -> AsyncGenerator[int, None]:
            try:
                yield 1
                yield 2
            except StreamCancelled:
                notes("inner")
                if how == "yields":
                    yield 3
            finally:
                notes("closed", "inner")

        async def outer() -> AsyncGenerator[int, None]:
            try:
                async for item in inner():
                    yield item
            except StreamCancelled as stop:
                notes("outer", stop.reason)
                raise

        with pytest.raises(StreamCancelled, match="stop"):
            async with with_cancellation(outer(), token) as stream:
                async for _ in stream:
                    token.cancel("stop")
        assert notes == ["inner", ("closed", "inner"), ("outer", "stop")]

    async def test_loops_in_each_other(self) -> None:
        """Y1: two loops in one generator: the inner one first, then the outer, then itself."""
        notes = Notes()

        async def named(name: str) -> AsyncGenerator[int, None]:
            try:
                with noting(notes, name):
                    for number in range(1, 10):
                        yield number
            finally:
                await save(notes, name)

        async def source() -> AsyncGenerator[int, None]:
            try:
                with noting(notes, "source"):
                    async for one in named("outer loop"):
                        async for two in named("inner loop"):
                            yield one * two
            finally:
                await save(notes, "source")

        for way in AT_A_YIELD:
            notes.forget()
            token = CancelToken()
            await way(with_cancellation(source(), token), token)
            assert notes.closed() == ["inner loop", "outer loop", "source"]
            told = told_by(way)
            assert notes.seen() == [
                ("inner loop", told),
                ("outer loop", "GeneratorExit"),
                ("source", told),
            ]

    async def test_names_of_its_own(self) -> None:
        """Y1: what a generator iterates is in its locals as well, and locals() was called."""
        notes = Notes()

        async def source() -> AsyncGenerator[int, None]:
            items = again = layer(1, notes)
            everything = locals()
            assert everything["items"] is again
            async for item in items:
                yield item

        await by_break(with_cancellation(source()), CancelToken())
        assert notes.closed() == [0, 1]
        assert len(notes.tasks) == 1

    async def test_not_iterated_at_the_moment(self) -> None:
        """Y1: a generator that is only a local may still be of use in a clean-up: closed after."""
        notes = Notes()

        async def source() -> AsyncGenerator[int, None]:
            other = shared(notes)
            assert await anext(other) == 0
            try:
                async for item in layer(0, notes):
                    yield item
            finally:
                notes(f"still usable: {await anext(other)}")

        await by_break(with_cancellation(source()), CancelToken())
        assert notes[-3:] == [("closed", 0), "still usable: 1", ("closed", 0)]
        assert len(notes.tasks) == 1


# Y2: scopes


@contextmanager
def under_asyncio_timeout() -> Iterator[None]:
    yield


@asynccontextmanager
async def group_with_child() -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def scope() -> AsyncIterator[None]:
    with anyio.CancelScope():
        yield


@asynccontextmanager
async def timeout() -> AsyncIterator[None]:
    with anyio.fail_after(100):
        yield


@asynccontextmanager
async def empty_group() -> AsyncIterator[None]:
    async with anyio.create_task_group():
        yield


@asynccontextmanager
async def native_timeout() -> AsyncIterator[None]:
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        async with asyncio.timeout(100):
            yield
    else:
        with trio.fail_after(100):
            yield


@asynccontextmanager
async def native_group() -> AsyncIterator[None]:
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        async with asyncio.TaskGroup():
            yield
    else:
        async with trio.open_nursery():
            yield


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


HELD = [scope, timeout, empty_group, group_with_child, native_timeout, native_group]
any_held = pytest.mark.parametrize("held", HELD, ids=lambda held: held.__name__)


class TestScopes:
    @any_way
    @any_held
    @pytest.mark.parametrize("around", [True, False], ids=["around and inside", "inside"])
    async def test_unwound_in_order(self, way: Way, held: Any, around: bool) -> None:
        """Y2: scopes around each loop and around the innermost yield: unwound in order."""
        notes, token = Notes(), CancelToken()

        async def source(depth: int) -> AsyncGenerator[int, None]:
            try:
                async with held() if around or not depth else nothing():
                    if depth:
                        async for item in source(depth - 1):
                            yield item
                    else:
                        for number in range(10):
                            yield number
            finally:
                await save(notes, depth)

        stream = with_cancellation(source(3), token)
        await way(stream, token)
        assert notes.closed() == [0, 1, 2, 3]
        assert len(notes.tasks) == 1
        assert stream.outcome.kind == ("cancelled" if way is by_token else "closed")
        assert stream.outcome.cleanup_error is None

    @any_way
    @any_held
    async def test_body_holds_a_context(self, way: Way, held: Any) -> None:
        """Y2: the body of a loop holds a context: it is left before what the loop iterates."""
        notes, token = Notes(), CancelToken()

        async def inner() -> AsyncGenerator[int, None]:
            try:
                async with held():
                    for number in range(10):
                        yield number
            finally:
                await save(notes, "inner")

        async def source() -> AsyncGenerator[int, None]:
            async for item in inner():
                async with held():
                    try:
                        yield item
                    finally:
                        if item == 2:
                            await save(notes, "body")

        stream = with_cancellation(source(), token)
        await way(stream, token)
        assert notes.closed() == ["body", "inner"]
        assert len(notes.tasks) == 1
        assert stream.outcome.cleanup_error is None

    @any_way
    async def test_context_between_two_loops(self, way: Way) -> None:
        """Y2: a context between two loops: the inner loop, the body with it, the outer loop."""
        notes, token = Notes(), CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            async for _ in layer(0, notes):
                with noting(notes, "body"):
                    async for item in layer(1, notes):
                        yield item

        await way(with_cancellation(source(), token), token)
        seen = [name for name, _ in notes.seen()]
        assert seen == [0, 1, "body", 0]
        assert notes.closed() == [0, 1, 0]

    @pytest.mark.parametrize("inside", [nothing, group_with_child])
    @pytest.mark.parametrize("seconds", [None, 0.1, 100])
    async def test_a_group_around_the_loop_does_not_hide_the_end(
        self, inside: Any, seconds: float | None
    ) -> None:
        """Y2: a group around the loop, whose cancelled child cuts the clean-up: no clean end."""
        token, seen = CancelToken(), []

        async def inner() -> AsyncGenerator[int, None]:
            try:
                async with inside():
                    for number in range(10):
                        yield number
            finally:
                if seconds is not None:
                    await anyio.sleep(seconds)

        async def source() -> AsyncGenerator[int, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                try:
                    async for item in inner():
                        yield item
                except BaseException as exc:
                    # On trio, a nursery inside makes a group of it.
                    seen.append(kind(exc))
                    raise

        async with with_cancellation(source(), token, grace=1) as stream:
            assert await anext(stream) == 0
            token.cancel("stop")
            assert await anext(stream) == 1
            with pytest.raises(StreamCancelled, match="stop"):
                await anext(stream)
        assert seen == ["told"]

    async def test_what_is_told_is_not_taken_for_a_group_s_own(self) -> None:
        """Y2: what is told leaves a generator with a cancellation as its context: no clean end."""
        token = CancelToken()

        async def inner() -> AsyncGenerator[int, None]:
            try:
                for number in range(10):
                    yield number
            except StreamCancelled as stop:
                caught: list[BaseException] = []
                with anyio.CancelScope() as cancelled:
                    cancelled.cancel()
                    try:
                        await anyio.sleep(1)
                    except anyio.get_cancelled_exc_class() as exc:
                        caught.append(exc)
                        raise
                try:
                    raise caught.pop()
                except anyio.get_cancelled_exc_class():
                    raise stop

        async def source() -> AsyncGenerator[int, None]:
            async with anyio.create_task_group():
                async for item in inner():
                    yield item

        async with with_cancellation(source(), token) as stream:
            assert await anext(stream) == 0
            token.cancel("stop")
            assert await anext(stream) == 1
            with pytest.raises(StreamCancelled, match="stop"):
                await anext(stream)

    async def test_told_in_a_body_that_holds_a_context(self) -> None:
        """C22: what is left on the way is closed before the one around it is told."""
        notes, token = Notes(), CancelToken()

        async def numbers() -> AsyncGenerator[int, None]:
            with noting(notes, "numbers"):
                for number in range(10):
                    yield number

        async def middle() -> AsyncGenerator[int, None]:
            async for item in numbers():
                with noting(notes, "body"):
                    yield item

        async def source() -> AsyncGenerator[int, None]:
            with noting(notes, "source"):
                async for item in middle():
                    yield item

        await by_token(with_cancellation(source(), token), token)
        assert notes.seen() == [
            ("body", "told"),
            ("numbers", "GeneratorExit"),
            ("source", "told"),
        ]


# Y3: resources


class TestResources:
    @any_way
    async def test_in_any_frame(self, way: Way) -> None:
        """Y3: context managers in each frame: each left by its frame, once, with the exception."""
        notes, token = Notes(), CancelToken()

        @asynccontextmanager
        async def resource(name: object) -> AsyncIterator[None]:
            try:
                with noting(notes, name):
                    yield
            finally:
                await save(notes, name)

        async def source(depth: int) -> AsyncGenerator[int, None]:
            async with resource(depth):
                if depth:
                    async for item in source(depth - 1):
                        yield item
                else:
                    for number in range(10):
                        yield number

        await way(with_cancellation(source(3), token), token)
        assert notes.closed() == [0, 1, 2, 3]
        assert notes.seen() == [(number, told_by(way)) for number in range(4)]
        assert len(notes.tasks) == 1

    @any_way
    async def test_source_is_a_context_manager(self, way: Way) -> None:
        """Y3: what a context manager yields has generators inside: closed before it is left."""
        notes, token = Notes(), CancelToken()

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterator[int]]:
            try:
                yield layer(2, notes)
            finally:
                await save(notes, "manager")

        await way(with_cancellation(source(), token), token)
        assert notes.closed() == [0, 1, 2, "manager"]
        assert notes.seen() == [(number, told_by(way)) for number in range(3)]
        assert len(notes.tasks) == 1

    async def test_left_open(self) -> None:
        """Y3: a resource that was never left is closed at the end, as one that was abandoned."""
        notes = Notes()

        @asynccontextmanager
        async def resource() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await save(notes, "resource")

        async def source() -> AsyncGenerator[int, None]:
            kept = resource()
            await kept.__aenter__()
            async for item in layer(0, notes):
                yield item

        await by_break(with_cancellation(source()), CancelToken())
        assert notes.closed() == [0, "resource"]
        assert len(notes.tasks) == 1


# Y4: what is somebody else's


class TestSomebodyElse:
    @any_way
    async def test_held(self, way: Way) -> None:
        """Y4: somebody else holds an inner generator: untouched, and still usable."""
        notes, token = Notes(), CancelToken()
        kept: list[AsyncGenerator[int, None]] = []

        async def source() -> AsyncGenerator[int, None]:
            kept.append(shared(notes))
            async for item in kept[0]:
                yield item

        await way(with_cancellation(source(), token), token)
        assert notes.closed() == []
        assert await anext(kept[0]) == (4 if way is by_token else 3)
        await kept[0].aclose()

    async def test_held_by_something_it_shares(self) -> None:
        """Y4: an object that somebody else holds has it as an attribute: the same."""
        notes = Notes()

        class Holder:
            items: Any = None

        holder = Holder()

        async def source() -> AsyncGenerator[int, None]:
            mine = holder
            mine.items = shared(notes)
            async for item in mine.items:
                yield item

        await by_break(with_cancellation(source()), CancelToken())
        assert notes.closed() == []
        assert await anext(holder.items) == 3
        await holder.items.aclose()

    async def test_held_by_a_closure(self) -> None:
        """Y4: a function that somebody else holds uses it: the same."""
        notes = Notes()
        functions: list[Callable[[], Any]] = []

        async def source() -> AsyncGenerator[int, None]:
            items = shared(notes)
            functions.append(lambda: items)
            async for item in items:
                yield item

        await by_break(with_cancellation(source()), CancelToken())
        assert await anext(functions[0]()) == 3
        await functions[0]().aclose()

    async def test_handed_over(self) -> None:
        """Y4: the source yields a generator that it has begun: it is the consumer's."""
        notes = Notes()

        async def source() -> AsyncGenerator[AsyncGenerator[int, None], None]:
            items = shared(notes)
            assert await anext(items) == 0
            yield items

        async with with_cancellation(source()) as stream:
            items = await anext(stream)
        assert await anext(items) == 1
        await items.aclose()

    async def test_begun_before(self) -> None:
        """Y4: begun before the stream: untouched, even where nobody else holds it by then."""
        notes = Notes()
        begun: list[AsyncGenerator[int, None]] = [shared(notes)]
        assert await anext(begun[0]) == 0

        async def source() -> AsyncGenerator[int, None]:
            async for item in begun.pop():
                yield item

        backup = begun[0]
        async with with_cancellation(source()) as stream:
            assert await anext(stream) == 1
        assert notes.closed() == []
        assert await anext(backup) == 2
        await backup.aclose()

    async def test_in_another_stream(self) -> None:
        """Y4: a stream in the source has generators of its own: closed by that, in its task."""
        outer, inner = Notes(), Notes()

        async def source() -> AsyncGenerator[int, None]:
            try:
                async with with_cancellation(layer(2, inner)) as stream:
                    async for item in stream:
                        yield item
            finally:
                await save(outer, "source")

        async def around() -> AsyncGenerator[int, None]:
            try:
                async for item in source():
                    yield item
            finally:
                await save(outer, "around")

        await by_break(with_cancellation(around()), CancelToken())
        assert inner.closed() == [0, 1, 2]
        assert outer.closed() == ["source", "around"]
        assert len(inner.tasks) == len(outer.tasks) == 1
        assert inner.tasks != outer.tasks

    async def test_running_task(self) -> None:
        """Y4: a child task that still runs has begun it and abandons it: the event loop's."""
        notes, child = Notes(), Notes()
        go_on = anyio.Event()
        items = shared(child)

        async def abandons() -> None:
            assert await anext(items) == 0
            await go_on.wait()
            assert await anext(items) == 1
            await items.aclose()

        async def source(group: Any) -> AsyncGenerator[int, None]:
            group.start_soon(abandons)
            await wait_all_blocked()
            async for item in shared(notes):
                yield item

        async with anyio.create_task_group() as group:
            await by_break(with_cancellation(source(group)), CancelToken())
            assert notes.closed() == [0]
            assert child.closed() == []
            go_on.set()
        assert child.closed() == [0]
        assert child.tasks.isdisjoint(notes.tasks)

    @pytest.mark.allow_gc_generators
    async def test_begun_by_a_task_that_still_runs(self) -> None:
        """Y4: a child task that still runs has begun what the source iterates: the event loop's."""
        notes, begun = Notes(), []

        async def child() -> None:
            begun.append(shared(notes))
            assert await anext(begun[0]) == 0
            await anyio.sleep(10)

        async def source(group: Any) -> AsyncGenerator[int, None]:
            group.start_soon(child)
            await wait_all_blocked()
            async for item in begun.pop():
                yield item

        async with anyio.create_task_group() as group:
            async with with_cancellation(source(group)) as stream:
                assert await anext(stream) == 1
            assert notes.closed() == []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                await anyio.sleep(1)
            assert notes.closed() == [0]

    async def test_suspended_in_the_middle_of_a_step(self) -> None:
        """Y4: one whose step was dropped is running for ever: no error, and the event loop's."""
        finalized: list[Any] = []
        before = sys.get_asyncgen_hooks()

        async def hangs() -> AsyncGenerator[int, None]:
            await Suspends()
            yield 1

        async def source() -> AsyncGenerator[int, None]:
            items = hangs()
            step = items.__anext__()
            step.send(None)
            del step, items
            yield 1
            yield 2

        sys.set_asyncgen_hooks(before.firstiter, finalized.append)
        try:
            async with with_cancellation(source()) as stream:
                assert await anext(stream) == 1
        finally:
            sys.set_asyncgen_hooks(*before)
        assert [generator.__name__ for generator in finalized] == ["hangs"]

    async def test_the_source_itself(self) -> None:
        """Y4: the source itself is looked after by its stream, and no record outlives that."""
        generators = Generators(anyio.get_current_task)
        source, other = shared(Notes()), shared(Notes())
        generators.start(source, source)
        await anext(source)
        assert not generators.are_left
        await anext(other)
        assert generators.are_left
        assert _begun_by[id(other)] is generators
        generators.end()
        assert not generators.are_left
        assert id(other) not in _begun_by
        # What has ended may leave its address to one that is begun by nobody's source.
        third = shared(Notes())
        _begun_by[id(third)] = generators
        await anext(third)
        assert id(third) not in _begun_by
        await third.aclose()
        await source.aclose()
        await other.aclose()

    async def test_a_child_task_closes_a_stream_that_was_never_entered(self) -> None:
        """Y4: what the source has abandoned is not closed by a child task that closes something."""
        notes, other = Notes(), Notes()

        async def source() -> AsyncGenerator[int, None]:
            async for _ in layer(0, notes):
                break
            async with anyio.create_task_group() as group:
                group.start_soon(with_cancellation(layer(0, other)).aclose)
            assert notes.closed() == []
            yield 1
            yield 2

        async with with_cancellation(source()) as stream:
            async for _ in stream:
                pass
        assert notes.closed() == [0]
        assert len(notes.tasks) == 1

    @pytest.mark.parametrize("kept", [True, False])
    async def test_begun_by_a_task_that_has_ended(self, kept: bool) -> None:
        """Y4: a child task has begun it, and has ended: closed with the source."""
        notes = Notes()
        tasks: list[object] = []

        class Steps:
            """Steps a generator in a task of its own for each item, as langchain does."""

            def __init__(self) -> None:
                self.items = shared(notes)

            def __aiter__(self) -> Steps:
                return self

            async def __anext__(self) -> int:
                result: list[int] = []

                async def step() -> None:
                    if kept:
                        tasks.append(current_native_task() or trio.lowlevel.current_task())
                    result.append(await anext(self.items))

                async with anyio.create_task_group() as group:
                    group.start_soon(step)
                return result[0]

        async def source() -> AsyncGenerator[int, None]:
            async for item in Steps():
                yield item

        await by_break(with_cancellation(source()), CancelToken())
        assert notes.closed() == [0]


# Y5: abandoned in the middle


class TestAbandoned:
    async def test_before_the_next_item(self) -> None:
        """Y5: the source leaves a loop by break: closed in its task before it goes on."""
        notes = Notes()

        async def source() -> AsyncGenerator[object, None]:
            with noting(notes, "source"):
                async for item in layer(1, notes):
                    if item == 1:
                        break
                    yield item
                yield "after the loop"
                notes("goes on")
                yield "end"

        async with with_cancellation(source()) as stream:
            assert await anext(stream) == 0
            assert await anext(stream) == "after the loop"
            await wait_all_blocked()
            await anyio.sleep(1)
            # Without an ask.
            assert notes.closed() == [0, 1]
            assert await anext(stream) == "end"
        assert notes.index("goes on") > notes.index(("closed", 1))
        assert len(notes.tasks) == 1

    async def test_the_consumer_does_not_wait_for_it(self) -> None:
        """Y5: the item that follows is handed over first."""
        log = Log()

        async def inner() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await anyio.sleep(2)
                log("closed")

        async def source() -> AsyncGenerator[object, None]:
            async for _ in inner():
                break
            yield "item"
            log("goes on")
            yield "item"

        async with with_cancellation(source()) as stream:
            log.start()
            async for item in stream:
                log(item)
        assert log == [(0, "item"), (2, "closed"), (2, "goes on"), (2, "item")]

    async def test_at_its_end(self) -> None:
        """Y5: no item follows: closed before the consumer sees the end."""
        notes = Notes()

        async def source() -> AsyncGenerator[int, None]:
            yield 0
            async for _ in layer(1, notes):
                break

        async with with_cancellation(source()) as stream:
            assert [item async for item in stream] == [0]
            assert notes.closed() == [0, 1]
            assert stream.outcome.kind == "completed"
        assert len(notes.tasks) == 1

    @pytest.mark.parametrize("told", ["token", "consumer left", "native cancellation"])
    async def test_told_meanwhile(self, told: str) -> None:
        """Y5: the source is told while that is closed: as if it had closed it itself."""
        token, notes = CancelToken(), Notes()
        tasks: list[asyncio.Task[Any]] = []

        async def inner(name: str) -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                try:
                    await anyio.sleep(3)
                except BaseException as exc:
                    notes("seen", name, kind(exc))
                    raise
                finally:
                    notes("closed", name)

        async def source() -> AsyncGenerator[object, None]:
            if isinstance(task := current_native_task(), asyncio.Task):
                tasks.append(task)
            try:
                async for _ in inner("first"):
                    break
                async for _ in inner("second"):
                    break
                yield "item"
                yield "another"
            except BaseException as exc:
                notes("seen", "source", kind(exc))
                raise

        if told == "native cancellation" and current_native_task() is None:
            return
        stream = with_cancellation(source(), token)
        outcome: Any = None
        try:
            async with stream:
                assert await anext(stream) == "item"
                await anyio.sleep(1)
                if told == "token":
                    token.cancel("stop")
                    await anyio.sleep(1)
                    await anext(stream)
                elif told == "native cancellation":
                    tasks[0].cancel()
                    await anyio.sleep(1)
                    await anext(stream)
        except BaseException as exc:
            outcome = kind(exc)
        assert set(notes.closed()) == {"first", "second"}
        assert len(notes.tasks) == 1
        if told == "token":
            assert outcome == "told"
            assert notes.seen() == [("first", "told"), ("source", "told")]
        elif told == "native cancellation":
            assert notes.seen()[0] == ("first", "cancelled")
            assert ("source", "cancelled") in notes.seen()
        else:
            assert outcome is None
            assert ("source", "GeneratorExit") in notes.seen()

    async def test_errors_wait_for_the_end(self) -> None:
        """Y5: closing it raises: the stream goes on, and the error is raised where it ends."""

        async def inner() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                raise ValueError("not closed")

        async def source() -> AsyncGenerator[int, None]:
            async for _ in inner():
                break
            yield 1
            yield 2

        with pytest.raises(ValueError, match="not closed") as caught:
            async with with_cancellation(source()) as stream:
                assert [item async for item in stream] == [1, 2]
        assert stream.outcome.kind == "completed"
        assert stream.outcome.cleanup_error is caught.value

    async def test_many(self) -> None:
        """Y5: one after the other is left, again and again: each is closed, once."""
        notes = Notes()

        async def source() -> AsyncGenerator[int, None]:
            for number in range(50):
                async for item in layer(1, notes):
                    if item == 1:
                        break
                yield number

        async with with_cancellation(source()) as stream:
            assert [item async for item in stream] == list(range(50))
        assert notes.closed() == [0, 1] * 50
        assert len(notes.tasks) == 1

    @any_way
    async def test_the_source_raises_in_the_body_of_a_loop(self, way: Way) -> None:
        """Y5: the source raises in the body of a loop, with what it iterates in a local."""
        notes = Notes()

        async def source() -> AsyncGenerator[int, None]:
            items = layer(2, notes)
            async for item in items:
                yield item
                if item == 1:
                    raise KeyError(item)

        with pytest.raises(KeyError) as caught:
            async with with_cancellation(source()) as stream:
                async for _ in stream:
                    pass
        assert caught.value.args == (1,)
        # It was closed as what its frame still held, when the error was there already.
        assert notes.closed() == [0, 1, 2]
        assert len(notes.tasks) == 1

    @pytest.mark.parametrize("how", ["group", "cause", "context"])
    async def test_frames_of_what_an_error_holds(self, how: str) -> None:
        """Y5: what raised is in a group, or the cause or the context of another error: the same."""
        notes = Notes()

        async def failing() -> None:
            items = layer(0, notes)
            async for _ in items:
                raise KeyError

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            failed: list[KeyError] = []
            try:
                await failing()
            except KeyError as exc:
                if how == "context":
                    raise ValueError
                failed.append(exc)
            if how == "cause":
                raise ValueError from failed.pop()
            raise ExceptionGroup("several", [ValueError(), failed.pop()])

        with pytest.raises((ValueError, ExceptionGroup)):
            async with with_cancellation(source()) as stream:
                async for _ in stream:
                    pass
        assert notes.closed() == [0]
        assert len(notes.tasks) == 1

    async def test_told_at_an_await_in_the_body(self) -> None:
        """Y5: told at an await in the body of a loop: closed in the source's task as well."""
        notes, token = Notes(), CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            items = layer(1, notes)
            async for item in items:
                yield item
                if item == 2:
                    await anyio.sleep_forever()

        await by_token_while_blocked(with_cancellation(source(), token), token)
        assert notes.closed() == [0, 1]
        assert len(notes.tasks) == 1

    async def test_in_another_thread(self) -> None:
        """Y5: a collection in another thread finds it: passed on, for the source may be ending."""
        notes = Notes()

        async def source() -> AsyncGenerator[int, None]:
            items = [shared(notes)]
            async for _ in items[0]:
                break
            await anyio.to_thread.run_sync(items.clear)
            while not notes.closed():
                await anyio.sleep(0.01)
            yield anyio.get_current_task().id

        async with with_cancellation(source()) as stream:
            assert await anext(stream) not in notes.tasks
        assert notes.closed() == [0]

    test_in_another_thread = pytest.mark.real_time(
        pytest.mark.allow_gc_generators(test_in_another_thread)
    )


def current_native_task() -> asyncio.Task[Any] | None:
    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return None
    return asyncio.current_task()


class Suspends:
    """Suspends whoever awaits it, for good."""

    def __await__(self) -> Iterator[None]:
        yield


class TestCutShort:
    async def test_told_while_several_are_closed(self) -> None:
        """Y5: told while the inner one of two that were abandoned is closed: the outer one, too."""
        notes, token = Notes(), CancelToken()

        async def source() -> AsyncGenerator[object, None]:
            try:
                async for _ in slow(1):
                    break
                yield "item"
                yield "another"
            finally:
                notes("closed", "source")

        async def slow(depth: int) -> AsyncGenerator[int, None]:
            try:
                if depth:
                    async for item in slow(depth - 1):
                        yield item
                else:
                    yield 1
            finally:
                try:
                    await anyio.sleep(1)
                finally:
                    notes("closed", depth)

        with pytest.raises(StreamCancelled, match="stop"):
            async with with_cancellation(source(), token) as stream:
                assert await anext(stream) == "item"
                await anyio.sleep(0.5)
                token.cancel("stop")
                await anext(stream)
        assert notes.closed() == [0, "source", 1]
        assert len(notes.tasks) == 1

    async def test_a_stage_fails_meanwhile(self) -> None:
        """Y5: a stage has failed at the item that follows: closed with the source, in its grace."""
        notes = Notes()

        class Fails(Stage[Any, Any]):
            def on_item(self, item: object) -> object:
                raise KeyError(item)

        async def source() -> AsyncGenerator[object, None]:
            async for _ in hangs():
                break
            yield "item"

        async def hangs() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                try:
                    await anyio.sleep_forever()
                finally:
                    notes("closed", "hangs")

        with pytest.raises(KeyError):
            async with with_cancellation(with_stage(source(), Fails()), grace=1) as stream:
                await anext(stream)
        assert notes.closed() == ["hangs"]
        assert stream.outcome.grace_exceeded

    async def test_the_grace_is_over_and_another_one_fails(self) -> None:
        """Y7: one hangs until the grace is over, the next one fails: that error, bare."""

        async def hangs() -> AsyncGenerator[int, None]:
            try:
                for number in range(10):
                    yield number
            finally:
                await anyio.sleep_forever()

        async def source() -> AsyncGenerator[int, None]:
            try:
                async for item in hangs():
                    yield item
            finally:
                raise ValueError("not saved")

        with pytest.raises(ValueError, match="not saved"):
            async with with_cancellation(source(), grace=1) as stream:
                await anext(stream)
        assert stream.outcome.grace_exceeded

    def test_the_event_loop_drops_the_task(self) -> None:
        """Y1: the coroutine is closed in the middle: nothing is awaited any more."""

        async def hangs() -> AsyncGenerator[int, None]:
            try:
                yield 1
                yield 2
            finally:
                await Suspends()

        def begun() -> Any:
            generator = hangs()
            with pytest.raises(StopIteration):
                generator.__anext__().send(None)
            return generator

        def dropped(work: Any) -> None:
            work.send(None)
            work.close()

        first, second, third = begun(), begun(), begun()
        errors: list[BaseException] = []
        todo = [first, second]
        dropped(close_each(todo, errors))
        assert (todo, errors) == ([second], [])
        generators = Generators(object)
        generators.abandoned.append(third)
        dropped(close_all(second.aclose, generators, ()))
        assert (generators.abandoned, generators.errors) == ([third], [])
        closing = third.aclose()
        closing.send(None)
        with pytest.raises(StopIteration):
            closing.send(None)

    async def test_contexts_in_a_circle(self) -> None:
        """Y7: the contexts of an error lead back to it: left as they are."""
        first, second = ValueError(), KeyError()
        add_context(first, second)
        add_context(second, first)
        assert (first.__context__, second.__context__) == (second, first)
        add_context(first, OSError())
        assert (first.__context__, second.__context__) == (second, first)
        third = KeyError()
        third.__context__ = second
        assert not was_cancelled_before(third)
        second.__context__ = first.__context__ = None


# Y6: aclosing()


class TestAclosing:
    @any_way
    @any_held
    async def test_with_scopes(self, way: Way, held: Any) -> None:
        """Y6, E5: aclosing() around each inner one, with scopes and groups in it: as without."""
        notes, token = Notes(), CancelToken()

        async def source(depth: int) -> AsyncGenerator[int, None]:
            try:
                async with held():
                    if depth:
                        async with aclosing(source(depth - 1)) as items:
                            async for item in items:
                                yield item
                    else:
                        for number in range(10):
                            yield number
            finally:
                await save(notes, depth)

        stream = with_cancellation(source(2), token)
        await way(stream, token)
        assert notes.closed() == [0, 1, 2]
        assert len(notes.tasks) == 1
        assert stream.outcome.kind == ("cancelled" if way is by_token else "closed")
        assert stream.outcome.cleanup_error is None
        assert stream.outcome.error is None

    @pytest.mark.parametrize("way", [*AT_A_YIELD, by_token_while_blocked])
    @pytest.mark.parametrize("held", [empty_group, native_group, group_with_child])
    async def test_held_by_somebody_else(self, way: Way, held: Any) -> None:
        """Y6: where aclosing() has to do it, no group of GeneratorExit comes out of the block."""
        token = CancelToken()
        kept: list[AsyncGenerator[int, None]] = []

        async def inner() -> AsyncGenerator[int, None]:
            async with held():
                for number in range(10):
                    yield number

        async def source() -> AsyncGenerator[int, None]:
            async with aclosing(inner()) as items:
                kept.append(items)
                async for item in items:
                    yield item
                    if item == 4:
                        await anyio.sleep_forever()

        stream = with_cancellation(source(), token)
        await way(stream, token)
        told = way in (by_token, by_token_while_blocked)
        assert stream.outcome.kind == ("cancelled" if told else "closed")
        assert stream.outcome.cleanup_error is None
        assert stream.outcome.error is None

    @any_way
    async def test_a_child_raises_a_generator_exit(self, way: Way) -> None:
        """G17: a child of an inner generator's group raises GeneratorExit itself: that surfaces."""
        token = CancelToken()

        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise GeneratorExit("of a child")

        async def inner() -> AsyncGenerator[int, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                for number in range(10):
                    await anyio.lowlevel.checkpoint()
                    yield number

        async def source() -> AsyncGenerator[int, None]:
            async for item in inner():
                yield item

        stream = with_cancellation(source(), token)
        with pytest.raises(BaseException) as caught:
            await way(stream, token)
        assert [str(leaf) for leaf in leaves(caught.value) if type(leaf) is GeneratorExit] == [
            "of a child"
        ]


# Y7: errors


class TestErrors:
    @pytest.mark.parametrize("way", LEAVING)
    @pytest.mark.parametrize("failing", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
    async def test_clean_up_raises(self, way: Way, failing: tuple[int, ...]) -> None:
        """Y7: inner clean-ups raise: all are closed, and each error is raised out of the block."""
        notes = Notes()

        async def source(depth: int) -> AsyncGenerator[int, None]:
            try:
                if depth:
                    async for item in source(depth - 1):
                        yield item
                else:
                    for number in range(10):
                        yield number
            finally:
                await save(notes, depth)
                if depth in failing:
                    raise ValueError(depth)

        stream = with_cancellation(source(2))
        with pytest.raises((ValueError, BaseExceptionGroup)) as caught:
            await way(stream, CancelToken())
        found = [leaf for leaf in leaves(caught.value) if isinstance(leaf, ValueError)]
        assert [exc.args[0] for exc in found] == list(failing)
        assert notes.closed() == [0, 1, 2]
        cleanup_error = stream.outcome.cleanup_error
        if len(failing) == 1:
            assert cleanup_error is found[0]
        else:
            assert isinstance(cleanup_error, ExceptionGroup)
            assert list(cleanup_error.exceptions) == found

    async def test_of_one_that_is_only_closed(self) -> None:
        """Y7: told at a yield, and the outer of two loops fails to close: that is raised."""
        token = CancelToken()

        async def numbers(error: type[Exception] | None = None) -> AsyncGenerator[int, None]:
            try:
                for number in range(10):
                    yield number
            finally:
                if error is not None:
                    raise error

        async def source() -> AsyncGenerator[int, None]:
            async for _ in numbers(KeyError):
                async for item in numbers():
                    yield item

        with pytest.raises(KeyError) as caught:
            async with with_cancellation(source(), token) as stream:
                async for _ in stream:
                    token.cancel("stop")
        context = caught.value.__context__
        while context is not None and not isinstance(context, StreamCancelled):
            context = context.__context__
        assert context is not None

    async def test_one_that_yields_in_its_clean_up(self) -> None:
        """G11: an inner one yields when it is closed: an error with advice, and all are closed."""
        notes = Notes()

        async def inner() -> AsyncGenerator[int, None]:
            try:
                for number in range(10):
                    yield number
            finally:
                yield -1

        async def source() -> AsyncGenerator[int, None]:
            try:
                async for item in inner():
                    yield item
            finally:
                await save(notes, "source")

        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            await by_break(with_cancellation(source()), CancelToken())
        assert notes.closed() == ["source"]

    async def test_no_cycle(self) -> None:
        """Y7: what failed can go with its last reference, as without inner generators (E10)."""
        gone: list[weakref.ref[Any]] = []

        class Big(Exception):
            pass

        async def inner() -> AsyncGenerator[int, None]:
            try:
                for number in range(10):
                    yield number
            finally:
                exc = Big()
                gone.append(weakref.ref(exc))
                try:
                    raise exc
                finally:
                    del exc

        async def source() -> AsyncGenerator[int, None]:
            async for item in inner():
                yield item

        async def consume(tells: bool) -> None:
            token = CancelToken()
            stream = with_cancellation(source(), token)
            try:
                async with stream:
                    async for item in stream:
                        if tells:
                            token.cancel()
                        elif item == 2:
                            break
            finally:
                # Its outcome holds the error.
                del stream

        gc.collect()
        gc.disable()
        try:
            for tells in True, False:
                with suppress(Big):
                    await consume(tells)
            await wait_all_blocked()
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()


# Y8: libraries


class TestLibraries:
    @any_way
    async def test_httpx(self, way: Way) -> None:
        """Y8: the lines of a response: the connection is back when the block has been left."""
        notes, token = Notes(), CancelToken()

        class Body(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                try:
                    with noting(notes, "body"):
                        for number in range(10):
                            await anyio.lowlevel.checkpoint()
                            yield f"{number}\n".encode()
                finally:
                    await save(notes, "body")

            async def aclose(self) -> None:
                notes("closed", "response")

        async def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Body())

        async def source(client: httpx.AsyncClient) -> AsyncGenerator[int, None]:
            try:
                async with client.stream("GET", "http://example.org/") as response:
                    async for line in response.aiter_lines():
                        yield int(line)
            finally:
                await save(notes, "source")

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            await way(with_cancellation(source(client), token), token)
        assert notes.closed() == ["body", "response", "source"]
        assert notes.seen() == [("body", told_by(way))]
        assert len(notes.tasks) == 1

    @any_way
    async def test_iterator_of_a_library(self, way: Way) -> None:
        """Y8: an object that iterates a generator inside it, in an attribute of an attribute."""
        notes, token = Notes(), CancelToken()

        class Response:
            def __init__(self) -> None:
                self.lines = layer(1, notes)
                self.cache = dict.fromkeys(range(1000))

        class Slotted:
            __slots__ = ("response",)

            def __init__(self) -> None:
                self.response = Response()

            def __aiter__(self) -> Slotted:
                return self

            def __anext__(self) -> Any:
                return self.response.lines.__anext__()

        class Plain:
            def __init__(self) -> None:
                self.response = Response()
                self.me = self

            def __aiter__(self) -> Plain:
                return self

            async def __anext__(self) -> int:
                vars(self)["touched"] = True
                return await self.response.lines.__anext__()

        async def source(make: Callable[[], Any]) -> AsyncGenerator[int, None]:
            response = make()
            async for item in response:
                yield item

        for make in Slotted, Plain:
            notes.forget()
            token = CancelToken()
            await way(with_cancellation(source(make), token), token)
            assert notes.closed() == [0, 1]
            assert notes.seen() == [(0, told_by(way)), (1, told_by(way))]
            assert len(notes.tasks) == 1

    @pytest.mark.parametrize("closes", [True, False])
    @pytest.mark.parametrize("way", LEAVING)
    async def test_source_is_an_iterator_of_a_library(self, way: Way, closes: bool) -> None:
        """Y8: such an object is the source, and is held by whoever gave it to the stream, too."""
        notes = Notes()

        class Response(PlainSource[int]):
            def __init__(self) -> None:
                self.lines = layer(1, notes)

            async def __anext__(self) -> int:
                return await anext(self.lines)

        class Closes(Response):
            async def aclose(self) -> None:
                notes("aclose")

        response = Closes() if closes else Response()
        await way(with_cancellation(response), CancelToken())
        assert notes.closed() == [0, 1]
        assert notes.count("aclose") == closes
        assert len(notes.tasks) == 1

    @any_way
    async def test_asyncstdlib(self, way: Way) -> None:
        """Y8: through the tools of asyncstdlib."""
        notes, token = Notes(), CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            async for item in asyncstdlib.map(lambda item: item, layer(1, notes)):
                yield item

        await way(with_cancellation(source(), token), token)
        # It closes them itself, from the outside.
        assert sorted(notes.closed()) == [0, 1]
        assert len(notes.tasks) == 1

    @any_way
    @pytest.mark.asyncio_only
    async def test_aiostream(self, way: Way) -> None:
        """Y8: through the operators of aiostream."""
        notes, token = Notes(), CancelToken()

        async def source() -> AsyncGenerator[int, None]:
            async with aiostream.stream.iterate(layer(1, notes)).stream() as items:
                async for item in items:
                    yield item

        await way(with_cancellation(source(), token), token)
        assert sorted(notes.closed()) == [0, 1]
        assert len(notes.tasks) == 1


# Y9: hooks


class TestHooks:
    async def test_of_others(self) -> None:
        """Y9: the hooks that were there are called for all that is not the source's."""
        notes, mine = Notes(), Notes()
        begun, finalized = [], []
        before = sys.get_asyncgen_hooks()

        def firstiter(generator: Any) -> None:
            begun.append(generator.__name__)
            before.firstiter(generator)  # type: ignore[misc]

        def finalizer(generator: Any) -> None:
            finalized.append(generator.__name__)

        async def not_the_source_s() -> AsyncGenerator[int, None]:
            yield 1
            yield 2

        sys.set_asyncgen_hooks(firstiter, finalizer)
        try:
            ours = sys.get_asyncgen_hooks()
            async with with_cancellation(layer(1, notes)) as stream:
                await anext(stream)
                assert sys.get_asyncgen_hooks() != ours
                installed = sys.get_asyncgen_hooks()
                async with with_cancellation(layer(0, mine)) as other:
                    await anext(other)
                    assert sys.get_asyncgen_hooks() == installed
                foreign = not_the_source_s()
                await anext(foreign)
                abandoned, foreign = foreign, not_the_source_s()
                await anext(foreign)
                del foreign
                assert finalized == ["not_the_source_s"]
                await abandoned.aclose()
            assert sys.get_asyncgen_hooks() == installed
        finally:
            sys.set_asyncgen_hooks(*before)
        assert begun.count("layer") == 3
        assert begun.count("not_the_source_s") == 2
        assert finalized == ["not_the_source_s"]

    async def test_none(self) -> None:
        """Y9: there are none: what is abandoned ends as without a stream, and an await is told."""
        before = sys.get_asyncgen_hooks()
        raised: list[Any] = []
        ended: list[str] = []

        async def ends() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                ended.append("ends")

        async def awaits() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await Suspends()

        unraisable = sys.unraisablehook
        sys.unraisablehook = raised.append
        sys.set_asyncgen_hooks(None, None)
        try:
            async with with_cancellation(layer(1, Notes())) as stream:
                await anext(stream)
                for function in ends, awaits:
                    generator = function()
                    await anext(generator)
                    del generator
        finally:
            sys.set_asyncgen_hooks(*before)
            sys.unraisablehook = unraisable
        assert ended == ["ends"]
        assert [type(each.exc_value) for each in raised] == [RuntimeError]

    async def test_after_the_end(self) -> None:
        """Y9: begun by on_end, or abandoned when the source is closed: the event loop's."""
        notes = Notes()
        kept: list[Any] = []

        async def source() -> AsyncGenerator[int, None]:
            kept.append(shared(notes))
            await anext(kept[0])
            yield 1

        async def on_end(outcome: object) -> None:
            kept.append(shared(notes))
            await anext(kept[1])

        finalized: list[Any] = []
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(before.firstiter, finalized.append)
        try:
            async with with_status(source(), on_end=on_end) as stream:
                await anext(stream)
        finally:
            sys.set_asyncgen_hooks(*before)
        assert notes.closed() == []
        addresses = {id(generator) for generator in kept}
        kept.clear()
        assert {id(generator) for generator in finalized} == addresses
        for generator in finalized:
            await generator.aclose()

    def test_two_runs_and_two_threads(self, backend: Backend) -> None:
        """Y9: loops one after the other, and two in two threads at once: each has its own."""
        both = threading.Barrier(2, timeout=30)
        failed: list[BaseException] = []

        async def main() -> None:
            for way in AT_A_YIELD:
                notes, token = Notes(), CancelToken()
                await way(with_cancellation(layer(2, notes), token), token)
                assert notes.closed() == [0, 1, 2]
                assert len(notes.tasks) == 1

        def in_thread() -> None:
            try:
                both.wait()
                for _ in range(2):
                    before = sys.get_asyncgen_hooks()
                    backend.run_bare(main)
                    assert sys.get_asyncgen_hooks() == before
            except BaseException as exc:
                failed.append(exc)

        threads = [threading.Thread(target=in_thread) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []

    @pytest.mark.real_time
    async def test_debug_mode(self) -> None:
        """Y9: the debug mode of asyncio."""
        notes = Notes()
        await by_break(with_cancellation(layer(2, notes)), CancelToken())
        assert notes.closed() == [0, 1, 2]

    @pytest.mark.allow_gc_generators
    async def test_abandoned_at_the_very_end(self) -> None:
        """Y9: what nobody has closed by then is passed on to the event loop."""
        notes = Notes()
        generators = Generators(anyio.get_current_task)
        abandoned = shared(notes)
        await anext(abandoned)
        generators.abandoned.append(abandoned)
        generators.end()
        await anyio.sleep(1)
        assert notes.closed() == [0]
        assert generators.abandoned == []

    @pytest.mark.real_time
    @pytest.mark.one_of_each
    async def test_a_loop_in_a_thread_of_the_source(self, backend: Backend) -> None:
        """Y9: the source runs a loop in a thread, in its context: what that begins is its own."""
        notes, kept = Notes(), []

        async def in_thread() -> None:
            async with with_cancellation(layer(0, notes)) as stream:
                await anext(stream)
                kept.append(shared(notes))
                await anext(kept[0])
                # In the thread, where its loop is.
                del kept[0]
            await anyio.sleep(0)
            finalized.set()

        finalized = threading.Event()

        async def source() -> AsyncGenerator[int, None]:
            await anyio.to_thread.run_sync(partial(anyio.run, in_thread, backend=backend.name))
            yield 1
            yield 2

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            async with with_cancellation(source()) as stream:
                await anext(stream)
        assert finalized.is_set()
        assert notes.closed() == [0, 0]
        assert len(notes.tasks) == 2

    def test_guest_mode(self) -> None:
        """Y9: trio is the guest of asyncio: the generators of each are closed where they belong."""
        all_notes, host = [Notes() for _ in AT_A_YIELD], []

        async def hosts() -> AsyncGenerator[int, None]:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                host.append("closed")

        def in_the_host() -> None:
            # In a context of the source, but in no task.
            generator = hosts()
            with pytest.raises(StopIteration):
                generator.__anext__().send(None)

        async def calls_the_host() -> AsyncGenerator[int, None]:
            asyncio.get_running_loop().call_soon(in_the_host)
            await trio.sleep(0.01)
            yield 1
            yield 2

        async def guest() -> None:
            await by_break(with_cancellation(calls_the_host()), CancelToken())
            for way, notes in zip(AT_A_YIELD, all_notes, strict=True):
                token = CancelToken()
                await way(with_cancellation(layer(1, notes), token), token)

        async def main() -> Any:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Any] = loop.create_future()
            trio.lowlevel.start_guest_run(
                guest,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=done.set_result,
            )
            async for _ in hosts():
                break
            outcome = await done
            async for _ in hosts():
                break
            await asyncio.sleep(0.01)
            return outcome

        asyncio.run(main()).unwrap()
        assert [notes.closed() for notes in all_notes] == [[0, 1]] * len(AT_A_YIELD)
        assert {len(notes.tasks) for notes in all_notes} == {1}
        assert host == ["closed"] * 3

    async def test_without_reference_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Y9: an interpreter that counts no references: closed as what is abandoned."""
        notes = Notes()
        monkeypatch.setattr("streamkit._core.chain._COUNTS_REFERENCES", False)
        await by_break(with_cancellation(layer(2, notes)), CancelToken())
        assert sorted(notes.closed()) == [0, 1, 2]
        assert len(notes.tasks) == 1
