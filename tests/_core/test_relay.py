"""The trampoline: what it drives, and what it raises in the place of a cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from observing import blocked, call_later, consume, kind
from streamkit import CancelToken, StreamCancelled, with_cancellation
from streamkit._core.backend import get_backend
from streamkit._core.relay_trio import abort_wait
from streamkit._core.scopes import Scopes
from support import Log, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

T = TypeVar("T")


@dataclass
class Asked(Generic[T]):
    """A source whose ``__anext__`` returns whatever ``make`` makes."""

    make: Callable[[], Awaitable[T]]

    def __aiter__(self) -> Asked[T]:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self.make()


class PlainAwaitable(Awaitable[object]):
    """An awaitable over a plain iterator, which has no ``send``, ``throw`` or ``close``."""

    def __init__(self, result: object, *futures: asyncio.Future[None]) -> None:
        self.result = result
        self.futures = list(futures)

    def __await__(self) -> Generator[Any, Any, object]:
        return self  # type: ignore[return-value]  # the point of it

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> object:
        if self.futures:
            future = self.futures.pop()
            # What a task asks of a future that an await hands to it.
            future._asyncio_future_blocking = True
            return future
        raise StopIteration(self.result)


class TestAwaitables:
    async def test_with_await_only(self) -> None:
        """P12: an awaitable that is no coroutine is driven by the iterator it gives."""

        class Later:
            def __await__(self) -> Generator[Any, Any, str]:
                yield from anyio.sleep(1).__await__()
                return "item"

        async with with_cancellation(Asked(Later)) as stream:
            assert await anext(stream) == "item"
            assert await anext(stream) == "item"

    async def test_told_in_await_only(self) -> None:
        """P12: and it is told."""
        token, log = CancelToken(), Log()

        class Never:
            def __await__(self) -> Generator[Any, Any, None]:
                try:
                    yield from anyio.sleep_forever().__await__()
                except StreamCancelled as stop:
                    log(kind(stop))
                    raise

        await consume(with_cancellation(Asked(Never), token), log, token)
        assert log == [(1, "told to stop"), (1, "consumer: stop")]

    async def test_plain_iterator(self) -> None:
        """P12: an iterator without ``send`` that does not suspend is driven by ``next()``."""
        async with with_cancellation(Asked(lambda: PlainAwaitable("item"))) as stream:
            assert await anext(stream) == "item"

    @pytest.mark.asyncio_only
    async def test_plain_iterator_that_suspends(self) -> None:
        """P12: the same when it suspends; on trio such an iterator would miss what trio sends."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.set_result, None)
        async with with_cancellation(Asked(lambda: PlainAwaitable("item", future))) as stream:
            assert await anext(stream) == "item"

    @pytest.mark.asyncio_only
    async def test_plain_iterator_is_told(self) -> None:
        """P12: without ``throw`` the exception is raised in its place: the stream is cancelled."""
        token, log = CancelToken(), Log()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream = with_cancellation(Asked(lambda: PlainAwaitable("item", future)), token)
        await consume(stream, log, token)
        assert log == [(1, "consumer: stop")]
        assert future.cancelled()

    @pytest.mark.asyncio_only
    async def test_future(self) -> None:
        """P12: an iterator written in C, that of a future, is driven and told."""
        token, log = CancelToken(), Log()
        futures: list[asyncio.Future[int]] = []

        def make() -> asyncio.Future[int]:
            futures.append(asyncio.get_running_loop().create_future())
            if len(futures) == 1:
                futures[0].set_result(1)
            return futures[-1]

        await consume(with_cancellation(Asked(make), token), log, token)
        assert log == [(0, 1), (1, "consumer: stop")]
        assert futures[1].cancelled()

    @pytest.mark.asyncio_only
    async def test_future_that_fails(self) -> None:
        """E1: asyncio throws the error of a future: it goes on into the source as it is."""
        error, log = LookupError("future"), Log()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.set_exception, error)

        async def source() -> AsyncGenerator[object, None]:
            try:
                await future
            except LookupError as exc:
                yield exc

        await consume(with_cancellation(source()), log)
        assert log == [(1, error), (1, "end")]

    async def test_dropped_by_the_loop(self) -> None:
        """Z1: an event loop that drops its task closes what that awaits."""
        log = Log()

        async def work() -> object:
            try:
                return await anyio.sleep_forever()
            finally:
                log("closed")

        backend = get_backend()
        scopes = Scopes(5, backend.now, backend.loop, backend.make_scope)
        driven: Any = backend.relay(scopes, backend.current_task()).drive(work())
        driven.send(None)
        driven.close()
        assert log.events == ["closed"]

    @pytest.mark.asyncio_only
    async def test_value_of_a_foreign_driver(self) -> None:
        """Z1: asyncio sends nothing into a task, but what drives one by hand may."""

        class Asks:
            def __await__(self) -> Generator[str, str, str]:
                return (yield "a question")

        async def work() -> str:
            return await Asks()

        backend = get_backend()
        scopes = Scopes(5, backend.now, backend.loop, backend.make_scope)
        relay = backend.relay(scopes, backend.current_task())
        relay.in_source = True
        driven: Any = relay.drive(work())
        assert driven.send(None) == "a question"
        with pytest.raises(StopIteration) as stopped:
            driven.send("an answer")
        assert stopped.value.value == "an answer"

    @pytest.mark.trio_only
    async def test_of_a_foreign_loop(self) -> None:
        """E1: a source awaits what trio does not know: its TypeError arrives bare."""

        class Foreign:
            def __await__(self) -> Generator[Any, Any, None]:
                yield "something for another event loop"

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            await Foreign()

        async with with_cancellation(source()) as stream:
            assert await anext(stream) == 1
            with pytest.raises(TypeError, match="something for another event loop"):
                await anext(stream)


