"""``from_thread``: one thread for what blocks, and what it is told there.

Nothing here waits for a thread by the clock: what is blocked is released by an event. Time is real,
for virtual time jumps to the end of a grace as soon as nothing but a thread goes on. Where that is
wanted, it is in ``test_thread_time.py``.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
import weakref
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from chains import Chain, wrap
from observing import kind
from streamkit import (
    CancelToken,
    StreamCancelled,
    current_cancellation,
    from_thread,
    with_cancellation,
)
from streamkit._core.loop import Loop
from streamkit._sources import worker
from streamkit._sources.thread import DEFAULT_LIMIT, _Blocking
from support import Backend, on_trio, wait_all_blocked
from sync_source import HANGS_AFTER, Source, fire_when, in_thread, ours, rest_of, source_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from anyio.abc import TaskGroup

    from streamkit import Outcome, Stream

pytestmark = pytest.mark.real_time

without_timers = pytest.mark.parametrize(
    "chain", [("cancellation",), ("status", "cancellation"), ("buffer", "cancellation", "status")]
)

variable: ContextVar[str] = ContextVar("variable", default="default")


class TestItems:
    async def test_thread(self) -> None:
        """R1, V: all steps and the clean-up are in one thread, which is neither the loop's."""
        source = Source(50)
        async with from_thread(source.items()) as stream:
            assert [item async for item in stream] == list(range(1, 51))
        assert len(set(source.threads)) == 1
        assert source.threads[0] is not threading.current_thread()
        assert source.threads[0].name == "thread of Source.items"
        assert source.closed == 1
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.items) == ("completed", 50)

    async def test_several(self) -> None:
        """Two sources have a thread each, at the same time."""
        first, second = Source(), Source()
        async with from_thread(first.items()) as one, from_thread(second.items()) as other:
            for number in 1, 2, 3:
                assert (await anext(one), await anext(other)) == (number, number)
                assert len(ours()) == 2
        assert first.threads[0] is not second.threads[0]

    @without_timers
    async def test_nothing_is_read_ahead(self, chain: Chain) -> None:
        """B1, B2: no thread before the first ask, and an item is made when it is asked for."""
        source = Source(10)
        async with wrap(from_thread(source.items), chain) as stream:
            await wait_all_blocked()
            assert ours() == []
            for number in 1, 2, 3:
                assert await anext(stream) == number
                await wait_all_blocked()
                assert source.produced == number
        assert source.closed == 1

    @pytest.mark.parametrize(
        "iterable",
        [
            [0, None, ()],
            (0, None, ()),
            {0: 1, None: 2, (): 3},
            lambda: iter([0, None, ()]),
            partial(list, [0, None, ()]),
        ],
        ids=["list", "tuple", "dict", "function", "partial"],
    )
    async def test_any_iterable(self, iterable: Any) -> None:
        """B7: anything that can be iterated, or a function that returns it; falsy items too."""
        async with from_thread(iterable) as stream:
            assert [item async for item in stream] == [0, None, ()]

    async def test_empty(self) -> None:
        """B7: no item at all."""
        async with from_thread(()) as stream:
            assert [item async for item in stream] == []

    async def test_class(self) -> None:
        """A class is a function that returns an iterable: it is called in the thread."""
        made_in = []

        class Rows:
            def __init__(self) -> None:
                made_in.append(threading.current_thread())

            def __iter__(self) -> Iterator[int]:
                return iter([1, 2])

        async with from_thread(Rows) as stream:
            assert [item async for item in stream] == [1, 2]
        assert made_in[0] is not threading.current_thread()

    async def test_file(self, tmp_path: Path) -> None:
        """A file: its lines, and it is closed where the stream ends."""
        path = tmp_path / "lines"
        path.write_text("a\nb\nc\n", encoding="utf-8")
        file = path.open(encoding="utf-8")
        async with from_thread(file) as stream:
            assert await anext(stream) == "a\n"
        assert file.closed

    async def test_in_a_source(self) -> None:
        """N7: consumed by an async generator, which is told at the same time."""
        token, source, log = CancelToken(), Source(5, handles=("last",)), []

        async def doubled() -> Any:
            try:
                async with from_thread(source.items()) as items:
                    async for item in items:
                        yield item
                        await anyio.lowlevel.checkpoint()
            except StreamCancelled as stop:
                log.append(kind(stop))
                raise

        async with with_cancellation(doubled(), token) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            assert await rest_of(stream) == ["told to stop"]
        assert (source.seen, log) == (["told to stop"], ["told to stop"])


