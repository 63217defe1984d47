"""The harness itself: backends, virtual time, leak checks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import random
import socket
import sys
import threading
import time
import weakref
from collections import Counter
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from hypothesis import given, settings, strategies as st

from support import (
    BACKENDS,
    START,
    Backend,
    LeakError,
    Log,
    PlainSource,
    Probe,
    aiter_of,
    backends,
    live_tasks,
    wait_all_blocked,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


@contextmanager
def no_real_time(limit: float = 1.0) -> Iterator[None]:
    """Fail if the block takes more than a moment of real time."""
    before = time.perf_counter()
    yield
    assert time.perf_counter() - before < limit


class Cycle:
    """Keeps a value alive until the garbage collector runs."""

    def __init__(self, value: object) -> None:
        self.value = value
        self.myself = self


class TestBackends:
    async def test_runs_on_each(self, backend: Backend) -> None:
        """Seen by the next test, from outside."""

    def test_runs_once_per_backend(self, request: pytest.FixtureRequest) -> None:
        items = [item for item in request.session.items if "test_runs_on_each" in item.name]
        if items:  # else this test was selected alone
            assert [item.name.partition("[")[2] for item in items] == [f"{n}]" for n in BACKENDS]
        assert ("asyncio+eager" in BACKENDS) == (sys.version_info >= (3, 12))

    async def test_runs_on_what_it_says(self, backend: Backend) -> None:
        if backend.is_trio:
            assert trio.lowlevel.in_trio_task()
            return
        loop = asyncio.get_running_loop()
        assert ("uvloop" in str(type(loop).__mro__)) == (backend.name == "asyncio+uvloop")
        assert (loop.get_task_factory() is not None) == (backend.name == "asyncio+eager")
        log: list[str] = []

        async def child() -> None:
            log.append("child")

        task = asyncio.create_task(child())
        log.append("parent")
        await task
        assert (log == ["child", "parent"]) == (backend.name == "asyncio+eager")

    @pytest.mark.parametrize("number", [1, 2])
    async def test_with_parameters_and_fixtures(
        self, number: int, tmp_path_factory: object, backend: Backend
    ) -> None:
        assert number in {1, 2}
        assert tmp_path_factory
        assert backend.name in BACKENDS

    @pytest.mark.asyncio_only
    async def test_asyncio_only(self, backend: Backend) -> None:
        assert not backend.is_trio

    @pytest.mark.trio_only
    async def test_trio_only(self, backend: Backend) -> None:
        assert backend.is_trio

    @pytest.mark.real_time
    async def test_real_time(self, backend: Backend) -> None:
        assert backend.real
        before = time.monotonic()
        await anyio.sleep(0.02)
        assert time.monotonic() - before > 0.015

    def test_sync_test_runs_something(self, backend: Backend) -> None:
        async def add(a: int, b: int) -> int:
            await anyio.sleep(60)
            return a + b

        assert backend.run(add, 1, 2) == 3
        assert backend.run(add, 3, 4) == 7

    @settings(max_examples=10)
    @given(delay=st.integers(0, 1000))
    def test_with_hypothesis(self, backend: Backend, delay: int) -> None:
        async def sleep() -> float:
            await anyio.sleep(delay)
            return anyio.current_time()

        assert backend.run(sleep) == START + delay

    def test_result_of_test_is_bare(self, backend: Backend) -> None:
        async def fail() -> None:
            await anyio.sleep(1)
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine") as caught:
            backend.run(fail)
        assert not hasattr(caught.value, "__notes__")

    @pytest.mark.parametrize("cls", [KeyboardInterrupt, SystemExit, pytest.skip.Exception])
    def test_base_exceptions_come_out(self, backend: Backend, cls: type[BaseException]) -> None:
        async def fail() -> None:
            await anyio.sleep(1)
            raise cls("stop")

        with pytest.raises(cls):
            backend.run(fail)

    def test_hung_test_is_cancelled(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backends, "HUNG_AFTER", 0.05)
        with pytest.raises(BaseException) as caught:
            backend.run(anyio.sleep_forever)
        assert "cancelled after 0.05 s of real time" in caught.value.__notes__[0]


class TestVirtualTime:
    async def test_sleeping_takes_no_real_time(self) -> None:
        with no_real_time():
            assert anyio.current_time() == START
            await anyio.sleep(3600)
            assert anyio.current_time() == START + 3600
            await anyio.sleep(0.25)
            assert anyio.current_time() == START + 3600.25

    async def test_sleeps_of_many_tasks(self) -> None:
        log = Log()

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            log(seconds)

        delays = [round(random.Random(1).uniform(0, 1000), 3) for _ in range(200)]
        log.start()
        async with anyio.create_task_group() as group:
            for delay in delays:
                group.start_soon(sleeper, delay)
        assert log == [(delay, delay) for delay in sorted(delays)]

    async def test_stands_still_while_something_is_runnable(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
            for _ in range(500):
                await anyio.lowlevel.checkpoint()
                assert anyio.current_time() == START
        assert anyio.current_time() == START + 0.001

    async def test_stands_still_while_tasks_wake_each_other(self) -> None:
        send, receive = anyio.create_memory_object_stream[int](0)

        async def sender() -> None:
            async with send:
                for i in range(300):
                    await send.send(i)

        async with anyio.create_task_group() as group, receive:
            group.start_soon(anyio.sleep, 0.001)
            group.start_soon(sender)
            assert [i async for i in receive] == list(range(300))
            assert anyio.current_time() == START

    async def test_move_on_after(self) -> None:
        with anyio.move_on_after(5) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert anyio.current_time() == START + 5

    async def test_fail_after_that_does_not_fire(self) -> None:
        with anyio.fail_after(5):
            await anyio.sleep(4.5)
        await anyio.sleep(10)
        assert anyio.current_time() == START + 14.5

    async def test_deadline_that_is_over_fires_in_a_busy_loop(self) -> None:
        with anyio.move_on_after(0) as scope:
            while True:
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert anyio.current_time() == START

    async def test_deadline_moved_while_waiting(self) -> None:
        async def postpone() -> None:
            await anyio.sleep(1)
            scope.deadline += 10

        with anyio.CancelScope(deadline=START + 2) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(postpone)
                await anyio.sleep_forever()
        assert anyio.current_time() == START + 12

    async def test_thread_finishes_before_or_after_a_jump(self) -> None:
        released = threading.Event()
        with no_real_time(5):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 1e6)  # a far timer
                assert await anyio.to_thread.run_sync(lambda: 42) == 42

                async def release() -> None:
                    await anyio.sleep(10)
                    released.set()

                group.start_soon(release)
                await anyio.to_thread.run_sync(released.wait)

    async def test_thread_without_timers(self) -> None:
        before = time.thread_time()
        await anyio.to_thread.run_sync(time.sleep, 0.1)
        assert anyio.current_time() == START
        if not trio.lowlevel.in_trio_task():  # MockClock polls
            assert time.thread_time() - before < 0.05

    async def test_thread_calls_back(self) -> None:
        async def double(x: int) -> int:
            await anyio.sleep(100)
            return 2 * x

        assert await anyio.to_thread.run_sync(anyio.from_thread.run, double, 21) == 42
        assert anyio.current_time() == START + 100

    async def test_clock_goes_on_while_a_cancelled_task_resists(self) -> None:
        """On asyncio the cancellation is repeated until the child is done."""

        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)

        with anyio.move_on_after(1):
            if trio.lowlevel.in_trio_task():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
            else:
                async with asyncio.TaskGroup() as group:
                    group.create_task(child())
        assert anyio.current_time() == START + 6

    async def test_wait_all_blocked(self) -> None:
        log = Log()

        async def worker() -> None:
            for step in range(5):
                await anyio.lowlevel.checkpoint()
                log(step)
            await anyio.sleep(1)
            log("slept")

        async with anyio.create_task_group() as group:
            group.start_soon(worker)
            await wait_all_blocked()
            assert log.events == [0, 1, 2, 3, 4]
            await wait_all_blocked()  # nothing to wait for
            assert anyio.current_time() == START
            with anyio.CancelScope() as scope:
                scope.cancel()
                await wait_all_blocked()
            await anyio.sleep(2)
            assert log[-1] == (1, "slept")

    async def test_two_tasks_wait_until_all_are_blocked(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait_all_blocked)
            group.start_soon(wait_all_blocked)
            group.start_soon(anyio.sleep, 1)

    @pytest.mark.real_time
    async def test_wait_all_blocked_in_real_time(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.2)
            await wait_all_blocked()


@pytest.mark.asyncio_only
class TestVirtualLoop:
    async def test_equal_deadlines_run_in_order(self) -> None:
        loop = asyncio.get_running_loop()
        log: list[int] = []
        for i in range(50):
            loop.call_at(START + 1, log.append, i)
        await asyncio.sleep(1)
        assert log == list(range(50))

    async def test_handles(self) -> None:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        first = loop.call_later(1, log.append, "first")
        second = loop.call_later(2, log.append, "second")
        assert (first.when(), second.when()) == (START + 1, START + 2)
        first.cancel()
        first.cancel()
        assert first.cancelled()
        assert not second.cancelled()
        await asyncio.sleep(1.5)
        assert log == []
        await asyncio.sleep(1.5)
        assert log == ["second"]
        second.cancel()  # too late, and harmless

    async def test_timer_cancels_the_next_of_the_same_instant(self) -> None:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        handles: list[asyncio.TimerHandle] = []
        loop.call_later(1, lambda: handles[0].cancel())
        handles.append(loop.call_later(1, log.append, "second"))
        await asyncio.sleep(2)
        assert log == []

    async def test_cancelled_timer_does_not_move_the_clock(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(100, print).cancel()
        await asyncio.sleep(1)
        assert loop.time() == START + 1

    async def test_timer_in_the_past(self) -> None:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        loop.call_later(-5, log.append, "past")
        loop.call_later(0, log.append, "now")
        for _ in range(3):
            await asyncio.sleep(0)
        assert log == ["past", "now"]
        assert loop.time() == START

    async def test_infinite_timer_never_fires(self) -> None:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(math.inf, print, "never")
        await asyncio.sleep(1)
        assert loop.time() == START + 1
        handle.cancel()

    async def test_error_in_a_timer(self) -> None:
        loop = asyncio.get_running_loop()
        errors: list[object] = []
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        error = ValueError()

        def fail() -> None:
            raise error

        loop.call_later(1, fail)
        await asyncio.sleep(2)
        assert errors == [error]

    async def test_timer_has_the_context_of_its_creator(self) -> None:
        loop = asyncio.get_running_loop()
        variable = contextvars.ContextVar("variable", default="outside")
        log: list[str] = []
        variable.set("inside")
        loop.call_later(1, lambda: log.append(variable.get()))
        variable.set("changed")
        loop.call_later(1, lambda: log.append(variable.get()), context=contextvars.Context())
        await asyncio.sleep(2)
        assert log == ["inside", "outside"]

    async def test_does_not_keep_the_context_of_its_creator(self) -> None:
        class Thing:
            pass

        async def child(variable: contextvars.ContextVar[Thing]) -> weakref.ref[Thing]:
            thing = Thing()
            variable.set(thing)
            loop.call_later(10, print).cancel()
            loop.call_later(10, print, context=contextvars.Context())
            return weakref.ref(thing)

        loop = asyncio.get_running_loop()
        thing = await asyncio.create_task(child(contextvars.ContextVar("variable")))
        await asyncio.sleep(0)
        assert thing() is None
        assert loop.time() == START

    async def test_asyncio_timeout(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        assert asyncio.get_running_loop().time() == START + 5
        async with asyncio.timeout(5):
            await asyncio.sleep(4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1)
        assert asyncio.get_running_loop().time() == START + 10

    async def test_call_from_a_thread_wakes_an_idle_loop(self) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def call() -> None:
            time.sleep(0.05)
            loop.call_soon_threadsafe(event.set)

        thread = threading.Thread(target=call)
        thread.start()
        await event.wait()
        thread.join()
        assert loop.time() == START

    async def test_default_executor(self) -> None:
        """Its shutdown has a limit of 300 seconds, which must not be virtual ones."""
        assert await asyncio.to_thread(lambda: 42) == 42
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)

    async def test_readable_socket_comes_before_a_jump(self) -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        with left, right:
            woken: asyncio.Future[float] = loop.create_future()

            def on_readable() -> None:
                loop.remove_reader(right)
                woken.set_result(loop.time())

            loop.add_reader(right, on_readable)
            loop.call_later(1, left.send, b"x")
            async with asyncio.timeout(1.5):
                assert await woken == START + 1


class TestLeakCheck:
    def test_leaked_task(self, backend: Backend) -> None:
        async def leak() -> None:
            if backend.is_trio:
                trio.lowlevel.spawn_system_task(trio.sleep_forever, name="lost")
            else:
                self.task = asyncio.create_task(asyncio.sleep(3600), name="lost")

        with pytest.raises(LeakError, match=r"task still alive: .*lost"):
            backend.run(leak)

    async def test_tasks_that_were_there(self) -> None:
        await anyio.to_thread.run_sync(lambda: None)
        async with anyio.create_task_group() as group:
            before = live_tasks()
            group.start_soon(anyio.sleep, 1)
            await wait_all_blocked()
            assert len(live_tasks() - before) == 1

    @pytest.mark.parametrize("how", ["dropped", "in a cycle", "kept"])
    def test_generator_left_open(self, backend: Backend, how: str) -> None:
        closed: list[bool] = []

        async def lost() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                closed.append(True)

        async def leak() -> None:
            agen = lost()
            await anext(agen)
            if how == "in a cycle":
                Cycle(agen)
            elif how == "kept":
                kept.append(agen)

        kept: list[object] = []
        gc.disable()  # or it might find the cycle before the check does
        try:
            with pytest.raises(LeakError, match=r"async generator .*\.lost") as caught:
                backend.run(leak)
        finally:
            gc.enable()
        assert ("still open" in str(caught.value)) == (how == "kept")
        assert len(backend.finalized) == (how != "kept")
        assert closed == [True]

    @pytest.mark.allow_gc_generators
    async def test_generator_may_be_left_open(self, backend: Backend) -> None:
        async def lost() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await anyio.lowlevel.cancel_shielded_checkpoint()

        async for _ in lost():
            break
        await wait_all_blocked()
        assert [name.rpartition(".")[2] for name in backend.finalized] == ["lost"]

    async def test_closed_generator(self, backend: Backend) -> None:
        async with aclosing(aiter_of(1, 2)) as source:
            await anext(source)
        assert [i async for i in aiter_of(1, 2)] == [1, 2]
        aiter_of(3)  # never started
        assert backend.finalized == []

    @pytest.mark.asyncio_only
    def test_error_that_nobody_fetched(self, backend: Backend) -> None:
        async def fail() -> None:
            raise LookupError("mine")

        async def leak() -> None:
            task = asyncio.create_task(fail())
            await wait_all_blocked()
            del task

        with pytest.raises(LeakError, match=r"never retrieved\n(.*\n)*LookupError: mine"):
            backend.run(leak)

    @pytest.mark.asyncio_only
    def test_error_in_a_callback(self, backend: Backend) -> None:
        async def leak() -> None:
            asyncio.get_running_loop().call_soon(divmod, 1, 0)
            await wait_all_blocked()

        with pytest.raises(LeakError, match="ZeroDivisionError"):
            backend.run(leak)

    def test_failed_test_keeps_its_error(self, backend: Backend) -> None:
        async def lost() -> AsyncGenerator[int, None]:
            yield 1

        async def leak() -> None:
            await anext(lost())
            raise LookupError("mine")

        with pytest.raises(LookupError) as caught:
            backend.run(leak)
        assert "garbage collector" in caught.value.__notes__[0]

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("how", ["at once", "in a cycle", "with the loop"])
    def test_warning_in_del_belongs_to_this_test(
        self, backend: Backend, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the unraisable hook sees by the end of the call makes pytest fail the test."""

        async def leak() -> None:
            streams = anyio.create_memory_object_stream[int](0)
            if how == "in a cycle":
                Cycle(streams)
            elif how == "with the loop":
                variable.set(Cycle(streams))

        variable = contextvars.ContextVar[Cycle]("variable")
        seen: list[type[BaseException]] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda info: seen.append(info.exc_type))
        backend.run(leak)
        assert seen == [ResourceWarning, ResourceWarning]

    @pytest.mark.filterwarnings("error")
    def test_coroutine_never_awaited(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def leak() -> None:
            anyio.sleep(1)  # type: ignore[unused-coroutine]

        seen: list[type[BaseException]] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda info: seen.append(info.exc_type))
        backend.run(leak)
        assert seen == [RuntimeWarning]

    def test_hooks_are_restored(self, backend: Backend) -> None:
        before = sys.get_asyncgen_hooks()
        backend.run(anyio.sleep, 1)
        assert sys.get_asyncgen_hooks() == before