class TestException:
    async def test_class_in_the_source(self, backend: Any) -> None:
        """P1: on asyncio the delivered object is also a ``CancelledError``."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except BaseException as exc:
                log(type(exc).__name__)
                log(isinstance(exc, StreamCancelled))
                log(isinstance(exc, asyncio.CancelledError))
                log(isinstance(exc, Exception))
                log((exc.args, str(exc)))
                raise

        await consume(with_cancellation(source(), token), log, token)
        assert log.events == [
            "StreamCancelled",
            True,
            not backend.is_trio,
            False,
            (("stop",), "stop"),
            "consumer: stop",
        ]

    async def test_class_at_a_yield(self, backend: Any) -> None:
        """P1: the same at a yield, where the source may be in the body of a task group."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                yield 2
            except StreamCancelled as exc:
                log(isinstance(exc, asyncio.CancelledError))
                raise

        await consume(with_cancellation(source(), token), log, token, busy=10)
        assert log == [(0, 1), (1, not backend.is_trio), (10, 2), (20, "consumer: stop")]

    @pytest.mark.parametrize("at", ["await", "yield"])
    async def test_reason_from_another_cancellation(self, at: str) -> None:
        """P1: a reason that reads like a cancellation of anyio's is a reason like any other."""
        reason = "Cancelled via cancel scope 7f0123456789; reason: deadline exceeded"
        token, log = CancelToken(), Log()

        async def items() -> AsyncGenerator[None, None]:
            try:
                while True:
                    yield
                    if at == "await":
                        await anyio.sleep_forever()
            except StreamCancelled as stop:
                log(f"told: {stop.reason}")
                raise

        async def source() -> AsyncGenerator[None, None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                async for _ in items():
                    yield
            log("must not be reached")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, reason)
            with pytest.raises(StreamCancelled) as caught:
                async with with_cancellation(source(), token) as stream:
                    async for _ in stream:
                        await anyio.sleep(0 if at == "await" else 2)
        assert caught.value.reason == reason
        assert log.events == [f"told: {reason}"]

    async def test_class_at_the_consumer(self) -> None:
        """P1: the consumer sees the plain class, with the traceback of the source."""
        token, log = CancelToken(), Log()
        async with with_cancellation(blocked(log), token) as stream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 1, token.cancel, "stop")
                with pytest.raises(StreamCancelled) as caught:
                    await anext(stream)
        assert type(caught.value) is StreamCancelled
        assert not isinstance(caught.value, asyncio.CancelledError | Exception)
        assert "blocked" in [entry.name for entry in caught.traceback]

    async def test_has_no_context(self) -> None:
        """P9: the backend's cancellation is no context of what comes in its place."""
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled as stop:
                log((stop.__context__, stop.__cause__))
                raise

        await consume(with_cancellation(source(), token), log, token)
        assert log == [(1, (None, None)), (1, "consumer: stop")]

    async def test_is_fresh(self) -> None:
        """P16: two streams on one token raise two exceptions, which share no traceback."""
        token = CancelToken()
        seen: list[BaseException] = []

        async def source() -> AsyncGenerator[object, None]:
            try:
                await anyio.sleep_forever()
                yield None
            except StreamCancelled as stop:
                seen.append(stop)
                raise

        async with anyio.create_task_group() as tasks:
            logs = [Log(), Log()]
            for log in logs:
                tasks.start_soon(consume, with_cancellation(source(), token), log)
            await wait_all_blocked()
            token.cancel("stop")
        first, second = seen
        assert first is not second
        assert first.__traceback__ is not second.__traceback__
        assert [log.events for log in logs] == [["consumer: stop"]] * 2


