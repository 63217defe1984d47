"""What a source sees when its consumer goes, in whichever way, and the time that it has then."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from chains import NEVER
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
from support import Log, on_trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

TOLD = "told that the consumer has left"

variable: ContextVar[int] = ContextVar("variable", default=0)


def outcome_of(stream: Stream[Any]) -> tuple[object, ...]:
    return stream.outcome.kind, stream.outcome.reason, stream.outcome.grace_exceeded


def cancelling() -> int:
    """Return how many cancellation requests the calling task has: none where there are no such."""
    task = None if on_trio() else asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def saving(log: Log, *items: object) -> AsyncGenerator[object, None]:
    """Yield the items, then wait for ever. Cleans up for a second, in two awaits."""
    task, token = anyio.get_current_task().id, variable.set(1)
    try:
        for item in items:
            yield item
        await anyio.sleep_forever()
    except BaseException as exc:
        log(kind(exc))
        raise
    finally:
        assert cancelling() == 0
        log(current_cancellation())
        await anyio.sleep(0.5)
        log("saved")
        await anyio.sleep(0.5)
        assert anyio.get_current_task().id == task
        assert cancelling() == 0
        variable.reset(token)
        log("closed")


async def hanging(log: Log, *items: object) -> AsyncGenerator[object, None]:
    """Yield the items, then wait for ever. The clean-up hangs, until it is cut."""
    try:
        for item in items:
            yield item
        await anyio.sleep_forever()
    except BaseException as exc:
        log(kind(exc))
        try:
            await anyio.sleep_forever()
        except BaseException as cut:
            log(kind(cut))
            raise


class TestTold:
    """The source is told once, and has its grace."""

    async def test_while_blocked(self) -> None:
        """L1: the source is blocked: told at its await, it saves and closes, all of it."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(saving(log), way)
            assert (way, log) == (
                way,
                [(1, TOLD), (1, Left()), (1.5, "saved"), (2, "closed")],
            )
            assert outcome_of(stream) == ("closed", None, False)

    async def test_at_a_yield(self) -> None:
        """L2: the same at a yield, where it is closed."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(saving(log, 1), way, items=1)
            assert (way, log) == (
                way,
                [(1, "GeneratorExit"), (1, Left()), (1.5, "saved"), (2, "closed")],
            )
            assert outcome_of(stream) == ("closed", None, False)

    async def test_reading_ahead(self) -> None:
        """L2: a buffer has the source blocked while the consumer is busy: told at its await."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(with_buffer(saving(log, 1, 2), 8), way, items=1)
            assert (way, log) == (
                way,
                [(1, TOLD), (1, Left()), (1.5, "saved"), (2, "closed")],
            )
            assert stream.outcome.items == 1

    async def test_in_its_grace(self) -> None:
        """L2: a source that cleans up after a signal hears nothing more, and is waited for."""
        for way in ways():
            token, log = CancelToken(), Log()
            log.start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 0.75, token.cancel, "stop")
                stream = await leave(with_cancellation(saving(log), token), way)
            assert (way, log) == (
                way,
                [(0.75, "told to stop"), (0.75, "stop"), (1.25, "saved"), (1.75, "closed")],
            )
            assert outcome_of(stream) == ("cancelled", "stop", False)

    async def test_not_started(self) -> None:
        """L2: what was not started never is."""
        for way in ways():
            log = Log()
            stream = with_cancellation(saving(log))
            if way in ("aclose", "aclose by another task"):
                async with stream:
                    await stream.aclose()
            elif way == "break":
                async with stream:
                    pass
            else:

                async def consume(stream: Stream[Any] = stream) -> AsyncIterator[object]:
                    async with stream:
                        await anyio.sleep_forever()
                    yield 1

                await leave(consume(), way)
            assert log == []
            assert outcome_of(stream) == ("closed", None, False)

    async def test_ended(self) -> None:
        """L2: a source that has ended is not told of anything."""
        log = Log()

        async def source() -> AsyncIterator[object]:
            yield 1
            log("end")

        for way in ways():
            log.clear()
            stream = with_cancellation(source())

            async def consume(stream: Stream[Any] = stream) -> AsyncIterator[object]:
                async with stream:
                    assert [item async for item in stream] == [1]
                    await anyio.sleep_forever()
                yield 1

            await leave(consume(), way)
            assert log.events == ["end"]
            assert outcome_of(stream) == ("completed", None, False)

    async def test_consumer_in_another_task(self) -> None:
        """L1: a child task asks, and is cancelled with its group, inside of the block."""
        log = Log()
        log.start()
        async with with_cancellation(saving(log)) as stream:
            with anyio.move_on_after(1):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anext, stream)
            # That scope was not around the block: nobody has left yet.
            assert log == []
        assert log[0] == (1, TOLD)

    async def test_consumer_that_stays(self) -> None:
        """L1: a scope around the block ends a wait, and a shield goes up in the same turn: the
        source is told all the same, while its consumer stays."""
        log = Log()
        log.start()

        def end_the_wait(outer: anyio.CancelScope, inner: anyio.CancelScope) -> None:
            outer.cancel()
            inner.shield = True

        with anyio.CancelScope() as outer:
            async with with_cancellation(saving(log)) as stream, anyio.create_task_group() as tasks:
                with anyio.CancelScope() as inner:
                    tasks.start_soon(call_later, 1, end_the_wait, outer, inner)
                    with pytest.raises(anyio.get_cancelled_exc_class()):
                        await anext(stream)
                    await anyio.sleep(3)
                    log("leaves")
        assert log == [(1, TOLD), (1, Left()), (1.5, "saved"), (2, "closed"), (4, "leaves")]

    async def test_head(self) -> None:
        """L1: the wait is one for the status."""
        log = Log()
        log.start()
        stream = with_status(saving(log))
        with anyio.move_on_after(1) as scope:
            async with stream:
                await stream.head()
        assert scope.cancelled_caught
        assert log == [(1, TOLD), (1, Left()), (1.5, "saved"), (2, "closed")]

    async def test_spinning_source(self) -> None:
        """L1: a source that gives way without end, and is never blocked, is told all the same."""
        for way in ways():
            log = Log()

            async def source(log: Log = log) -> AsyncIterator[object]:
                try:
                    yield 1
                    while True:
                        await anyio.sleep(0)
                except BaseException as exc:
                    log(kind(exc))
                    await anyio.sleep(1)
                    log("saved")
                    raise

            stream = with_buffer(source(), 8)
            # The clock stands still while the source spins.
            if way == "scope":
                with anyio.CancelScope() as scope:
                    async with stream:
                        assert await anext(stream) == 1
                        scope.cancel()
                        await anyio.sleep_forever()
            else:
                async with stream:
                    assert await anext(stream) == 1
                    for _ in range(10):
                        await anyio.lowlevel.checkpoint()
                    if way == "aclose":
                        await stream.aclose()
            assert (way, log) == (way, [(0, TOLD), (1, "saved")])

    async def test_last_items_are_dropped(self) -> None:
        """L1: what the source yields then reaches nobody; it is closed at that yield."""
        for way in ways():
            log = Log()

            async def source(log: Log = log) -> AsyncIterator[object]:
                try:
                    await anyio.sleep_forever()
                except StreamCancelled:
                    await anyio.sleep(0.5)
                    try:
                        yield "last"
                    finally:
                        await anyio.sleep(0.5)
                        log("closed")

            log.start()
            stream = await leave(source(), way, items=0)
            assert (way, log) == (way, [(2, "closed")])
            assert outcome_of(stream) == ("closed", None, False)
            assert stream.outcome.items == 0


