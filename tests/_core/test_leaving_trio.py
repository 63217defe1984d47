"""What is trio's own where a source is left or told: nurseries, and the order of its tasks."""

from __future__ import annotations

import random
import signal
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from leaving import leave, ways
from observing import call_later, kind
from streamkit import (
    CancelToken,
    Left,
    Stream,
    StreamCancelled,
    current_cancellation,
    with_buffer,
    with_cancellation,
    with_status,
)
from support import Log, live_tasks, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

pytestmark = pytest.mark.trio_only

# trio shuffles the tasks of a turn, and the children of a scope that is cancelled.
SEEDS = 50


def seeds() -> Iterator[int]:
    """Return numbers for runs that differ in the order in which trio takes its tasks."""
    state = random.getstate()
    try:
        yield from range(SEEDS)
    finally:
        random.setstate(state)


def run(main: Any, seed: int) -> None:
    """Run trio with its tasks in an order that the seed decides, in virtual time."""
    from trio._core import _run

    _run._r.seed(seed)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


class Crowd:
    """
    A source with children in a nursery, which hold and want what there is to be held.

    :param what: what they hold and want

    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.lock: Any = trio.Lock() if what == "trio.Lock" else anyio.Lock()
        self.semaphore: Any = trio.Semaphore(1) if what == "trio.Semaphore" else anyio.Semaphore(1)
        self.sent: list[int] = []
        self.received: list[int] = []
        self.told: list[object] = []

    def held(self) -> Any:
        return self.semaphore if "Semaphore" in self.what else self.lock

    async def child(self) -> None:
        held = self.held()
        try:
            while True:
                async with held:
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(0.01)
        finally:
            # As the clean-up of a connection pool does: in no shield.
            async with held:
                await anyio.lowlevel.checkpoint()

    async def source(self) -> AsyncGenerator[int, None]:
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(self.child)
                if self.what == "buffer":
                    async with with_buffer(self.counting(), 2) as stream:
                        async for item in stream:
                            yield item
                elif "stream" in self.what or "channel" in self.what:
                    async with aclosing(self.piped(nursery)) as items:
                        async for item in items:
                            yield item
                else:
                    for number in range(1000):
                        async with self.held():
                            await anyio.sleep(0.01)
                        yield number
        except* StreamCancelled as group:
            self.told += list(leaves(group))
            raise

    async def counting(self) -> AsyncIterator[int]:
        for number in range(1000):
            async with self.lock:
                await anyio.sleep(0.01)
            yield number

    async def piped(self, nursery: trio.Nursery) -> AsyncIterator[int]:
        send: Any
        receive: Any
        if self.what == "trio channel":
            send, receive = trio.open_memory_channel[int](1)
        else:
            send, receive = anyio.create_memory_object_stream[int](1)

        async def produce() -> None:
            with send:
                for number in range(1000):
                    await send.send(number)
                    self.sent.append(number)
                    await anyio.sleep(0.01)

        nursery.start_soon(produce)
        try:
            async for item in receive:
                self.received.append(item)
                yield item
        finally:
            with suppress(trio.WouldBlock, anyio.WouldBlock, trio.EndOfChannel, anyio.EndOfStream):
                self.received.append(receive.receive_nowait())
            receive.close()

    def check(self) -> None:
        """Nothing that was handed over got lost, and nobody was told twice."""
        assert len(self.told) <= 1
        assert not self.lock.locked()
        assert self.semaphore.value == 1
        assert self.received == list(range(len(self.received)))
        # anyio's hands an item to a receiver that was told in the same turn, as it can't see that.
        lost = 1 if self.what == "anyio stream" else 0
        assert len(self.sent) - len(self.received) <= lost


def leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


whats = pytest.mark.parametrize(
    "what",
    [
        "trio.Lock",
        "anyio.Lock",
        "trio.Semaphore",
        "anyio.Semaphore",
        "trio channel",
        "anyio stream",
        "buffer",
    ],
)


@pytest.fixture
def may_be_interrupted() -> Iterator[None]:
    """Let trio take Ctrl-C, also where the tests run in the background of a shell, which ignores
    it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestInterrupt:
    @pytest.mark.usefixtures("may_be_interrupted")
    async def test_in_the_wait(self) -> None:
        """L1: trio raises ``KeyboardInterrupt`` in the consumer: the source has its grace."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            try:
                await trio.sleep_forever()
                yield
            except BaseException as exc:
                log((kind(exc), current_cancellation()))
                await trio.sleep(1)
                log("saved")
                raise

        @trio.lowlevel.enable_ki_protection
        def interrupt() -> None:
            signal.raise_signal(signal.SIGINT)

        log.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_later, 1, interrupt)
            stream = with_cancellation(source())
            with pytest.raises(KeyboardInterrupt):
                async with stream:
                    await anext(stream)
        assert log == [(1, ("told that the consumer has left", Left())), (2, "saved")]
        assert (stream.outcome.kind, stream.outcome.error) == ("closed", None)

    async def test_in_the_clean_up(self) -> None:
        """L1: the clean-up raises it: it is not taken for what the source was told."""

        async def source() -> AsyncIterator[object]:
            try:
                await trio.sleep_forever()
                yield
            finally:
                await trio.sleep(1)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await leave(source(), "break")


class TestLooks:
    """trio's functions look whether they are cancelled, and rely on what they saw."""

    async def test_in_checkpoints(self) -> None:
        """L1: a source that never waits is told at a checkpoint, in whichever turn."""
        for how in (trio.lowlevel.checkpoint, trio.lowlevel.checkpoint_if_cancelled, self.lock):
            for turns in range(5):
                log = Log()

                async def source(how: Any = how, log: Log = log) -> AsyncIterator[object]:
                    try:
                        yield 1
                        while True:
                            await how()
                            await trio.lowlevel.cancel_shielded_checkpoint()
                    except BaseException as exc:
                        log(kind(exc))
                        await trio.sleep(1)
                        log("saved")
                        raise

                async with with_buffer(source(), 8) as stream:
                    assert await anext(stream) == 1
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                assert log == [(0, "told that the consumer has left"), (1, "saved")]

    async def lock(self) -> None:
        async with trio.Lock():
            pass

    async def test_unwinding_in_checkpoints(self) -> None:
        """L5: a scope of its own catches its own, also after a shield without a wait."""
        for turns in range(12):
            log = Log()

            async def source(log: Log = log) -> AsyncIterator[object]:
                try:
                    yield 1
                    with trio.move_on_after(1) as scope:
                        try:
                            await trio.sleep_forever()
                        finally:
                            with trio.CancelScope(shield=True):
                                for _ in range(5):
                                    await trio.lowlevel.checkpoint()
                    log(scope.cancelled_caught)
                    await trio.sleep_forever()
                except BaseException as exc:
                    log(kind(exc))
                    await trio.sleep(1)
                    log("saved")
                    raise

            log.start()
            async with with_buffer(source(), 8) as stream:
                assert await anext(stream) == 1
                await trio.sleep(1)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            told = "told that the consumer has left"
            assert log[-2:] == [(1, told), (2, "saved")]
            # In the first turns it may be told before it is cancelled.
            assert log.events[0] == (True if len(log) == 3 else told)

    async def test_awaits_in_a_cancelled_scope(self) -> None:
        """L5: told behind a shield, it awaits in a scope of its own that is cancelled: its own."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            try:
                with trio.move_on_after(1) as scope:
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            await trio.sleep(1)
                        await trio.sleep(1)
                log(scope.cancelled_caught)
                await trio.sleep_forever()
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        for way in ways():
            log.clear()
            log.start()
            await leave(source(), way, after=1.5)
            assert (way, log) == (way, [(2, True), (2, "told that the consumer has left")])


class TestHandOver:
    @pytest.mark.parametrize("how", ["token", "aclose"])
    @pytest.mark.parametrize("first", ["told", "item"])
    async def test_memory_stream(self, how: str, first: str) -> None:
        """C32: an item is sent in the turn in which a source that waits is told."""
        for _ in range(20):
            token, taken = CancelToken(), []
            send, receive = anyio.create_memory_object_stream[int](1)

            async def source(receive: Any = receive, taken: Any = taken) -> AsyncIterator[int]:
                taken.append(await receive.receive())
                await anyio.sleep_forever()
                yield 1

            async with anyio.create_task_group() as tasks, send, receive:
                stream = with_cancellation(source(), token)
                async with stream:
                    tasks.start_soon(ask, stream)
                    await wait_all_blocked()
                    if first == "item":
                        send.send_nowait(1)
                    if how == "token":
                        token.cancel("stop")
                    else:
                        tasks.start_soon(stream.aclose)
                        # One turn, in which this task comes before or after that one.
                        await anyio.lowlevel.checkpoint()
                    if first == "told":
                        send.send_nowait(1)
                    await wait_all_blocked()
                with suppress(anyio.WouldBlock):
                    taken.append(receive.receive_nowait())
            assert taken == [1]


async def ask(stream: Stream[Any]) -> None:
    with suppress(StreamCancelled, anyio.ClosedResourceError):
        await anext(stream)


def test_no_task_is_left() -> None:
    """C1: a wait is ended by a scope, and in the order that trio takes, no task outlives that."""

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        await anyio.sleep_forever()

    async def main() -> None:
        before = live_tasks()
        with anyio.CancelScope() as scope:
            async with with_status(source()) as stream:
                assert await anext(stream) == 1
                scope.cancel()
                await anext(stream)
        assert live_tasks() == before

    for seed in seeds():
        run(main, seed)


def test_consumer_stays_at_the_end_of_a_run() -> None:
    """L9: it stays in a shield for a lock that the source holds, while trio closes generators."""
    log, held = Log(), []

    async def source(lock: anyio.Lock) -> AsyncGenerator[int, None]:
        async with lock:
            yield 1
            await anyio.sleep_forever()

    async def consume() -> None:
        lock = anyio.Lock()
        with anyio.CancelScope() as scope:
            async with with_cancellation(source(lock)) as stream:
                assert await anext(stream) == 1
                scope.cancel()
                try:
                    await anext(stream)
                finally:
                    with anyio.CancelScope(shield=True):
                        async with lock:
                            log("has the lock")

    async def main() -> None:
        async def generate() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                # trio lets nothing wait there otherwise.
                with anyio.CancelScope(shield=True):
                    await consume()

        generator = generate()
        held.append(generator)
        await anext(generator)

    trio.run(main)
    assert log.events == ["has the lock"]


class TestSeeds:
    """L13: children take what others hold on their way out, in every order."""

    @whats
    @pytest.mark.parametrize("how", ["scope in the wait", "scope in the body", "token", "outer"])
    def test_seeds(self, what: str, how: str) -> None:
        """L13: no assertion of trio's fails, nothing hangs, nobody is told twice."""
        for seed in seeds():
            crowd = Crowd(what)

            async def main(crowd: Crowd = crowd) -> None:
                token = CancelToken()
                source: Any = crowd.source()
                if how == "outer":
                    source = passing_on(with_cancellation(source))
                stream = with_cancellation(source, token)
                with anyio.move_on_after(0.0205):
                    async with anyio.create_task_group() as tasks:
                        if how in ("token", "outer"):
                            tasks.start_soon(call_later, 0.02, token.cancel, "stop")
                        with suppress(StreamCancelled):
                            async with stream:
                                async for _ in stream:
                                    if how == "scope in the body":
                                        await anyio.sleep(0.015)
                                    else:
                                        await anyio.lowlevel.checkpoint()
                assert stream.outcome.kind in ("cancelled", "closed")
                assert not stream.outcome.grace_exceeded
                crowd.check()

            run(main, seed)


async def passing_on(stream: Stream[Any]) -> AsyncIterator[Any]:
    async with stream:
        async for item in stream:
            yield item