class TestOwnScopes:
    """A scope or a timeout of the source's own that ends in the same tick as the token."""

    @pytest.mark.parametrize("first", ["scope", "token"])
    async def test_scope(self, first: str) -> None:
        """P9: the source's own scope claims its own cancellation, and never the signal."""
        token, log = CancelToken(), Log()
        scope = anyio.CancelScope()

        async def source() -> AsyncGenerator[object, None]:
            try:
                with scope:
                    await anyio.sleep_forever()
                log("scope is left")
                await anyio.sleep_forever()
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                await anyio.sleep(1)
                log("cleaned up")
                raise

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(source(), token), log)
            await wait_all_blocked()
            if first == "scope":
                scope.cancel()
                token.cancel("stop")
            else:
                token.cancel("stop")
                scope.cancel()
        told = ["told to stop", "cleaned up", "consumer: stop"]
        assert log.events == (["scope is left", *told] if first == "scope" else told)

    @pytest.mark.parametrize("first", ["scope", "token"])
    @pytest.mark.parametrize("seconds", [0, 1])
    async def test_scope_around_another_stream(self, first: str, seconds: float) -> None:
        """P9: the same where the scope is left through a clean-up that is shielded."""
        token, log, scope = CancelToken(), Log(), anyio.CancelScope()

        async def inner() -> AsyncGenerator[None, None]:
            while True:
                if seconds:
                    await anyio.sleep(seconds)
                yield

        async def source() -> AsyncGenerator[None, None]:
            try:
                with scope:
                    async with with_cancellation(inner()) as stream:
                        async for item in stream:
                            yield item
                await anyio.sleep_forever()
            except BaseException as exc:
                log(kind(exc))
                raise

        def cancel() -> None:
            for call in [scope.cancel, token.cancel][:: 1 if first == "scope" else -1]:
                call()

        async with anyio.create_task_group() as tasks:
            if seconds:
                tasks.start_soon(call_later, 3.5, cancel)
            with pytest.raises(StreamCancelled):
                async with with_cancellation(source(), token) as stream:
                    items = 0
                    async for _ in stream:
                        items += 1
                        if items == 10:
                            cancel()
        assert log.events == ["told to None"]

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("first", ["timeout", "token"])
    async def test_asyncio_timeout(self, first: str) -> None:
        """P5: ``asyncio.timeout()`` claims its own, and the next await raises the signal."""
        token, log = CancelToken(), Log()
        timeout = asyncio.timeout(None)
        now = asyncio.Event()

        async def source() -> AsyncGenerator[object, None]:
            task = asyncio.current_task()
            assert task is not None
            try:
                try:
                    async with timeout:
                        await asyncio.sleep(60)
                except TimeoutError:
                    log("timeout")
                await asyncio.sleep(60)
                yield None
            except StreamCancelled as stop:
                log((kind(stop), task.cancelling()))
                await asyncio.sleep(1)
                log("cleaned up")
                raise

        async def cancel_when_told() -> None:
            await now.wait()
            token.cancel("stop")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(source(), token), log)
            tasks.start_soon(cancel_when_told)
            await wait_all_blocked()
            # Both happen in the next iteration of the loop, before the source's task runs.
            if first == "token":
                now.set()
            timeout.reschedule(0)
            now.set()
        assert log == [
            (0, "timeout"),
            (0, ("told to stop", 0)),
            (1, "cleaned up"),
            (1, "consumer: stop"),
        ]

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("first", ["task", "token"])
    async def test_native_cancel_of_the_source_task(self, first: str) -> None:
        """P5: a ``Task.cancel()`` of the source's own task and a token: neither is lost."""
        token, log = CancelToken(), Log()
        running: list[asyncio.Task[Any] | None] = []
        reasons: list[object] = []

        async def source() -> AsyncGenerator[object, None]:
            running.append(asyncio.current_task())
            for _ in range(2):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError as exc:
                    log(kind(exc))
                    reasons.append(exc.args)
            yield "last"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(source(), token), log)
            await wait_all_blocked()
            task = running[0]
            assert task is not None
            if first == "task":
                task.cancel()
                token.cancel("stop")
            else:
                token.cancel("stop")
                task.cancel()
        assert log.events == ["cancelled", "told to stop", "last", "end"]
        # Nothing marks the first one as ours, which asyncio folds into it.
        assert reasons == [(), ("stop",)]

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("scope_at", [1, 2, 3])
    @pytest.mark.parametrize("outer", ["scope", "timeout"])
    async def test_native_cancel_and_a_scope_at_a_yield(self, outer: str, scope_at: float) -> None:
        """B4: a scope and asyncio.timeout() across a yield both expire there: neither is lost."""
        log = Log()
        task: asyncio.Task[Any] | None = None

        async def source() -> AsyncGenerator[object, None]:
            nonlocal task
            task = asyncio.current_task()
            scope = anyio.CancelScope(deadline=anyio.current_time() + scope_at)
            try:
                async with AsyncExitStack() as stack:
                    if outer == "scope":
                        stack.enter_context(scope)
                    await stack.enter_async_context(asyncio.timeout(2))
                    if outer == "timeout":
                        stack.enter_context(scope)
                    yield "first"
                    await anyio.sleep(60)
            except TimeoutError:
                log("TimeoutError")
            await anyio.sleep(1)
            assert task is not None
            yield scope.cancel_called, task.cancelling()

        async with with_cancellation(source()) as stream:
            async for item in stream:
                log(item)
                await anyio.sleep(5)
        assert log == [(0, "first"), (2, "TimeoutError"), (5, (scope_at < 3, 0))]

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("items_between", [0, 1])
    async def test_native_cancel_and_a_scope_in_a_turn(self, items_between: int) -> None:
        """B4: the same with a consumer that keeps pace, where both hit the turn before a wait."""
        log, timeout, scope = Log(), asyncio.timeout(None), anyio.CancelScope()

        async def source() -> AsyncGenerator[object, None]:
            task = asyncio.current_task()
            assert task is not None
            try:
                with scope:
                    async with timeout:
                        while True:
                            yield None
            except TimeoutError:
                yield "TimeoutError", task.cancelling()

        async with with_cancellation(source()) as stream:
            number = 0
            async for item in stream:
                number += 1
                if number == 10:
                    scope.cancel()
                if number == 10 + items_between:
                    timeout.reschedule(0)
                if item is not None:
                    log(item)
        assert log.events == [("TimeoutError", 0)]