class TestSources:
    async def test_probe(self) -> None:
        probe = Probe("a", "b", every=2)
        log = Log()
        log.start()
        async for item in probe.source():
            log(item)
        assert log == [(2, "a"), (4, "b")]
        assert (probe.produced, probe.closed, probe.seen) == (["a", "b"], 1, [])
        assert probe.task_ids == {anyio.get_current_task().id}

    async def test_probe_sees_cancellation_and_close(self) -> None:
        blocked = Probe(1, block=True)
        with anyio.move_on_after(1):
            async for _ in blocked.source():
                pass
        closed = Probe(1, 2)
        async with aclosing(closed.source()) as source:
            await anext(source)
        assert [(where, type(exc)) for where, exc in blocked.seen + closed.seen] == [
            ("await", anyio.get_cancelled_exc_class()),
            ("yield", GeneratorExit),
        ]
        assert (blocked.closed, closed.closed) == (1, 1)

    async def test_probe_raises(self) -> None:
        probe = Probe[int](error=(error := ValueError()))
        assert not probe.started
        with pytest.raises(ValueError) as caught:
            await anext(probe.source())
        assert caught.value is error
        assert probe.started
        assert (probe.seen, probe.closed) == ([], 1)

    async def test_plain_source(self) -> None:
        source = PlainSource(1, 2)
        assert not hasattr(source, "aclose")
        assert not hasattr(source, "athrow")
        assert [item async for item in source] == [1, 2]


def test_names_of_files() -> None:
    """Harness: files of tests that are collected together have different names."""
    here = Path(__file__).parent
    # What is in a package is imported by its whole name.
    folders = [here, *(path for path in here.glob("_*") if path.is_dir())]
    names = Counter(path.name for folder in folders for path in folder.glob("*.py"))
    del names["conftest.py"]
    assert [name for name, count in names.items() if count > 1] == []