class TestContext:
    async def test_one_context(self) -> None:
        """V1, V2, V4: the caller's variables, those of the step before, and none that leak."""
        variable.set("the caller's")
        seen = []

        def source() -> Iterator[int]:
            for number in range(3):
                seen.append(variable.get())
                variable.set(f"set at {number}")
                yield number

        async with from_thread(source) as stream:
            async for _ in stream:
                assert variable.get() == "the caller's"
                variable.set("the caller's")
        assert seen == ["the caller's", "set at 0", "set at 1"]
        assert variable.get() == "the caller's"

    @pytest.mark.parametrize("end", ["end", "break", "token", "aclose"])
    async def test_reset(self, end: str) -> None:
        """V3: ``reset()`` fails in any context but the one that made the token."""
        token, values = CancelToken(), []

        def source() -> Iterator[int]:
            reset = variable.set("the source's")
            try:
                yield 1
                yield 2
            finally:
                values.append(variable.get())
                variable.reset(reset)
                values.append(variable.get())

        async with with_cancellation(from_thread(source), token) as stream:
            async for _ in stream:
                if end == "break":
                    break
                if end == "aclose":
                    await stream.aclose()
                    break
                if end == "token":
                    token.cancel("stop")
                    await rest_of(stream)
                    break
        assert values == ["the source's", "default"]

    async def test_reason(self) -> None:
        """``current_cancellation()`` answers in the thread, in ``finally`` too."""
        token, reasons = CancelToken(), []

        def source() -> Iterator[int]:
            try:
                reasons.append(current_cancellation())
                yield 1
                yield 2
            finally:
                reasons.append(current_cancellation())

        async with with_cancellation(from_thread(source), token) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            assert await rest_of(stream) == [2, "told to stop"]
        assert reasons == [None, "stop"]

    async def test_event_loop_in_the_thread(self) -> None:
        """A generator that runs an event loop of its own: no loop counts as running there."""

        async def work() -> int:
            await anyio.lowlevel.checkpoint()
            return 42

        def source() -> Iterator[int]:
            yield anyio.run(work)
            yield anyio.run(work, backend="trio")

        async with from_thread(source) as stream:
            assert [item async for item in stream] == [42, 42]

    async def test_without_sniffio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is no dependency: what says which loop runs is then asked of asyncio."""
        monkeypatch.setitem(sys.modules, "sniffio", None)  # type: ignore[arg-type]
        async with from_thread([1]) as stream:
            assert await anext(stream) == 1


class TestTold:
    """Told to stop, at a ``yield`` and in a step."""

    async def test_at_a_yield(self) -> None:
        """C23, C24: a generator gets the exception at its ``yield``, and yields last items."""
        token, source = CancelToken(), Source(5, handles=("last", "very last"))
        async with with_cancellation(from_thread(source.items()), token) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            # The way to the yield at which it is told is that of any source.
            assert await rest_of(stream) == [2, "last", "very last"]
        assert source.seen == ["told to stop"]
        assert (source.closed, len(set(source.threads))) == (1, 1)
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")

    async def test_let_out(self) -> None:
        """C5, E13: one that does not handle it: the consumer gets the plain class."""
        token, source = CancelToken(), Source(5)
        async with with_cancellation(from_thread(source.items()), token) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            assert await rest_of(stream) == [2, "told to stop"]
        assert source.seen == ["told to stop"]

    async def test_swallowed(self) -> None:
        """C26: one that goes on is cut after its grace: it is not resumed at its next ``yield``."""
        token, seen = CancelToken(), []

        def stubborn() -> Iterator[int]:
            number = 0
            while True:
                try:
                    number += 1
                    yield number
                except BaseException as exc:
                    seen.append((number, isinstance(exc, StreamCancelled)))
                    if isinstance(exc, GeneratorExit):
                        raise

        stream = with_cancellation(from_thread(stubborn), token, grace=0)
        async with stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            assert await rest_of(stream) == [2, 3, "told to stop"]
        assert seen == [(2, True), (3, False)]
        assert stream.outcome is not None
        assert stream.outcome.grace_exceeded

    async def test_error_while_told(self) -> None:
        """C28, E6: another error comes in its place, bare, with what it was told as the context."""
        token = CancelToken()
        error = ValueError("while told")

        def source() -> Iterator[int]:
            try:
                yield 1
                yield 2
            except StreamCancelled:
                raise error

        async with with_cancellation(from_thread(source), token) as stream:
            assert await anext(stream) == 1
            token.cancel("stop")
            assert await anext(stream) == 2
            with pytest.raises(ValueError) as caught:
                await anext(stream)
        assert caught.value is error
        assert isinstance(error.__context__, StreamCancelled)
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.error) == ("cancelled", error)

    async def test_no_generator(self) -> None:
        """C25: an iterator without ``throw()`` is not stepped any more, and closed."""
        token, closed = CancelToken(), []

        class Cursor:
            def __init__(self) -> None:
                self.rows = iter(range(10))

            def __iter__(self) -> Cursor:
                return self

            def __next__(self) -> int:
                return next(self.rows)

            def close(self) -> None:
                closed.append(threading.current_thread().name)

        cursor = Cursor()
        async with with_cancellation(from_thread(cursor), token) as stream:
            assert await anext(stream) == 0
            token.cancel("stop")
            assert await rest_of(stream) == [1, "told to stop"]
        assert next(cursor.rows) == 2
        assert closed == ["thread of Cursor"] or closed[0].endswith("Cursor")
        assert len(closed) == 1

    async def test_before_it_began(self) -> None:
        """C13: a token that has fired: the iterable is closed without having been iterated."""
        token, source = CancelToken(), Source()
        token.cancel("stop")
        async with with_cancellation(from_thread(source.items()), token) as stream:
            assert await rest_of(stream) == ["told to stop"]
        assert (source.produced, source.closed) == (0, 0)

    @without_timers
    async def test_blocked(self, chain: Chain) -> None:
        """C18: in a step, it is told where that ends: the item arrives, then it is told."""
        token, source = CancelToken(), Source(1, blocks=True, after=2, handles=("last",))
        async with wrap(from_thread(source.items()), chain, token=token) as stream:
            assert await anext(stream) == 1
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await source.blocked()
                    token.cancel("stop")
                    await wait_all_blocked()
                    assert source.seen == []
                    source.released.set()

                tasks.start_soon(stop)
                assert await rest_of(stream) == [2, "last"]
        assert source.closed == 1


class TestInterrupt:
    """Told to stop in a step that something can end."""

    async def stop(self, source: Source, token: CancelToken) -> None:
        await source.blocked()
        token.cancel("stop")

    async def run(self, source: Source, interrupt: Callable[[], object]) -> list[object]:
        token = CancelToken()
        rows = from_thread(source.items(), interrupt=interrupt)
        async with with_cancellation(rows, token) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(self.stop, source, token)
            received = await rest_of(stream)
        assert source.closed == 1
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "stop")
        assert not stream.outcome.grace_exceeded
        return received

    async def test_raises(self) -> None:
        """C21: the step raises: the consumer gets what the source was told, and no error."""
        source = Source(1, blocks=True, interrupted=ConnectionError("interrupted"))
        assert await self.run(source, source.interrupt) == [1, "told to stop"]
        assert source.interruptions == [threading.get_ident()]

    async def test_handled(self) -> None:
        """C24: the generator handles the error of its step: what it yields then arrives."""
        source = Source(
            1, blocks=True, after=1, interrupted=ConnectionError(), swallows=True, handles=("last",)
        )
        assert await self.run(source, source.interrupt) == [1, 2, "last"]
        assert source.seen == ["ConnectionError", "told to stop"]

    async def test_ends(self) -> None:
        """C24: the step ends with the end: so does the iteration."""
        source = Source(1, blocks=True)
        assert await self.run(source, source.interrupt) == [1]

    async def test_exit(self) -> None:
        """E8: what is no Exception is not what an interrupt makes of a step."""
        source = Source(1, blocks=True, interrupted=SystemExit(3))
        assert await self.run(source, source.interrupt) == [1, "SystemExit"]

    async def test_fails(self) -> None:
        """E3: an interrupt that raises: the thread is waited for, then the error comes, bare."""
        source = Source(1, blocks=True, after=1)
        error = LookupError("no connection")

        def interrupt() -> None:
            source.released.set()
            raise error

        assert await self.run(source, interrupt) == [1, "LookupError"]

    async def test_both_fail(self) -> None:
        """E3, R5: an interrupt and the step: a group of both."""
        source = Source(1, blocks=True, interrupted=ConnectionError())

        def interrupt() -> None:
            source.interrupt()
            raise LookupError("no connection")

        token = CancelToken()
        rows = from_thread(source.items(), interrupt=interrupt)
        async with with_cancellation(rows, token) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(self.stop, source, token)
            assert await anext(stream) == 1
            with pytest.raises(BaseExceptionGroup) as caught:
                await anext(stream)
        assert [type(error) for error in caught.value.exceptions] == [ConnectionError, LookupError]

    async def test_coroutine(self) -> None:
        """Misuse: a lambda that calls what is async: an error, and nothing is left unawaited."""
        source = Source(1, blocks=True)

        async def cancel() -> None:
            raise AssertionError("must not run")

        def interrupt() -> object:
            source.released.set()
            return cancel()

        assert await self.run(source, interrupt) == [1, "TypeError"]

    async def test_only_while_it_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C31: the step is over, and the loop has not heard of it: nothing is interrupted."""
        source, token = Source(2), CancelToken()
        waiting: list[Callable[[], object]] = []
        ended = threading.Event()

        class Late(Loop):
            def call(self, function: Callable[[], object]) -> None:
                if source.produced == 1:
                    super().call(function)
                else:
                    waiting.append(function)
                    ended.set()

        monkeypatch.setattr(worker, "Loop", Late)
        rows = from_thread(source.items(), interrupt=source.interrupt)
        async with with_cancellation(rows, token) as stream, anyio.create_task_group() as tasks:
            assert await anext(stream) == 1

            async def stop() -> None:
                await in_thread(ended)
                token.cancel("stop")
                await wait_all_blocked()
                monkeypatch.undo()
                source.produced = 1
                waiting.pop()()

            tasks.start_soon(stop)
            assert await rest_of(stream) == [2, "told to stop"]
        assert source.interruptions == []
        assert source.seen == ["told to stop"]

    async def test_at_a_yield(self) -> None:
        """It is not called where there is nothing to interrupt."""
        source, token = Source(3), CancelToken()
        rows = from_thread(source.items(), interrupt=source.interrupt)
        async with with_cancellation(rows, token) as stream:
            assert await anext(stream) == 1
            await wait_all_blocked()
        assert source.interruptions == []
        assert source.seen == ["GeneratorExit"]