class TestGrace:
    """It is bounded, by a number that the user can set."""

    async def test_hangs(self) -> None:
        """L3: the clean-up hangs: cut after ``grace`` seconds."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(hanging(log), way, grace=3)
            assert (way, log) == (way, [(1, TOLD), (4, "cancelled")])
            assert outcome_of(stream) == ("closed", None, True)

    async def test_hangs_at_a_yield(self) -> None:
        """L3: the same at a yield."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(hanging(log, 1), way, items=1, grace=3)
            assert (way, log) == (way, [(1, "GeneratorExit"), (4, "cancelled")])
            assert outcome_of(stream) == ("closed", None, True)

    @pytest.mark.parametrize("items", [0, 1])
    async def test_of_zero(self, items: int) -> None:
        """L3: with ``grace=0`` it is told all the same, and cut at its first await."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(hanging(log, *range(items)), way, items=items, grace=0)
            told = "GeneratorExit" if items else TOLD
            assert (way, log) == (way, [(1, told), (1, "cancelled")])
            assert outcome_of(stream) == ("closed", None, True)

    async def test_of_zero_is_cut_in_the_same_turn(self) -> None:
        """L3: with ``grace=0`` no await passes, however short it is."""
        for way in ways():
            log = Log()

            async def source(log: Log = log) -> AsyncIterator[object]:
                try:
                    await anyio.sleep_forever()
                    yield
                finally:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    log("must not be reached")

            await leave(source(), way, grace=0)
            assert (way, log) == (way, [])

    async def test_swallows(self) -> None:
        """L3: a source that swallows it and waits again is told once, and cut after the grace."""
        for way in ways():
            log = Log()

            async def source(log: Log = log) -> AsyncIterator[object]:
                for _ in range(2):
                    try:
                        await anyio.sleep_forever()
                        yield
                    except BaseException as exc:
                        log(kind(exc))

            log.start()
            stream = await leave(source(), way, grace=3)
            assert (way, log) == (way, [(1, TOLD), (4, "cancelled")])
            assert outcome_of(stream) == ("closed", None, True)

    async def test_retries(self) -> None:
        """L3: a retry loop goes round until the grace is over, unless it asks why."""
        for asks in (False, True):
            for way in ways():
                log = Log()

                async def source(log: Log = log, *, asks: bool = asks) -> AsyncIterator[object]:
                    while not (asks and current_cancellation()):
                        try:
                            await anyio.sleep(0.75)
                        except StreamCancelled as exc:
                            log(kind(exc))
                    log("stopped")
                    yield

                log.start()
                stream = await leave(source(), way, grace=3)
                last = [(1, "stopped")] if asks else []
                assert (way, log) == (way, [(1, TOLD), *last])
                assert outcome_of(stream) == ("closed", None, not asks)

    async def test_clean_up_raises(self) -> None:
        """L4: who leaves of its own will gets the error of the clean-up, bare."""
        error = ValueError("mine")

        async def source() -> AsyncIterator[object]:
            try:
                await anyio.sleep_forever()
                yield
            finally:
                await anyio.sleep(1)
                raise error

        for way in ("break", "aclose"):
            with pytest.raises(ValueError, match="mine") as caught:
                await leave(source(), way)
            assert caught.value is error
            assert isinstance(error.__context__, StreamCancelled)


class TestTaskGroups:
    """What the source is told is not swallowed by a group or a scope of its own."""

    async def check(self, source: Any) -> None:
        """The source logs what its awaits raise, and what gets past its groups."""
        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(log), way)
            assert (way, log) == (way, [(1, f"body: {TOLD}"), (2, "child done"), (2, "left")])
            assert outcome_of(stream) == ("closed", None, False)

    async def child(self, log: Log) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            assert current_cancellation() in (Left(), "stop")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            log("child done")

    @pytest.mark.parametrize("group", ["anyio", "native"])
    async def test_in_the_body(self, group: str) -> None:
        """L8: in the body of a group: children are awaited, and the code after it does not run."""

        async def source(log: Log) -> AsyncIterator[object]:
            try:
                async with self.group(group, log):
                    try:
                        await anyio.sleep_forever()
                    except BaseException as exc:
                        log(f"body: {kind(exc)}")
                        raise
                raise AssertionError("must not be reached")
                yield
            finally:
                log("left")

        await self.check(source)

    @pytest.mark.parametrize("group", ["anyio", "native"])
    @pytest.mark.parametrize("shielded", [True, False])
    async def test_clean_up_in_the_body(self, group: str, shielded: bool) -> None:
        """L8: the clean-up is in the body of the group, and has its grace: children come after."""

        async def source(log: Log) -> AsyncIterator[object]:
            try:
                async with self.group(group, log):
                    with anyio.CancelScope(shield=shielded):
                        await anyio.sleep(0.5)
                    try:
                        await anyio.sleep_forever()
                    finally:
                        await anyio.sleep(0.5)
                        await anyio.sleep(0.5)
                        log("saved")
                raise AssertionError("must not be reached")
                yield
            finally:
                log("left")

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(log), way)
            assert (way, log) == (way, [(2, "saved"), (3, "child done"), (3, "left")])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.parametrize("limit", [5, NEVER])
    @pytest.mark.parametrize("shielded", [True, False])
    async def test_deadline_of_its_own(
        self, limit: float, shielded: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L8: the source has a deadline of its own, in a shield or not; the machine is busy."""

        async def source(log: Log) -> AsyncIterator[object]:
            async with self.group("anyio", log):
                try:
                    with anyio.move_on_after(limit, shield=shielded) as scope:
                        await anyio.sleep(2 if shielded else NEVER)
                    assert not scope.cancelled_caught
                    await anyio.sleep_forever()
                    yield
                finally:
                    await anyio.sleep(0.5)
                    log("saved")

        if not on_trio():
            # Time passes between any two looks at it.
            loop: Any = asyncio.get_running_loop()
            look = anyio.current_effective_deadline

            def slow_look() -> float:
                loop._now += 0.4
                return look()

            monkeypatch.setattr(anyio, "current_effective_deadline", slow_look)
        for way in "break", "scope":
            log = Log()
            stream = await leave(source(log), way)
            assert (way, log.events) == (way, ["saved", "child done"])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.parametrize("group", ["anyio", "native"])
    async def test_clean_up_in_the_body_after_a_token(self, group: str) -> None:
        """C11: the same for a token, at an await and on the way from a yield."""

        async def source(log: Log, items: int) -> AsyncIterator[object]:
            async with self.group(group, log):
                try:
                    for item in range(items):
                        yield item
                    await anyio.sleep_forever()
                finally:
                    await anyio.sleep(0.5)
                    log("saved")
            raise AssertionError("must not be reached")

        for items in 0, 1:
            token, log = CancelToken(), Log()
            log.start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 1, token.cancel, "stop")
                async with with_cancellation(source(log, items), token) as stream:
                    with pytest.raises(StreamCancelled):
                        async for _ in stream:
                            await anyio.sleep(2)
            assert log == [(1.5, "saved"), (2.5, "child done")]
            assert outcome_of(stream) == ("cancelled", "stop", False)

    @pytest.mark.parametrize("group", ["anyio", "native"])
    async def test_in_aexit(self, group: str) -> None:
        """L8: a group waits for its children: what leaves it is ours, in a group on trio."""

        async def source(log: Log) -> AsyncIterator[object]:
            try:
                async with self.group(group, log):
                    await anyio.lowlevel.checkpoint()
                raise AssertionError("must not be reached")
                yield
            except* StreamCancelled as stops:
                log([kind(stop) for stop in leaves(stops)])
                raise

        for way in ways():
            log = Log()
            log.start()
            stream = await leave(source(log), way)
            assert (way, log) == (way, [(2, "child done"), (2, [TOLD])])
            assert outcome_of(stream) == ("closed", None, False)

    @pytest.mark.parametrize("group", ["anyio", "native"])
    async def test_in_aexit_with_a_token(self, group: str) -> None:
        """C12: the same for a token: no cancellation of the backend's is in sight."""

        async def source() -> AsyncIterator[object]:
            try:
                async with self.group(group, log):
                    pass
                raise AssertionError("must not be reached")
                yield
            except* StreamCancelled as stops:
                log([kind(stop) for stop in leaves(stops)])
                raise

        token, log = CancelToken(), Log()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            async with with_cancellation(source(), token) as stream:
                with pytest.raises(StreamCancelled) as caught:
                    await anext(stream)
        assert type(caught.value) is StreamCancelled

        assert log.events == ["child done", ["told to stop"]]

    def group(self, name: str, log: Log) -> Any:
        return _GroupWithChild(name, self.child, log)

    async def test_own_scopes(self) -> None:
        """L8: ``move_on_after`` and ``fail_after`` around the await do not take it for theirs."""

        async def source(log: Log) -> AsyncIterator[object]:
            try:
                with anyio.move_on_after(NEVER), anyio.fail_after(NEVER):
                    await anyio.sleep_forever()
                raise AssertionError("must not be reached")
                yield
            except BaseException as exc:
                log(kind(exc))
                raise

        for way in ways():
            log = Log()
            log.start()
            await leave(source(log), way)
            assert (way, log) == (way, [(1, TOLD)])


class _GroupWithChild:
    """A task group that starts a task at once."""

    def __init__(self, name: str, child: Any, log: Log) -> None:
        self._child, self._log = child, log
        self._native = name == "native"
        self._group: Any = anyio.create_task_group()
        if self._native:
            self._group = trio.open_nursery() if on_trio() else asyncio.TaskGroup()

    async def __aenter__(self) -> None:
        tasks = await self._group.__aenter__()
        if self._native and not on_trio():
            tasks.create_task(self._child(self._log))
        else:
            tasks.start_soon(self._child, self._log)

    async def __aexit__(self, *exc_info: object) -> Any:
        return await self._group.__aexit__(*exc_info)


def leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc
