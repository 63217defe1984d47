"""Tasks, timeouts and groups of asyncio in a source that is left, and its end with a loop."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trio

from chains import NEVER
from leaving import NATIVE, leave, ways
from observing import call_later, kind
from streamkit import (
    CancelToken,
    Left,
    Stream,
    StreamCancelled,
    current_cancellation,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from support import Backend, Log, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

TOLD = "told that the consumer has left"

# An asyncio.timeout() that has expired takes each cancellation that leaves it for its own, and a
# TaskGroup with a child that has failed drops it: what was told as well.
TIMEOUTS_TAKE_ALL = sys.version_info >= (3, 13)


def outcome_of(stream: Stream[Any]) -> tuple[object, ...]:
    return stream.outcome.kind, stream.outcome.reason, stream.outcome.grace_exceeded


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class TestCleanUp:
    """What the source awaits in its clean-up finds its task as it was."""

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("items", [0, 1])
    async def test_with_asyncio(self, items: int) -> None:
        """C30: ``asyncio.timeout`` and ``TaskGroup`` look at ``cancelling()``: it is as it was."""

        async def source(log: Log) -> AsyncIterator[object]:
            assert current().cancelling() == 0
            try:
                for item in range(items):
                    yield item
                await anyio.sleep_forever()
            finally:
                assert current().cancelling() == 0
                for _ in range(2):
                    async with asyncio.timeout(1):
                        await asyncio.sleep(0.1)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await asyncio.sleep(1)
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(asyncio.sleep(0.1))
                    with suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.sleep(1), 0.1)
                    await asyncio.gather(asyncio.sleep(0.1), asyncio.sleep(0.1))
                assert current().cancelling() == 0
                log("saved")

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(log), way, items=items)
            assert (way, log) == (way, [(2, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.parametrize("items", [0, 1])
    async def test_with_anyio(self, items: int) -> None:
        """C30: groups, timeouts, locks and streams of anyio work."""

        async def source(log: Log) -> AsyncIterator[object]:
            try:
                for item in range(items):
                    yield item
                await anyio.sleep_forever()
            finally:
                lock, (send, receive) = anyio.Lock(), anyio.create_memory_object_stream[int]()
                for _ in range(2):
                    async with anyio.create_task_group() as tasks, lock:
                        tasks.start_soon(anyio.sleep, 0.1)
                        tasks.start_soon(send.send, 1)
                        assert await receive.receive() == 1
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(anyio.sleep_forever)
                        await anyio.sleep(0.1)
                        tasks.cancel_scope.cancel()
                    with anyio.move_on_after(0.1) as scope:
                        await anyio.sleep_forever()
                    assert scope.cancelled_caught
                send.close()
                receive.close()
                log("saved")

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(log), way, items=items)
            assert (way, [(round(at, 3), event) for at, event in log]) == (way, [(1.6, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.real_time
    @pytest.mark.parametrize("items", [0, 1])
    async def test_with_a_thread(self, items: int) -> None:
        """C30: a worker thread is waited for."""

        async def source(log: Log) -> AsyncIterator[object]:
            try:
                for item in range(items):
                    yield item
                await anyio.sleep_forever()
            finally:
                await anyio.to_thread.run_sync(log.append, (0, "in a thread"))
                await anyio.to_thread.run_sync(log.append, (0, "saved"))

        # In real time: long enough for the source to be where it is to be left, in a few ways.
        for way in {"break", "scope", "Task.cancel()"}.intersection(ways()):
            log = Log()
            await leave(source(log), way, items=items, after=0.2)
            assert (way, log.events) == (way, ["in a thread", "saved"])


@pytest.mark.asyncio_only
class TestNativeTasks:
    """The source awaits a task of its own, which takes its time to be cancelled."""

    async def source(self, log: Log, *takes: float) -> AsyncGenerator[object, None]:
        async def job() -> None:
            try:
                await asyncio.sleep(NEVER)
            except asyncio.CancelledError:
                for number, seconds in enumerate(takes):
                    try:
                        await asyncio.sleep(seconds)
                    except asyncio.CancelledError:
                        log("job cancelled again")
                        raise
                    log(f"job {number}")
                raise

        task = asyncio.create_task(job())
        try:
            await task
            yield
        except BaseException as exc:
            log(kind(exc))
            assert current().cancelling() == 0
            await asyncio.sleep(0.5)
            log("saved")
            raise

    async def test_is_asked_once(self) -> None:
        """L10: its clean-up awaits twice, undisturbed; then the source is told, in its grace."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(self.source(log, 1, 1), way)
            assert (way, log) == (
                way,
                [(2, "job 0"), (3, "job 1"), (3, TOLD), (3.5, "saved")],
            )
            assert outcome_of(stream) == ("closed", None, False)

    async def test_hangs(self) -> None:
        """L10: its clean-up hangs: cancelled again after the grace, which ran from the ask."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(self.source(log, NEVER), way, grace=3)
            assert (way, log) == (way, [(4, "job cancelled again"), (4, TOLD)])
            assert outcome_of(stream) == ("closed", None, True)

    async def test_hangs_with_a_token(self) -> None:
        """L10: the same for a token."""
        token, log = CancelToken(), Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with with_cancellation(self.source(log, NEVER), token, grace=3) as stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(4, "job cancelled again"), (4, "told to stop")]
        assert outcome_of(stream) == ("cancelled", "stop", True)

    async def test_takes_part_of_the_grace(self) -> None:
        """L10: what is left of the grace is the source's own."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(self.source(log, 1.75), way, grace=2)
            assert (way, log) == (way, [(2.75, "job 0"), (2.75, TOLD)])
            assert outcome_of(stream) == ("closed", None, True)

    async def test_awaited_after_a_shield(self) -> None:
        """L10: the source awaits it when it has been told behind a shield: asked once, too."""

        async def source(log: Log) -> AsyncIterator[object]:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(2)
            async with aclosing(self.source(log, 1, 1)) as items:
                async for item in items:
                    yield item

        for way in ways():
            log = Log()
            log.start()
            await leave(source(log), way)
            assert (way, log) == (way, [(3, "job 0"), (4, "job 1"), (4, TOLD), (4.5, "saved")])

    async def test_grace_of_zero(self) -> None:
        """L10: with ``grace=0`` the task is cancelled in each turn of the loop from then on."""
        for way in ways():
            log = Log()
            log.start()
            await leave(self.source(log, 1, 1), way, grace=0)
            assert (way, log) == (way, [(1, "job cancelled again"), (1, TOLD)])

    async def test_children_of_a_group(self) -> None:
        """L10: so for the children of an ``asyncio.TaskGroup`` that the source waits for."""

        async def child(log: Log) -> None:
            try:
                await asyncio.sleep(NEVER)
            finally:
                await asyncio.sleep(1)
                await asyncio.sleep(1)
                log("child done")

        async def source(log: Log) -> AsyncIterator[object]:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child(log))
            raise AssertionError("must not be reached")
            yield

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(log), way)
            assert (way, log) == (way, [(3, "child done")])
            assert outcome_of(stream) == ("closed", None, False)


@pytest.mark.asyncio_only
class TestNativeCancellations:
    """``asyncio.timeout()`` and others cancel the source's task, and take that back."""

    async def expire(self, how: str, after: float) -> None:
        if how == "timeout":
            with suppress(TimeoutError):
                async with asyncio.timeout(after):
                    await asyncio.sleep(NEVER)
        elif how == "wait_for":
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(NEVER), after)
        else:

            async def fail() -> None:
                await asyncio.sleep(after)
                raise LookupError

            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(fail())
                    await asyncio.sleep(NEVER)
            except* LookupError:
                pass

    any_how = pytest.mark.parametrize("how", ["timeout", "wait_for", "TaskGroup"])

    @any_how
    async def test_before(self, how: str) -> None:
        """L11: one has expired before the source is left: no grace was begun by that."""

        async def source() -> AsyncIterator[object]:
            await self.expire(how, 0.5)
            assert current().cancelling() == 0
            assert current_cancellation() is None
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                await anyio.sleep(2.5)
                log("saved")
                raise

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(), way, after=4, grace=3)
            assert (way, log) == (way, [(4, TOLD), (6.5, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    @any_how
    async def test_in_the_grace(self, how: str) -> None:
        """L11: one expires in the grace: caught by whom it belongs to."""

        async def source() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            finally:
                await self.expire(how, 0.5)
                await self.expire(how, 0.5)
                assert current().cancelling() == 0
                await asyncio.sleep(1)
                log("saved")

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(), way, grace=3)
            assert (way, log) == (way, [(3, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    @any_how
    async def test_in_the_same_tick(self, how: str) -> None:
        """L11: one expires in the tick in which the source is left: told there or right after."""

        async def source() -> AsyncIterator[object]:
            try:
                await self.expire(how, 1)
                await anyio.sleep_forever()
                yield
            except BaseExceptionGroup as group:
                log([kind(exc) for exc in group.exceptions if isinstance(exc, StreamCancelled)])
                raise
            except BaseException as exc:
                log([kind(exc)])
                raise
            finally:
                assert current().cancelling() == 0
                await asyncio.sleep(1)
                log("saved")

        for after in (1 - 1e-9, 1, 1 + 1e-9):
            for way in ways():
                if TIMEOUTS_TAKE_ALL and (way in NATIVE or how == "TaskGroup"):
                    continue
                log = Log()
                log.start()
                stream = await leave(source(), way, after=after, grace=3)
                assert (way, log) == (way, [(1, [TOLD]), (2, "saved")])
                assert outcome_of(stream) == ("closed", None, False)

    async def test_timeout_around_all_of_it(self) -> None:
        """L11: one that does not expire is around the await at which the source is told."""

        async def source() -> AsyncIterator[object]:
            async with asyncio.timeout(NEVER) as timeout:
                try:
                    await asyncio.sleep(NEVER)
                    yield
                finally:
                    async with asyncio.timeout(1):
                        await asyncio.sleep(0.5)
                    assert not timeout.expired()
                    log("saved")

        for way in ways():
            log = Log()
            log.start()
            await leave(source(), way)
            assert (way, log) == (way, [(1.5, "saved")])

    async def test_source_task_alone(self) -> None:
        """L11: somebody cancels the source's task, and its consumer stays: an error."""
        tasks: list[asyncio.Task[Any]] = []

        async def source() -> AsyncIterator[object]:
            tasks.append(current())
            try:
                await asyncio.sleep(NEVER)
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        log = Log()
        async with with_cancellation(source()) as stream:
            asyncio.get_running_loop().call_later(1, lambda: tasks[0].cancel())
            with pytest.raises(anyio.BrokenResourceError):
                await anext(stream)
        assert log.events == ["cancelled"]
        assert stream.outcome.kind == "failed"

    @pytest.mark.parametrize("how", ["timeout", "swallowed"])
    async def test_seen_before(self, how: str) -> None:
        """L11: a request that the source has seen before is not taken for the telling."""

        async def source() -> AsyncIterator[object]:
            try:
                if how == "timeout":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            try:
                                await asyncio.sleep(NEVER)
                            finally:
                                # It is left while this goes on.
                                await asyncio.shield(asyncio.sleep(2))
                else:
                    asyncio.get_running_loop().call_later(0.5, current().cancel)
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(NEVER)
                await asyncio.sleep(NEVER)
                yield
            except BaseException as exc:
                log(kind(exc))
                await asyncio.sleep(1)
                log("saved")
                raise

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(), way, after=2)
            assert (way, log) == (way, [(2, TOLD), (3, "saved")])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.parametrize("order", [0, 1])
    async def test_source_task_and_consumer(self, order: int) -> None:
        """L11: both tasks are cancelled in one tick, in either order: told once, with its grace."""
        for grace in (3, 0.5):
            log, tasks = Log(), []

            async def source(log: Log = log, tasks: list[Any] = tasks) -> AsyncIterator[object]:
                tasks.append(current())
                try:
                    await asyncio.sleep(NEVER)
                    yield
                except BaseException as exc:
                    log("told")
                    await asyncio.sleep(0)
                    assert current_cancellation() == Left()
                    assert current().cancelling() == 0
                    async with asyncio.timeout(5):
                        await asyncio.sleep(1)
                    log(f"saved after {type(exc).__name__}")
                    raise

            async def consume(source: Any = source, grace: float = grace) -> None:
                async with with_cancellation(source(), grace=grace) as stream:
                    await anext(stream)

            log.start()
            tasks.append(asyncio.create_task(consume()))
            await asyncio.sleep(1)
            for task in reversed(tasks) if order else tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert tasks[0].cancelled()
            assert log.events[0] == "told"
            assert (len(log) == 2) == (grace == 3)


@pytest.mark.asyncio_only
async def test_consumer_that_stays_in_a_loop_of_asyncio() -> None:
    """L3: the same where the loop is not run by anyio, which only tasks can tell there."""
    log = Log()
    log.start()

    async def source() -> AsyncIterator[object]:
        try:
            yield await asyncio.sleep(NEVER)
        finally:
            log("told")

    async def main() -> None:
        with anyio.move_on_after(1):
            async with with_cancellation(source()) as stream:
                try:
                    await anext(stream)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(3)
                        log("leaves")

    await asyncio.create_task(main(), context=contextvars.Context())
    assert log == [(1, "told"), (4, "leaves")]


@pytest.mark.asyncio_only
class TestEndOfTheLoop:
    @pytest.mark.parametrize("where", ["blocked", "at a yield", "reading ahead", "waiting"])
    def test_has_its_grace(self, backend: Backend, where: str) -> None:
        """L3: at the end of ``asyncio.run()`` every source has its grace, and no more than that."""
        for takes in (1, NEVER):

            async def source(log: Log, takes: float = takes) -> AsyncIterator[object]:
                try:
                    yield 1
                    await asyncio.sleep(NEVER)
                finally:
                    try:
                        await asyncio.sleep(takes)
                        log("saved")
                    except BaseException:
                        log("cut")
                        raise

            async def consume(log: Log, source: Any = source) -> None:
                stream = with_cancellation(source(log), grace=2)
                if where == "reading ahead":
                    stream = with_buffer(stream, 8)
                async with stream:
                    await anext(stream)
                    if where == "blocked":
                        await anext(stream)
                    if where == "waiting":
                        with anyio.move_on_after(0.5):
                            await anext(stream)
                    await asyncio.sleep(NEVER)

            async def main(logs: list[Log], consume: Any = consume) -> list[asyncio.Task[None]]:
                tasks = [asyncio.create_task(consume(log)) for log in logs]
                await asyncio.sleep(1)
                for log in logs:
                    log.start()
                return tasks

            logs = [Log() for _ in range(10)]
            backend.run_bare(main, logs)
            expected = (1, "saved") if takes == 1 else (2, "cut")
            assert logs == [[expected]] * 10

    @pytest.mark.parametrize("items", [0, 1])
    def test_nested(self, backend: Backend, items: int) -> None:
        """L6: so has each of the sources inside each other, in whichever order they hear of it."""

        async def level(number: int, log: Log) -> AsyncGenerator[object, None]:
            try:
                if number:
                    async with with_cancellation(level(number - 1, log), grace=1.5) as stream:
                        async for item in stream:
                            yield item
                for item in range(items):
                    yield item
                await asyncio.sleep(NEVER)
            finally:
                await asyncio.sleep(1)
                log(number)

        async def consume(log: Log) -> None:
            async with with_cancellation(level(3, log), grace=1.5) as stream:
                async for _ in stream:
                    await asyncio.sleep(NEVER)

        async def main(logs: list[Log]) -> list[asyncio.Task[None]]:
            tasks = [asyncio.create_task(consume(log)) for log in logs]
            await asyncio.sleep(1)
            for log in logs:
                log.start()
            return tasks

        logs = [Log() for _ in range(30)]
        backend.run_bare(main, logs)
        assert logs == [[(1, 0), (2, 1), (3, 2), (4, 3)]] * 30


class TestAsks:
    """A wait of the consumer's is ended by a scope that is around it, and not around the block."""

    async def source(self, log: Log) -> AsyncGenerator[object, None]:
        try:
            await anyio.sleep(10)
            yield 1
        except BaseException as exc:
            log(kind(exc))
            raise

    async def test_timeout_around_each_ask(self) -> None:
        """L12: a timeout around one ask, again and again, never tells the source."""
        log = Log()
        async with with_cancellation(self.source(log)) as stream:
            for _ in range(9):
                with anyio.move_on_after(1) as scope:
                    await anext(stream)
                assert scope.cancelled_caught
            with anyio.fail_after(2):
                assert await anext(stream) == 1
        assert log.events == ["GeneratorExit"]

    @pytest.mark.asyncio_only
    async def test_native_timeout_around_each_ask(self) -> None:
        """L12: nor does one of asyncio's."""
        log = Log()
        async with with_cancellation(self.source(log)) as stream:
            for _ in range(4):
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await anext(stream)
            for _ in range(5):
                with suppress(TimeoutError):
                    await asyncio.wait_for(anext(stream), 1)
            assert await anext(stream) == 1
        assert log.events == ["GeneratorExit"]

    @pytest.mark.parametrize("chain", ["plain", "buffer", "keepalive"])
    async def test_many_tasks_ask(self, chain: str) -> None:
        """L12: nor does the end of a task that has asked, with the group around it."""
        log = Log()
        stream: Stream[object] = with_cancellation(self.source(log))
        if chain == "buffer":
            stream = with_buffer(stream, 3)
        if chain == "keepalive":
            stream = with_keepalive(stream, NEVER, "beat")
        async with stream:
            for _ in range(9):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anext, stream)
                    await anyio.sleep(1)
                    tasks.cancel_scope.cancel()
            assert await anext(stream) == 1


class TestConsumerStays:
    """A scope around the block is cancelled, and the consumer does not leave."""

    async def test_waits_for_a_lock_that_the_source_holds(self) -> None:
        """L9: it stays in a shield for a lock: the source is told, and lets go of it."""
        log, lock = Log(), anyio.Lock()

        async def source() -> AsyncIterator[object]:
            async with lock:
                try:
                    yield 1
                    await anyio.sleep_forever()
                except BaseException as exc:
                    log(kind(exc))
                    await anyio.sleep(1)
                    raise

        for chain in ("plain", "keepalive", "buffer"):
            log.clear()
            log.start()
            stream: Stream[object] = with_cancellation(source())
            if chain == "keepalive":
                stream = with_keepalive(stream, 0.75, "beat")
            elif chain == "buffer":
                stream = with_buffer(stream, 8)
            with anyio.move_on_after(1) as scope:
                async with stream:
                    try:
                        async for _ in stream:
                            pass
                    finally:
                        with anyio.CancelScope(shield=True):
                            async with lock:
                                log("has the lock")
                            with pytest.raises(anyio.ClosedResourceError):
                                await anext(stream)
            assert scope.cancelled_caught
            assert (chain, log) == (chain, [(1, TOLD), (2, "has the lock")])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.parametrize("ask", ["head", "reading ahead"])
    async def test_other_asks(self, ask: str) -> None:
        """L9: the same for a wait for the status, and for an ask where there is read-ahead."""
        log, lock = Log(), anyio.Lock()

        async def source() -> AsyncIterator[object]:
            async with lock:
                try:
                    if ask != "head":
                        yield 1
                    await anyio.sleep_forever()
                except BaseException as exc:
                    log(kind(exc))
                    raise

        with anyio.CancelScope() as scope:
            stream = with_status(with_buffer(source(), 0 if ask == "head" else 8))
            async with stream:
                if ask != "head":
                    assert await anext(stream) == 1
                    await wait_all_blocked()
                    scope.cancel()
                else:
                    scope.deadline = anyio.current_time() + 1
                try:
                    await (stream.head() if ask == "head" else anext(stream))
                finally:
                    with anyio.CancelScope(shield=True):
                        async with lock:
                            log("has the lock")
        assert scope.cancelled_caught
        assert log.events == [TOLD, "has the lock"]

    async def test_drains(self) -> None:
        """L9: it asks on in a shield: there is nothing more."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            for number in range(100):
                await anyio.sleep(0.75)
                yield number

        with anyio.move_on_after(1) as scope:
            async with with_cancellation(source()) as stream:
                try:
                    async for item in stream:
                        log(item)
                finally:
                    with anyio.CancelScope(shield=True):
                        # The source is told in the next turn, or in the one after.
                        await wait_all_blocked()
                        with pytest.raises(anyio.ClosedResourceError):
                            async for item in stream:
                                log(item)
        assert scope.cancelled_caught
        assert log.events == [0]

    async def test_drains_at_once(self) -> None:
        """L9: the same without a turn in between."""

        async def source() -> AsyncIterator[object]:
            await anyio.sleep_forever()
            yield

        with anyio.move_on_after(1) as scope:
            async with with_cancellation(source()) as stream:
                try:
                    await anext(stream)
                finally:
                    with anyio.CancelScope(shield=True):
                        with pytest.raises(anyio.ClosedResourceError):
                            await anext(stream)
        assert scope.cancelled_caught

    async def test_limits_go_on(self) -> None:
        """L9: it stays without a wait: a limit of ``with_timeout`` ends the source all the same."""
        log, lock = Log(), anyio.Lock()

        async def source() -> AsyncIterator[object]:
            async with lock:
                try:
                    yield 1
                    await anyio.sleep_forever()
                except BaseException as exc:
                    log(str(exc))
                    raise

        log.start()
        with anyio.move_on_after(1) as scope:
            async with with_timeout(with_buffer(source(), 8), total=3) as stream:
                assert await anext(stream) == 1
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2)
                    async with lock:
                        log("has the lock")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert log == [(3, "no end within 3 seconds"), (3, "has the lock")]
        assert outcome_of(stream)[0] == "timed_out"

    async def test_stream_inside_is_told_the_reason(self) -> None:
        """L9: where the scope is that of a source that was told, the reason is passed on."""
        token, log = CancelToken(), Log()

        async def inner() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        async def child(stream: Stream[object]) -> None:
            async with stream:
                try:
                    await anext(stream)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                        log("child done")

        async def outer() -> AsyncIterator[object]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child, with_cancellation(inner()))
                await anyio.sleep_forever()
            yield

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with with_cancellation(outer(), token) as stream:
                with pytest.raises(StreamCancelled):
                    await anext(stream)
        assert log == [(1, "told to stop"), (2, "child done")]


def test_cleans_up_in_a_run_of_trio() -> None:
    """L9: told natively, a source cleans up in a thread that runs trio, with a stream in it."""
    log: list[object] = []

    async def inner() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            log.append(current_cancellation())

    async def clean_up() -> None:
        with trio.CancelScope() as scope:
            async with with_cancellation(inner()) as stream:
                assert await anext(stream) == 1
                scope.cancel()
                await anext(stream)

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(100)
        finally:
            await anyio.to_thread.run_sync(trio.run, clean_up)
            log.append("cleaned up")

    async def consume() -> None:
        async with with_cancellation(source()) as stream:
            async for _ in stream:
                pass

    async def main() -> None:
        consuming = asyncio.create_task(consume())
        await wait_all_blocked()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consuming

    asyncio.run(main())
    assert log == [Left(), "cleaned up"]