class Gone(Exception):
    """What a consumer raises that leaves with an error."""


WILLING = ("break", "error", "aclose")
CANCELLED = ("aclose elsewhere", "scope", "task group", "Task.cancel()")


async def go(way: str, stream: Stream[Any], tasks: TaskGroup) -> None:
    """Go in one of these ways, or have the consumer go."""
    if way == "error":
        raise Gone
    if way == "aclose":
        await stream.aclose()
    elif way == "aclose elsewhere":
        tasks.start_soon(stream.aclose)
        await wait_all_blocked()
    elif way in ("scope", "task group"):
        tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint()
    elif way == "Task.cancel()":
        consumer = next(task for task in asyncio.all_tasks() if task.get_name() == "consumer")
        consumer.cancel()
        await anyio.lowlevel.checkpoint()


async def leave(source: Source, way: str, rows: Stream[Any], *, blocked: bool) -> Outcome:
    """Consume a stream, and go while the source is blocked, or else with the first item."""

    async def consume() -> None:
        async with rows, anyio.create_task_group() as tasks:
            if blocked:

                async def act() -> None:
                    await source.blocked()
                    await go(way, rows, tasks)

                tasks.start_soon(act)
                with suppress(anyio.ClosedResourceError):
                    await anext(rows)
            else:
                await anext(rows)
                await go(way, rows, tasks)

    if way == "Task.cancel()":
        await asyncio.wait([asyncio.create_task(consume(), name="consumer")])
    else:
        try:
            await consume()
        except* Gone:
            pass
    assert rows.outcome is not None
    return rows.outcome