@dataclass
class Primitive:
    """Something that is handed over from one task to the next that waits for it."""

    take: Callable[[], Awaitable[object]]
    #: Does not suspend.
    give: Callable[[], Awaitable[object]]
    close: Callable[[], object] = lambda: None


async def asyncio_lock() -> Primitive:
    lock = asyncio.Lock()
    await lock.acquire()
    return Primitive(lock.acquire, as_async(lock.release))


async def asyncio_semaphore() -> Primitive:
    semaphore = asyncio.Semaphore(0)
    return Primitive(semaphore.acquire, as_async(semaphore.release))


async def asyncio_condition() -> Primitive:
    condition = asyncio.Condition()

    async def take() -> None:
        async with condition:
            await condition.wait()

    async def give() -> None:
        async with condition:
            condition.notify()

    return Primitive(take, give)


async def asyncio_queue() -> Primitive:
    queue: asyncio.Queue[int] = asyncio.Queue()
    return Primitive(queue.get, as_async(queue.put_nowait, 1))


async def anyio_lock() -> Primitive:
    lock = anyio.Lock()
    await lock.acquire()
    return Primitive(lock.acquire, as_async(lock.release))


async def anyio_semaphore() -> Primitive:
    semaphore = anyio.Semaphore(0)
    return Primitive(semaphore.acquire, as_async(semaphore.release))


async def anyio_memory_stream() -> Primitive:
    send, receive = anyio.create_memory_object_stream[int](1)

    def close() -> None:
        send.close()
        receive.close()

    return Primitive(receive.receive, as_async(send.send_nowait, 1), close)


def as_async(function: Callable[..., object], *args: object) -> Callable[[], Awaitable[object]]:
    async def call() -> object:
        return function(*args)

    return call


first_of_two = pytest.mark.parametrize("first", ["hand-over", "token"])


