"""The registry: tokens by key, told by whoever knows the key, and empty when nobody holds one."""

from __future__ import annotations

import gc
import math
import threading
import tracemalloc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from observing import blocked, call_later, consume
from streamkit import (
    CancelRegistry,
    CancelToken,
    KeyHeld,
    RegistryStats,
    Released,
    StreamCancelled,
    with_cancellation,
)
from support import Log, Probe, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from support import Backend


class Clock:
    """Stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def registry_with_clock(**arguments: Any) -> tuple[CancelRegistry, Clock]:
    registry, clock = CancelRegistry(**arguments), Clock()
    registry._clock = clock
    return registry, clock


def is_cancelled_at_birth(registry: CancelRegistry, key: object) -> bool:
    with registry.open(key) as token:
        return token.cancelled


class TestExclusive:
    def test_held(self) -> None:
        """C14: one who holds a key exclusively keeps out others who want that, and nobody else."""
        registry = CancelRegistry()
        with registry.open("run"), registry.open("run", exclusive=True) as token:
            with registry.open("run"), registry.open("other", exclusive=True):
                with pytest.raises(KeyHeld, match=r"'run'.*answer 409") as caught:
                    with registry.open("run", exclusive=True):
                        raise AssertionError("must not be entered")
                assert caught.value.key == "run"
            assert registry.stats().holders == 2
            assert registry.cancel("run", "stop") == 2
            assert token.reason == "stop"
        with registry.open("run", exclusive=True) as token:
            assert not token.cancelled

    def test_early_cancellation(self) -> None:
        """C13: who is kept out takes no cancellation that was meant for the next one."""
        registry = CancelRegistry()
        with registry.open("run", exclusive=True):
            with pytest.raises(KeyHeld):
                registry.open("run", exclusive=True).__enter__()
        registry.cancel("run", "early")
        with registry.open("run", exclusive=True) as token:
            assert token.reason == "early"

    async def test_stream(self) -> None:
        """C14: one run per key: the second is not started, and the error is bare."""
        registry = CancelRegistry()

        async def source() -> AsyncGenerator[int, None]:
            raise AssertionError("must not be started")
            yield 1

        async with registry.open("run", exclusive=True):
            with pytest.raises(KeyHeld):
                async with with_cancellation(source(), registry.open("run", exclusive=True)):
                    raise AssertionError("must not be entered")
        assert len(registry) == 0

    async def test_stop_and_follow(self) -> None:
        """C21: stop the one that holds it, wait until it has left, and take its place."""
        registry = CancelRegistry()

        async def hold() -> None:
            async with registry.open("run", exclusive=True) as token:
                await token.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await wait_all_blocked()
            assert await registry.cancel_and_wait("run") == Released(all_left=True, held=True)
            async with registry.open("run", exclusive=True) as token:
                assert not token.cancelled
        assert await registry.cancel_and_wait("run") == Released(all_left=True, held=False)


class TestStats:
    def test_counts(self) -> None:
        """H7: it tells how many keys are held, by how many, and what is remembered."""
        registry, clock = registry_with_clock(remember=30)
        assert registry.stats() == RegistryStats(held=0, holders=0, remembered=0)
        with registry.open("a"), registry.open("a"), registry.open("b"):
            registry.cancel("a")
            registry.cancel("early")
            assert registry.stats() == RegistryStats(held=2, holders=3, remembered=1)
        clock.now += 31
        assert registry.stats() == RegistryStats(held=0, holders=0, remembered=0)


class TestHolders:
    def test_one(self) -> None:
        """C14: who holds a key is told, with the reason, and then is told no more."""
        registry = CancelRegistry()
        with registry.open("run") as token:
            assert isinstance(token, CancelToken)
            assert not token.cancelled
            assert registry.cancel("run", "stop") == 1
            assert (token.cancelled, token.reason) == (True, "stop")
            assert registry.cancel("run", "again") == 0
            assert token.reason == "stop"

    def test_several(self) -> None:
        """C14: several holders of a key are all told, each by a token of its own; no other is."""
        registry = CancelRegistry()
        with registry.open("run") as one, registry.open("run") as two, registry.open(2) as other:
            assert one is not two
            one.cancel("mine alone")
            assert registry.cancel("run", "stop") == 1
            assert (one.reason, two.reason) == ("mine alone", "stop")
            assert not other.cancelled

    async def test_told_while_others_are_told(self) -> None:
        """C14: a callback that cancels the key again, with another reason, changes no reason."""
        registry = CancelRegistry()
        with registry.open("run") as one, registry.open("run") as two:
            told: list[int] = []
            one.on_cancel(lambda reason: told.append(registry.cancel("run", "second")))
            assert registry.cancel("run", "first") == 1
            assert told == [1]
            assert (one.reason, two.reason) == ("first", "first")

    def test_one_that_comes_late(self) -> None:
        """C13: who opens a key while its holders are still stopping is told, with their reason."""
        registry = CancelRegistry()
        with registry.open("run"):
            registry.cancel("run", None)
            registry.cancel("run", "second")
            with registry.open("run") as late:
                assert (late.cancelled, late.reason) == (True, None)
        assert not is_cancelled_at_birth(registry, "run")

    def test_told_is_not_remembered(self) -> None:
        """C13: a cancellation that found a holder is done: the key used again is clean."""
        registry = CancelRegistry()
        with registry.open("run"):
            registry.cancel("run")
        assert not is_cancelled_at_birth(registry, "run")

    def test_used_again_after_a_normal_end(self) -> None:
        """C13: a key used again after a normal end, or after an error, is clean."""
        registry = CancelRegistry()
        assert not is_cancelled_at_birth(registry, "run")
        with pytest.raises(LookupError), registry.open("run"):
            raise LookupError
        assert not is_cancelled_at_birth(registry, "run")
        assert len(registry) == 0

    def test_nothing_before_the_block(self) -> None:
        """C13: open() alone holds nothing; a cancellation before the block is entered counts."""
        registry = CancelRegistry()
        opened = registry.open("run")
        assert "run" not in registry
        assert registry.cancel("run", "early") == 0
        with opened as token:
            assert token.reason == "early"

    def test_used_once(self) -> None:
        """C14: what open() returns is used once, and says so, without touching the key."""
        registry = CancelRegistry()
        opened = registry.open("run")
        with opened:
            with pytest.raises(RuntimeError, match=r"write open\(key\) for each block"):
                opened.__enter__()
            assert registry.cancel("run") == 1
        assert len(registry) == 0

    def test_what_is_held(self) -> None:
        """C14: keys(), len() and "in" tell what is held, in the order of opening."""
        registry = CancelRegistry()
        assert repr(registry) == "<CancelRegistry with 0 keys held>"
        with registry.open("b"), registry.open(("a", 1)), registry.open("b"):
            assert registry.keys() == ["b", ("a", 1)]
            assert len(registry) == 2
            assert "b" in registry
            assert "a" not in registry
        assert registry.keys() == []
        assert "b" not in registry

    def test_an_idle_one_is_true(self) -> None:
        """C14: "registry or CancelRegistry()" keeps a registry that happens to be idle."""
        assert CancelRegistry()

    @pytest.mark.parametrize("key", [[], {"run": 1}, ("run", [])])
    def test_key_that_is_not_hashable(self, key: Any) -> None:
        """C14: a key that is not hashable is an error where it is written."""
        with pytest.raises(TypeError, match=r"unhashable .*write open\(str\(run_id\)\)"):
            CancelRegistry().open(key)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"remember": -1}, ValueError, "remember must be a finite number"),
            ({"remember": float("inf")}, ValueError, "remember must be a finite number"),
            ({"remember": True}, TypeError, "remember must be a finite number"),
            ({"max_remembered": 0}, ValueError, "write max_remembered=100"),
            ({"max_remembered": 1.5}, TypeError, "write max_remembered=100"),
            ({"max_remembered": True}, TypeError, "write max_remembered=100"),
        ],
    )
    def test_arguments(
        self, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        """C14: numbers that make no sense are errors that say what to write."""
        with pytest.raises(error, match=message):
            CancelRegistry(**arguments)


class TestRemembered:
    def test_for_a_while(self) -> None:
        """C13: a cancellation that nobody hears is kept for so many seconds, and no longer."""
        registry, clock = registry_with_clock(remember=30)
        assert registry.cancel("a", "early") == 0
        assert registry.cancel("b", "early") == 0
        clock.now += 29.9
        with registry.open("a") as token:
            assert (token.cancelled, token.reason) == (True, "early")
        clock.now += 0.1
        assert not is_cancelled_at_birth(registry, "b")

    def test_for_one(self) -> None:
        """C13: it is for the run that it was meant for: the next one with the key is clean."""
        registry = CancelRegistry()
        registry.cancel("run")
        assert is_cancelled_at_birth(registry, "run")
        assert not is_cancelled_at_birth(registry, "run")

    def test_twice(self) -> None:
        """C14: where it comes twice, the first reason stays, and the time counts anew."""
        registry, clock = registry_with_clock(remember=30)
        registry.cancel("a", "first")
        registry.cancel("b")
        clock.now += 20
        registry.cancel("a", "second")
        clock.now += 20
        with registry.open("a") as token:
            assert token.reason == "first"
        assert not is_cancelled_at_birth(registry, "b")

    def test_turned_off(self) -> None:
        """C13: with remember=0, only those are told who hold the key."""
        registry = CancelRegistry(remember=0)
        assert registry.cancel("run") == 0
        assert not is_cancelled_at_birth(registry, "run")

    def test_bounded(self) -> None:
        """C13: beyond the limit, the oldest goes; what expires makes room."""
        registry, clock = registry_with_clock(remember=30, max_remembered=2)
        for key in "abca":
            registry.cancel(key)
        assert [is_cancelled_at_birth(registry, key) for key in "bca"] == [False, True, True]
        registry.cancel("d")
        clock.now += 30
        registry.cancel("e")
        registry.cancel("f")
        assert [is_cancelled_at_birth(registry, key) for key in "def"] == [False, True, True]

    async def test_never_starts(self) -> None:
        """C13: a run that is cancelled while it is being created never starts."""
        registry, probe = CancelRegistry(), Probe(1)
        registry.cancel("run", "changed my mind")
        async with with_cancellation(probe.source(), registry.open("run")) as stream:
            with pytest.raises(StreamCancelled, match="changed my mind"):
                await anext(stream)
        assert not probe.started
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "changed my mind")


class TestStreams:
    async def test_holds_while_it_is_open(self) -> None:
        """C21: a blocked stream is told by its key; it holds it until its source is closed."""
        registry, log = CancelRegistry(), Log()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "item"
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                await anyio.sleep(1)
                log(("cleaned up", stop.reason, registry.keys()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 2, registry.cancel, "run", "stop")
            stream = with_cancellation(source(), registry.open("run"))
            assert len(registry) == 0
            await consume(stream, log)
        assert log == [(0, "item"), (3, ("cleaned up", "stop", ["run"])), (3, "end")]
        assert len(registry) == 0

    def test_two_runs(self, backend: Backend) -> None:
        """H10: one registry for two loops, one after the other: the second knows of no first."""
        registry = CancelRegistry()

        async def main() -> list[object]:
            log = Log()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 2, registry.cancel, "run", "stop")
                await consume(with_cancellation(blocked(log, 1), registry.open("run")), log)
            return list(log)

        expected = [(0, 1), (2, "source: told to stop"), (2, "closed"), (2, "consumer: stop")]
        assert backend.run(main) == expected
        assert len(registry) == 0
        assert backend.run(main) == expected
        # And between the two of them, with no loop at all (H4).
        registry.cancel("run", "early")
        assert backend.run(main) == [(0, "consumer: early")]

    @pytest.mark.real_time
    async def test_from_a_thread(self) -> None:
        """H1: told from a plain thread while the loop is idle: the source is told, with no item."""
        registry, probe = CancelRegistry(), Probe(1, block=True)
        told: list[int] = []
        async with with_cancellation(probe.source(), registry.open("run")) as stream:
            assert await anext(stream) == 1
            thread = threading.Timer(0.02, lambda: told.append(registry.cancel("run", "thread")))
            thread.start()
            with anyio.fail_after(5):
                with pytest.raises(StreamCancelled, match="thread"):
                    await anext(stream)
            thread.join()
        assert told == [1]
        assert [where for where, _ in probe.seen] == ["await"]

    @pytest.mark.real_time
    async def test_from_a_worker_thread(self) -> None:
        """H2: the same from a worker thread; a key may be held in one, too."""
        registry = CancelRegistry()

        def hold() -> bool:
            with registry.open("run") as token:
                anyio.from_thread.run(registry.cancel_and_wait, "other")
                return token.cancelled

        assert await anyio.to_thread.run_sync(hold) is False
        probe = Probe(1, block=True)
        async with with_cancellation(probe.source(), registry.open("run")) as stream:
            assert await anext(stream) == 1
            assert await anyio.to_thread.run_sync(registry.cancel, "run", "stop") == 1
            with anyio.fail_after(5):
                with pytest.raises(StreamCancelled, match="stop"):
                    await anext(stream)

    @pytest.mark.real_time
    def test_two_loops(self, backend: Backend) -> None:
        """H5: two loops in two threads hold one key: one call tells both, each in its own."""
        registry = CancelRegistry()
        ready = threading.Barrier(3)
        seen: list[tuple[int, object]] = []

        async def main() -> None:
            home = threading.get_ident()

            async def source() -> AsyncGenerator[int, None]:
                try:
                    yield 1
                    await anyio.sleep_forever()
                except StreamCancelled as stop:
                    assert threading.get_ident() == home
                    seen.append((home, stop.reason))

            with anyio.fail_after(10):
                async with with_cancellation(source(), registry.open("run")) as stream:
                    async for _ in stream:
                        await anyio.to_thread.run_sync(ready.wait)

        def run() -> None:
            backend.run_bare(main)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait(timeout=10)
        assert registry.cancel("run", "stop") == 2
        for thread in threads:
            thread.join(timeout=10)
        assert {home for home, _ in seen} == {thread.ident for thread in threads}
        assert [reason for _, reason in seen] == ["stop", "stop"]
        assert len(registry) == 0


class TestThreads:
    def test_race(self) -> None:
        """H7: fifty threads cancel at once: each holder is told by one of them, all the same."""
        for _ in range(5):
            registry, start = CancelRegistry(), threading.Barrier(50)
            counts: list[int] = []

            def cancel(
                number: int,
                registry: CancelRegistry = registry,
                start: threading.Barrier = start,
                counts: list[int] = counts,
            ) -> None:
                start.wait()
                counts.append(registry.cancel("run", number))

            with ExitStack() as stack:
                tokens = [stack.enter_context(registry.open("run")) for _ in range(20)]
                threads = [threading.Thread(target=cancel, args=[n]) for n in range(50)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert sum(counts) == 20
                assert len({token.reason for token in tokens}) == 1

    def test_cancel_while_opening(self) -> None:
        """H7: one cancel against one open(), in two threads: told, or cancelled at birth."""
        registry, meet = CancelRegistry(), threading.Barrier(2)

        def cancel() -> None:
            for key in range(500):
                meet.wait()
                registry.cancel(key)
                meet.wait()

        thread = threading.Thread(target=cancel)
        thread.start()
        lost = []
        for key in range(500):
            meet.wait()
            with registry.open(key) as token:
                meet.wait()
                if not token.cancelled:
                    lost.append(key)
        thread.join()
        assert lost == []
        assert len(registry) == 0

    def test_cancel_between_any_two_steps_of_opening(self) -> None:
        """H3: a signal handler that cancels in the middle of open() is not lost, nor a deadlock."""

        class Key:
            # The interpreter calls this at each access of a dict: where a handler could come.
            def __init__(self) -> None:
                self.hashed = 0
                self.cancel_at = -1

            def __hash__(self) -> int:
                self.hashed += 1
                if self.hashed == self.cancel_at:
                    registry.cancel(self)
                return 1

        steps = 0
        while True:
            registry, key = CancelRegistry(), Key()
            opened = registry.open(key)
            key.hashed, key.cancel_at = 0, steps + 1
            with opened as token:
                if key.hashed < key.cancel_at:
                    break
                assert token.cancelled, key.cancel_at
            steps += 1
        assert steps > 1

    @pytest.mark.parametrize("step", [1, 2])
    def test_opening_while_the_last_one_leaves(self, step: int) -> None:
        """H7: one opens a key in the middle of the other's leaving it: it holds it all the same."""
        registry = CancelRegistry()
        tokens: list[CancelToken] = []
        opened, done = threading.Event(), threading.Event()

        class Key:
            steps = math.inf

            def __hash__(self) -> int:
                if threading.current_thread() is not thread:
                    self.steps -= 1
                    if self.steps == 0:
                        thread.start()
                        # As long as it needs, if nothing keeps it from going on.
                        opened.wait(0.05)
                return 1

        def hold() -> None:
            with registry.open(key) as token:
                tokens.append(token)
                opened.set()
                assert done.wait(10)

        key, thread = Key(), threading.Thread(target=hold)
        with registry.open(key):
            key.steps = step
        assert opened.wait(10)
        told = registry.cancel(key)
        done.set()
        thread.join()
        assert told == 1
        assert tokens[0].cancelled
        assert len(registry) == 0

    def test_a_hundred_thousand_runs(self) -> None:
        """H7: after 10^5 runs, some of them cancelled, it is empty, and nothing is left of them."""
        registry, clock = registry_with_clock()
        gc.collect()
        before = len(gc.get_objects())
        for run in range(100_000):
            with registry.open(run):
                if run % 10 == 0:
                    registry.cancel(run, "stop")
            if run % 100 == 0:
                registry.cancel(run, "late")
                clock.now += 1
        clock.now += 30
        with registry.open("last") as token:
            assert not token.cancelled
        del token
        gc.collect()
        assert len(registry) == 0
        assert len(gc.get_objects()) - before < 50

    def test_many_runs(self) -> None:
        """H7: after thousands of runs, one by one and all at once, it is empty, in bytes, too."""
        registry, clock = registry_with_clock(max_remembered=1000)

        def run_all() -> None:
            for run in range(5_000):
                with registry.open(run):
                    if run % 10 == 0:
                        registry.cancel(run, "stop")
                if run % 2 == 1:
                    registry.cancel(run, "late")
            with ExitStack() as stack:
                for run in range(5_000):
                    stack.enter_context(registry.open(run))
            clock.now += 30
            assert not is_cancelled_at_birth(registry, "last")

        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            run_all()
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert len(registry) == 0
        # Less than ten bytes for each run: caches of the interpreter are none of them.
        assert after - before < 100_000


class TestCancelAndWait:
    async def test_waits_for_all(self) -> None:
        """C21: returns when the last of those who hold the key at the time of the call has left."""
        registry, log = CancelRegistry(), Log()

        async def hold(seconds: float) -> None:
            with registry.open("run") as token:
                await token.wait()
                await anyio.sleep(seconds)

        async def hold_later() -> None:
            await anyio.sleep(1)
            with registry.open("run") as token:
                log(token.reason)
                await anyio.sleep(10)
            log("late one left")

        log.start()
        async with anyio.create_task_group() as tasks:
            for seconds in (1, 3, 2):
                tasks.start_soon(hold, seconds)
            tasks.start_soon(hold_later)
            await anyio.sleep(0.5)
            log(bool(await registry.cancel_and_wait("run", "stop")))
        assert log == [(1, "stop"), (3.5, True), (11, "late one left")]

    async def test_stream(self) -> None:
        """C21: a stream has left when its source is closed."""
        registry, log = CancelRegistry(), Log()

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            except StreamCancelled:
                await anyio.sleep(2)
                log("cleaned up")

        async with anyio.create_task_group() as tasks:
            stream = with_cancellation(source(), registry.open("run"))
            tasks.start_soon(consume, stream, log)
            await anyio.sleep(1)
            log(bool(await registry.cancel_and_wait("run", timeout=5)))
        assert sorted(log[:3], key=str) == [(0, 1), (3, "cleaned up"), (3, "end")]
        assert log[3:] == [(3, True)]

    @pytest.mark.parametrize("timeout", [0, 1])
    async def test_not_in_time(self, timeout: float) -> None:
        """C21: says so if not all have left in time; what they are told stays."""
        registry, log = CancelRegistry(), Log()

        async def hold() -> None:
            with registry.open("run") as token:
                await token.wait()
                await anyio.sleep(2)
                log(token.reason)

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await anyio.sleep(1)
            log(bool(await registry.cancel_and_wait("run", "stop", timeout=timeout)))
        assert log == [(1 + timeout, False), (3, "stop")]

    async def test_nobody(self) -> None:
        """C13: nobody holds the key: it returns at once, after a checkpoint, and is remembered."""
        registry, log = CancelRegistry(), Log()
        log.start()
        log(bool(await registry.cancel_and_wait("run", "early", timeout=0)))
        log(bool(await registry.cancel_and_wait("run")))
        assert log == [(0, True), (0, True)]
        with registry.open("run") as token:
            assert token.reason == "early"
        with anyio.CancelScope() as scope:
            scope.cancel()
            await registry.cancel_and_wait("run")
            raise AssertionError("a checkpoint raises here")

    async def test_wait_is_cancelled(self) -> None:
        """C20: a wait that is cancelled changes nothing: the holders were told, and are."""
        registry, log = CancelRegistry(), Log()

        async def hold() -> None:
            with registry.open("run") as token:
                log(await token.wait())
                await anyio.sleep(5)
                log("left")

        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await anyio.sleep(1)
            with anyio.move_on_after(2) as scope:
                await registry.cancel_and_wait("run", "stop")
            assert scope.cancelled_caught
            log("gave up")
            assert await registry.cancel_and_wait("run", "again")
            log("all left")
        assert log == [(1, "stop"), (3, "gave up"), (6, "left"), (6, "all left")]

    async def test_by_a_holder(self) -> None:
        """C21: a task that holds the key would wait for itself: a clear error, and nobody told."""
        registry = CancelRegistry()
        with registry.open("run") as token:
            with pytest.raises(RuntimeError, match=r"would wait for ever: write cancel\(key\)"):
                await registry.cancel_and_wait("run")
            assert not token.cancelled
        assert await registry.cancel_and_wait("run")

    async def test_by_the_consumer(self) -> None:
        """C21: so would a consumer whose stream holds it."""
        registry, probe = CancelRegistry(), Probe(1, block=True)
        async with with_cancellation(probe.source(), registry.open("run")) as stream:
            assert await anext(stream) == 1
            with pytest.raises(RuntimeError, match="would wait for ever"):
                await registry.cancel_and_wait("run")

    async def test_by_the_source(self) -> None:
        """C21: the source of a stream that holds it is told at this await, and nothing hangs."""
        registry, log = CancelRegistry(), Log()

        async def source() -> AsyncGenerator[object, None]:
            try:
                yield 1
                await registry.cancel_and_wait("run", "enough")
            except StreamCancelled as stop:
                yield stop.reason

        await consume(with_cancellation(source(), registry.open("run")), log)
        assert log == [(0, 1), (0, "enough"), (0, "end")]

    async def test_that_never_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        """C21: a wait that may never end is logged, once, after 30 seconds."""
        registry = CancelRegistry()

        async def wait_inside() -> None:
            await registry.cancel_and_wait("run")

        with anyio.move_on_after(100) as scope:
            with registry.open("run"):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait_inside)
                    await anyio.sleep(29.9)
                    assert caplog.records == []
                    await anyio.sleep(0.2)
                    assert len(caplog.records) == 1
        assert scope.cancelled_caught
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("streamkit", "WARNING")
        assert "cancel_and_wait('run') has been waiting for 30.0 seconds" in record.getMessage()

    @pytest.mark.real_time
    async def test_holder_in_another_thread(self) -> None:
        """H2: a holder in a plain thread, without a loop, is waited for as well."""
        registry, opened = CancelRegistry(), threading.Event()
        go_on, left = threading.Event(), threading.Event()

        def hold() -> None:
            with registry.open("run"):
                opened.set()
                assert go_on.wait(10)
                left.set()

        thread = threading.Thread(target=hold)
        thread.start()
        await anyio.to_thread.run_sync(opened.wait)
        assert not await registry.cancel_and_wait("run", timeout=0.01)
        go_on.set()
        assert await registry.cancel_and_wait("run", timeout=10)
        assert left.is_set()
        await anyio.to_thread.run_sync(thread.join)

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    async def test_arguments(self, timeout: float) -> None:
        """C14: a timeout that makes no sense is an error, and nobody is told."""
        registry = CancelRegistry()
        with registry.open("run") as token:
            with pytest.raises(ValueError, match="timeout must be a finite number of seconds"):
                await registry.cancel_and_wait("run", timeout=timeout)
            assert not token.cancelled