def possible(ways: Iterable[str]) -> list[str]:
    return [way for way in ways if way != "Task.cancel()" or not on_trio()]


class TestLeaving:
    async def test_at_a_yield(self) -> None:
        """L1, L2: however the consumer goes, the generator is closed in its thread by then."""
        for way in possible(WILLING + CANCELLED):
            source = Source(3)
            outcome = await leave(source, way, from_thread(source.items()), blocked=False)
            assert (source.seen, source.closed) == (["GeneratorExit"], 1), way
            assert len(set(source.threads)) == 1
            assert outcome.kind == "closed", way

    async def test_interrupted(self) -> None:
        """L1, L7: however it goes while the thread is blocked: that is interrupted once."""
        for way in possible(CANCELLED):
            source = Source(0, blocks=True, interrupted=ConnectionError())
            rows = from_thread(source.items(), interrupt=source.interrupt)
            outcome = await leave(source, way, rows, blocked=True)
            assert (len(source.interruptions), source.closed) == (1, 1), way
            assert (outcome.kind, outcome.cleanup_error) == ("closed", None), way
            assert outcome.reason is None

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("after", [0, 1])
    async def test_natively(self, after: int) -> None:
        """L11: ``Task.cancel()`` of the source's task, twice: the thread is waited for.

        It ends the await that it meets: that of the item, which nobody receives.
        """
        source = Source(1, blocks=True, after=after)
        async with from_thread(source.items()) as stream, anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await source.blocked()
                task = source_task()
                for _ in range(2):
                    task.cancel()
                    await wait_all_blocked()
                assert not task.done()
                source.released.set()

            tasks.start_soon(cancel)
            assert await rest_of(stream) == [1, "BrokenResourceError"]
        assert source.closed == 1

    @pytest.mark.asyncio_only
    async def test_natively_while_it_is_closed(self) -> None:
        """L11, G10: ``Task.cancel()`` while the iterable is closed: that goes on to its end."""
        closing, go_on, closed = threading.Event(), threading.Event(), []

        def source() -> Iterator[int]:
            try:
                yield 1
            finally:
                closing.set()
                assert go_on.wait(HANGS_AFTER)
                closed.append(1)

        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await in_thread(closing)
                task = source_task()
                task.cancel()
                await wait_all_blocked()
                go_on.set()

            tasks.start_soon(cancel)
            async with from_thread(source) as stream:
                assert await anext(stream) == 1
            assert closed == [1]

    @pytest.mark.asyncio_only
    async def test_natively_with_its_consumer(self) -> None:
        """Z1, L11: as at the end of ``asyncio.run()``, while what has ended is closed."""
        closing, go_on, closed = threading.Event(), threading.Event(), []

        class Ended:
            def __iter__(self) -> Iterator[int]:
                return iter([1])

            def close(self) -> None:
                closing.set()
                assert go_on.wait(HANGS_AFTER)
                closed.append(1)

        async def consume() -> None:
            async with from_thread(Ended()) as stream:
                async for _ in stream:
                    pass

        consumer = asyncio.create_task(consume())
        await in_thread(closing)
        for task in consumer, source_task():
            task.cancel()
        await wait_all_blocked()
        assert not consumer.done()
        go_on.set()
        await asyncio.wait([consumer])
        assert consumer.cancelled()
        assert closed == [1]

    async def test_exactly_when_the_item_arrives(self) -> None:
        """B4, L12: a scope ends the ask in the tick of the item: it is there for the next ask."""
        source = Source(1, blocks=True, after=1)
        async with from_thread(source.items()) as stream:
            assert await anext(stream) == 1
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel() -> None:
                        await source.blocked()
                        source.released.set()
                        scope.cancel()

                    tasks.start_soon(cancel)
                    await anext(stream)
            assert scope.cancelled_caught
            assert await rest_of(stream) == [2]