@first_of_two
class TestHandOver:
    @pytest.mark.parametrize("make", [anyio_lock, anyio_semaphore, anyio_memory_stream])
    async def test_anyio(self, make: Callable[[], Awaitable[Primitive]], first: str) -> None:
        """C32: a token in the tick of a hand-over loses no permit or item, and starves nobody."""
        await self.check(await make(), first)

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize(
        "make", [asyncio_lock, asyncio_semaphore, asyncio_condition, asyncio_queue]
    )
    async def test_asyncio(self, make: Callable[[], Awaitable[Primitive]], first: str) -> None:
        """C32: the same with the primitives of asyncio."""
        await self.check(await make(), first)

    async def check(self, primitive: Primitive, first: str) -> None:
        token, log = CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                await primitive.take()
                log("source has it")
                try:
                    await anyio.sleep_forever()
                finally:
                    await primitive.give()
                yield None
            except StreamCancelled as stop:
                log(kind(stop))
                raise

        async def neighbour() -> None:
            await primitive.take()
            log("neighbour has it")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, with_cancellation(source(), token), log)
            await wait_all_blocked()
            tasks.start_soon(neighbour)
            await wait_all_blocked()
            if first == "hand-over":
                await primitive.give()
                token.cancel("stop")
            else:
                token.cancel("stop")
                await primitive.give()
        primitive.close()
        # In which order the tasks go on after that is up to the backend.
        expected = {"told to stop", "neighbour has it", "consumer: stop"}
        if first == "hand-over":
            assert log.events[:2] == ["source has it", "told to stop"]
            expected.add("source has it")
        assert len(log) == len(expected)
        assert set(log.events) == expected


@pytest.mark.asyncio_only
async def test_result_is_let_go() -> None:
    """C1: what the source has awaited is kept alive neither at its yield nor after its end."""

    class Answer:
        pass

    answers: list[weakref.ref[Answer]] = []

    async def fetch() -> Answer:
        await anyio.lowlevel.checkpoint()
        answer = Answer()
        answers.append(weakref.ref(answer))
        return answer

    async def source() -> AsyncGenerator[str, None]:
        await asyncio.create_task(fetch())
        yield "a"
        await asyncio.create_task(fetch())

    async with with_cancellation(source(), CancelToken()) as stream:
        assert await anext(stream) == "a"
        await wait_all_blocked()
        gc.collect()
        assert [answer() for answer in answers] == [None]
        assert [item async for item in stream] == []
        gc.collect()
        assert [answer() for answer in answers] == [None, None]


@pytest.mark.trio_only
class TestAbortWait:
    """How a wait on trio ends with an error, whoever waits."""

    async def test_in_a_shield(self) -> None:
        """L1: a wait in a shield is aborted once, and what it waited for may come later."""
        comes, waits, raised = trio.Event(), list[Any](), list[BaseException]()

        async def wait() -> None:
            waits.append(trio.lowlevel.current_task())
            with trio.CancelScope(shield=True):
                try:
                    await comes.wait()
                except KeyError as exc:
                    raised.append(exc)

        error = KeyError()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(wait)
            await wait_all_blocked()
            abort_wait(waits[0], error)
            abort_wait(waits[0], KeyError("it is about to go on"))
        abort_wait(waits[0], KeyError("it has ended"))
        comes.set()
        assert raised == [error]

    @pytest.mark.real_time
    async def test_in_a_thread(self) -> None:
        """L1: a thread is waited for, and sees the error where it looks."""
        may_look, waits, raised = threading.Event(), list[Any](), list[BaseException]()

        def look() -> None:
            may_look.wait()
            try:
                anyio.from_thread.check_cancelled()
            except KeyError as exc:
                raised.append(exc)

        async def wait() -> None:
            waits.append(trio.lowlevel.current_task())
            await anyio.to_thread.run_sync(look)

        error = KeyError()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(wait)
            await wait_all_blocked()
            abort_wait(waits[0], error)
            assert tasks.child_tasks
            may_look.set()
        assert raised == [error]


class Mark:
    """Something that a caller holds."""


async def test_keeps_nothing_of_whoever_tells() -> None:
    """C1: until the source goes on, nothing holds the frames of whoever has told it."""
    token, log = CancelToken(), Log()

    def stop() -> weakref.ref[Mark]:
        mark = Mark()
        token.cancel("stop")
        return weakref.ref(mark)

    stream = with_cancellation(blocked(log), token)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume, stream, log)
        await wait_all_blocked()
        assert stop()() is None
    assert stream.outcome.reason == "stop"