class Resource:
    """An iterable and its iterator, which are closed one after the other."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.log: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.errors = [*errors, None, None]

    def note(self, what: str) -> None:
        self.log.append(what)
        self.threads.add(threading.current_thread())

    def __iter__(self) -> Rows:
        self.note("open")
        return Rows(self)

    def close(self) -> None:
        self.note("iterable closed")
        if self.errors[1] is not None:
            raise self.errors[1]


class Rows:
    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.left = 2

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left

    def close(self) -> None:
        self.resource.note("iterator closed")
        if self.resource.errors[0] is not None:
            raise self.resource.errors[0]


CLOSED = ["open", "iterator closed", "iterable closed"]


class TestClosing:
    @pytest.mark.parametrize("end", ["end", "break", "aclose", "token", "error"])
    @pytest.mark.parametrize("made", ["given", "in the thread"])
    async def test_both(self, end: str, made: str) -> None:
        """G2, Y8: first the iterator is closed, then the iterable, each once, in the thread."""
        resource, token = Resource(), CancelToken()
        rows: Any = from_thread(resource if made == "given" else lambda: resource)
        with suppress(LookupError):
            async with with_cancellation(rows, token) as stream:
                async for _ in stream:
                    if end == "break":
                        break
                    if end == "aclose":
                        await stream.aclose()
                        assert resource.log == CLOSED
                        break
                    if end == "token":
                        token.cancel("stop")
                        await rest_of(stream)
                        break
                    if end == "error":
                        raise LookupError
        assert resource.log == CLOSED
        assert len(resource.threads) == 1
        assert threading.current_thread() not in resource.threads

    async def test_same_object(self) -> None:
        """A generator, a file or a cursor is its own iterator, and closed once."""
        resource = Resource()
        async with from_thread(Rows(resource)) as stream:
            assert [item async for item in stream] == [1, 0]
        assert resource.log == ["iterator closed"]

    @pytest.mark.parametrize("leaves", [False, True])
    async def test_error(self, leaves: bool) -> None:
        """E12, L4: the iterator fails to close: that error, bare; the iterable is closed, too."""
        error = ValueError("iterator")
        resource = Resource(error)
        with pytest.raises(ValueError) as caught:
            async with from_thread(resource) as stream:
                async for _ in stream:
                    if leaves:
                        break
        assert caught.value is error
        assert resource.log == CLOSED

    @pytest.mark.parametrize("leaves", [False, True])
    async def test_two_errors(self, leaves: bool) -> None:
        """E3: both fail to close: a group of both."""
        first, second = ValueError("iterator"), KeyError("iterable")
        with pytest.raises(BaseExceptionGroup) as caught:
            async with from_thread(Resource(first, second)) as stream:
                async for _ in stream:
                    if leaves:
                        break
        assert caught.value.exceptions == (first, second)

    async def test_context(self) -> None:
        """E6: an error of the clean-up keeps its context, and has what came before behind that."""
        token, own = CancelToken(), KeyError("its own context")

        def source() -> Iterator[int]:
            try:
                yield 1
                yield 2
            except StreamCancelled:
                yield 3
                raise AssertionError("must not be reached")
            finally:
                try:
                    raise own
                except KeyError:
                    raise ValueError("clean-up")

        with pytest.raises(ValueError) as caught:
            async with with_cancellation(from_thread(source), token) as stream:
                await anext(stream)
                token.cancel("stop")
                await anext(stream)
                await anext(stream)
        assert caught.value.__context__ is own
        assert isinstance(own.__context__, GeneratorExit)

    async def test_ignores_the_exit(self) -> None:
        """G11: a generator that yields in ``finally``: Python's own error surfaces."""

        def source() -> Iterator[int]:
            try:
                yield 1
            finally:
                yield 2

        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            async with from_thread(source) as stream:
                await anext(stream)

    @pytest.mark.parametrize("given", ["iterable", "function", "list"])
    @pytest.mark.parametrize("how", ["entered", "not entered", "token"])
    async def test_never_asked(self, given: str, how: str) -> None:
        """G4, G5, C13: an iterable of which nothing was asked is closed, in a thread as well."""
        resource = Resource()
        rows: Any = {"iterable": resource, "function": lambda: resource, "list": [1]}[given]
        token = CancelToken()
        stream = with_cancellation(from_thread(rows), token)
        if how == "not entered":
            await stream.aclose()
        else:
            async with stream:
                if how == "token":
                    token.cancel("stop")
                    assert await rest_of(stream) == ["told to stop"]
        assert resource.log == ["iterable closed"] * (given == "iterable")
        assert threading.current_thread() not in resource.threads

    async def test_let_go_of(self) -> None:
        """An iterator that cannot be closed is let go of in the thread."""
        dropped_in = []

        class Plain:
            def __iter__(self) -> Plain:
                return self

            def __next__(self) -> int:
                return 1

            def __del__(self) -> None:
                dropped_in.append(threading.current_thread())

        async with from_thread(Plain) as stream:
            assert await anext(stream) == 1
        assert len(dropped_in) == 1
        assert dropped_in[0] is not threading.current_thread()


class TestLimiter:
    async def test_default(self) -> None:
        """A limit of its own: the threads of sources do not take those of anyio."""
        common = anyio.to_thread.current_default_thread_limiter()
        sources = [Source() for _ in range(DEFAULT_LIMIT + 1)]

        def begun() -> int:
            return sum(source.produced for source in sources)

        async with anyio.create_task_group() as tasks:
            leave = anyio.Event()

            async def hold(source: Source) -> None:
                async with from_thread(source.items()) as stream:
                    await anext(stream)
                    held.set()
                    await leave.wait()

            for number, source in enumerate(sources, 1):
                held = anyio.Event()
                tasks.start_soon(hold, source)
                if number <= DEFAULT_LIMIT:
                    await held.wait()
            await wait_all_blocked()
            assert begun() == DEFAULT_LIMIT
            assert common.borrowed_tokens == 0
            leave.set()
        assert begun() == DEFAULT_LIMIT + 1

    @pytest.mark.parametrize("given", ["generator", "function", "resource"])
    @pytest.mark.parametrize("end", ["token", "scope"])
    async def test_full(self, given: str, end: str) -> None:
        """C21: a source that waits for a thread is told there; it is closed, and never iterated."""
        limiter, token, resource = anyio.CapacityLimiter(1), CancelToken(), Resource()
        source = Source()
        rows: Any = {"generator": source.items(), "function": source.items, "resource": resource}
        async with from_thread([1, 2], limiter=limiter) as first:
            assert await anext(first) == 1
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await wait_all_blocked()
                    assert limiter.statistics().tasks_waiting == 1
                    if end == "token":
                        token.cancel("stop")
                    else:
                        tasks.cancel_scope.cancel()

                tasks.start_soon(stop)
                second = from_thread(rows[given], limiter=limiter)
                async with with_cancellation(second, token) as stream:
                    assert await rest_of(stream) == ["told to stop"]
            assert limiter.borrowed_tokens == 1
            assert limiter.statistics().tasks_waiting == 0
            assert await anext(first) == 2
        assert source.produced == 0
        assert resource.log == ["iterable closed"] * (given == "resource")
        assert limiter.borrowed_tokens == 0

    async def test_the_next_one(self) -> None:
        """A thread that ends lets the next source begin."""
        limiter = anyio.CapacityLimiter(1)
        order = []

        async def consume(name: str) -> None:
            async with from_thread([1, 2], limiter=limiter) as stream:
                async for item in stream:
                    order.append((name, item))
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, "a")
            tasks.start_soon(consume, "b")
        assert order in ([(n, i) for n in names for i in (1, 2)] for names in ("ab", "ba"))

    @pytest.mark.parametrize("fails", ["step", "close"])
    async def test_after_an_error(self, fails: str) -> None:
        """The limiter is given back however the source ends."""
        limiter = anyio.CapacityLimiter(1)
        resource = Resource(ValueError("close") if fails == "close" else None)

        def rows() -> Iterator[int]:
            yield 1
            raise ValueError("step")

        with pytest.raises(ValueError, match=fails):
            async with from_thread(
                rows if fails == "step" else resource, limiter=limiter
            ) as stream:
                async for _ in stream:
                    assert limiter.borrowed_tokens == 1
        assert limiter.borrowed_tokens == 0

    @pytest.mark.parametrize("given", ["resource", "function"])
    async def test_no_thread_to_be_had(self, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread can be started, that is an error, and nothing waits for one."""
        limiter, resource = anyio.CapacityLimiter(1), Resource()
        error = RuntimeError("can't start new thread")

        def start(thread: threading.Thread) -> None:
            raise error

        stream = from_thread(resource if given == "resource" else lambda: resource, limiter=limiter)
        with anyio.fail_after(HANGS_AFTER), pytest.raises(RuntimeError) as caught:
            async with stream:
                with monkeypatch.context() as patch:
                    patch.setattr(worker.threading.Thread, "start", start)
                    await anext(stream)
        assert caught.value is error
        assert stream.outcome.kind == "failed"
        assert limiter.borrowed_tokens == 0

    def test_loops(self, backend: Backend) -> None:
        """H5, H10: each event loop has a limiter, the next one a new one."""

        async def main() -> None:
            async with from_thread([1]) as stream:
                assert await anext(stream) == 1

        for _ in range(2):
            backend.run(main)


class TestErrors:
    async def test_bare(self) -> None:
        """E1, E2: the items before it, then the same object, with the frames of the source."""
        error = ValueError("source")

        def failing() -> Iterator[int]:
            yield 1
            raise error

        async with from_thread(failing) as stream:
            assert await anext(stream) == 1
            with pytest.raises(ValueError) as caught:
                await anext(stream)
            assert await rest_of(stream) == []
        assert caught.value is error
        assert error.__context__ is None
        names = [entry.name for entry in caught.traceback]
        assert names[-1] == "failing"
        assert not {"run", "_work"} & set(names)

    @pytest.mark.parametrize("where", ["function", "iter", "close", "throw"])
    async def test_stop_iteration(self, where: str) -> None:
        """E16: StopIteration that ends nothing is a RuntimeError, on this side of the thread."""
        token = CancelToken()

        class Odd:
            def __init__(self) -> None:
                self.rest = iter([1, 2])
                if where == "function":
                    raise StopIteration

            def __iter__(self) -> Odd:
                if where == "iter":
                    raise StopIteration
                return self

            def __next__(self) -> int:
                return next(self.rest)

            def throw(self, exc: BaseException) -> int:
                raise StopIteration

            def close(self) -> None:
                if where == "close":
                    raise StopIteration

        received: list[object] = []
        with suppress(RuntimeError):
            async with with_cancellation(from_thread(Odd), token) as stream:
                async for item in stream:
                    received.append(item)
                    if where == "throw":
                        token.cancel("stop")
            received.append("end")
        # From throw() it is the end, like that of any generator.
        assert received == {"throw": [1, 2, "end"], "close": [1, 2]}.get(where, [])

    @pytest.mark.parametrize("error", [StopAsyncIteration, GeneratorExit, SystemExit])
    async def test_any_error(self, error: type[BaseException]) -> None:
        """E8, E15, E16: whatever a step raises comes out, and is no end."""

        def failing() -> Iterator[int]:
            yield 1
            raise error

        with pytest.raises(RuntimeError if error is StopAsyncIteration else error):
            async with from_thread(failing) as stream:
                async for item in stream:
                    assert item == 1

    async def test_other_cancellation(self) -> None:
        """E1: a StreamCancelled of the generator's own is an end with that reason."""

        def source() -> Iterator[int]:
            yield 1
            raise StreamCancelled("its own")

        async with from_thread(source) as stream:
            assert await rest_of(stream) == [1, "told to its own"]
        assert stream.outcome is not None
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "its own")

    @pytest.mark.parametrize("end", ["error", "token", "interrupt", "break", "end"])
    async def test_no_cycle(self, end: str) -> None:
        """E10: nothing of the source is left when its error is gone, without the collector."""

        class Anchor:
            pass

        gone = threading.Event()

        def source() -> Iterator[int]:
            anchor = Anchor()
            weakref.finalize(anchor, gone.set)
            yield 1
            if end == "interrupt":
                held.block()
            if end in ("error", "interrupt"):
                raise ValueError
            yield 2

        held, token = Source(), CancelToken()
        rows = from_thread(source, interrupt=held.interrupt)
        gc.collect()
        gc.disable()
        try:
            async with with_cancellation(rows, token) as stream:
                assert await anext(stream) == 1
                if end == "token":
                    token.cancel("stop")
                if end == "interrupt":
                    fire = threading.Thread(target=partial(fire_when, held.is_blocked, token))
                    fire.start()
                try:
                    while end != "break":
                        await anext(stream)
                except (StopAsyncIteration, ValueError, StreamCancelled):
                    pass
            del stream, rows
            await in_thread(gone)
        finally:
            gc.enable()


class TestDroppedLoop:
    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("where", ["blocked", "full"])
    async def test_dropped(self, where: str) -> None:
        """Z1: a loop drops the task that waits: the iterable is closed, and nobody waits for it."""
        limiter = anyio.CapacityLimiter(1)
        if where == "full":
            limiter.acquire_on_behalf_of_nowait(self)
        source, resource = Source(0, blocks=True), Resource()
        rows: Any = _Blocking(source.items if where == "blocked" else resource, None, limiter)
        step: Any = aiter(rows).__anext__()
        while step.send(None) is None:
            pass
        # It waits for a future. Before Python 3.13, close() would not reach that.
        with pytest.raises(GeneratorExit):
            step.throw(GeneratorExit)
        source.released.set()
        for thread in threading.enumerate():
            if thread.name.startswith("thread of "):
                thread.join(HANGS_AFTER)
        assert (source.closed, resource.log) == ((1, []) if where == "blocked" else (0, CLOSED[2:]))
        assert limiter.borrowed_tokens == int(where == "full")


async def async_function() -> list[int]:
    raise AssertionError("must not run")


async def async_generator() -> Any:
    yield 1


NO_ITERABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "got NoneType: pass a sync generator"),
    "number": (lambda: 3, "got int: pass a sync generator"),
    "coroutine": (lambda: async_function(), "got async_function.*pass a sync generator function"),
    "coroutine function": (lambda: async_function, "is async: pass a sync generator function"),
    "async generator": (async_generator, "is async: pass it to a combinator as it is"),
    "async generator function": (lambda: async_generator, "pass it to a combinator as it is"),
    "stream": (lambda: from_thread([1]), "got Stream, which is async: pass it to a combinator"),
}


class TestMisuse:
    @pytest.mark.parametrize("name", NO_ITERABLES)
    def test_no_iterable(self, name: str) -> None:
        """Misuse: what is no sync iterable is a TypeError that says what to pass."""
        make, advice = NO_ITERABLES[name]
        with pytest.raises(TypeError, match="expected a sync iterable or a function") as caught:
            from_thread(make())
        assert re.search(advice, str(caught.value))

    @pytest.mark.parametrize("interrupt", [3, async_function])
    def test_interrupt(self, interrupt: Any) -> None:
        """Misuse: an interrupt that cannot be called, or not in one go."""
        with pytest.raises(
            TypeError, match=r"interrupt must be a sync function, got .*: write 'def'"
        ):
            from_thread([1], interrupt=interrupt)

    def test_limiter(self) -> None:
        """Misuse: a number for a limiter."""
        with pytest.raises(TypeError, match=r"write limiter=anyio\.CapacityLimiter\(10\)"):
            from_thread([1], limiter=10)  # type: ignore[arg-type]

    @pytest.mark.parametrize("made", [3, "coroutine"])
    async def test_function(self, made: Any) -> None:
        """Misuse: a function that returns something else."""

        def function() -> Any:
            return async_function() if made == "coroutine" else made

        with pytest.raises(TypeError, match=r"function\(\) returned \w+: a function that is given"):
            async with from_thread(function) as stream:
                await anext(stream)

    async def test_not_entered(self) -> None:
        """G3: iterated without the block, as any stream."""
        with pytest.raises(RuntimeError, match="write 'async with stream:'"):
            await anext(from_thread([1]))


async def test_source_without_a_module() -> None:
    """E1: what ``exec()`` has made need not be in a module; its error is its own all the same."""
    names: dict[str, Any] = {}
    exec("def source():\n    yield 1\n    raise LookupError('gone')", names)
    async with from_thread(names["source"]()) as stream:
        assert await anext(stream) == 1
        with pytest.raises(LookupError, match="gone"):
            await anext(stream)
