"""``from_thread``: the time of a grace, of beats and of limits, while a thread is at work.

Time is virtual, and jumps to the next timer as soon as nothing but a thread goes on. So here there
is always a timer that is to be reached, and what it does is what releases the thread.
"""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING

import anyio
import pytest

from streamkit import (
    CancelToken,
    StreamCancelled,
    StreamTimeout,
    TimedOut,
    from_thread,
    with_cancellation,
    with_keepalive,
    with_timeout,
)
from support import wait_all_blocked
from sync_source import Source, in_thread, ours, rest_of, spin

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestGrace:
    @pytest.mark.parametrize("grace", [0.0, 1.0])
    async def test_blocked_for_longer_than_the_grace(self, grace: float) -> None:
        """C18, R7: the grace begins when the step is over: nobody could do anything before."""
        token, source = CancelToken(), Source(1, blocks=True, after=1, handles=("last",))
        stream = with_cancellation(from_thread(source.items()), token, grace=grace)
        async with stream, anyio.create_task_group() as tasks:

            async def stop() -> None:
                await source.blocked()
                token.cancel("stop")
                await anyio.sleep(60)
                tasks.start_soon(spin, lambda: source.closed)
                source.released.set()

            assert await anext(stream) == 1
            tasks.start_soon(stop)
            # Without any time, it is not resumed at the yield that follows.
            end = [] if grace else ["told to stop"]
            assert await rest_of(stream) == [2, "last", *end]
        assert source.closed == 1

    async def test_end_of_the_grace(self) -> None:
        """R7, E10: a generator that is blocked in its reaction is interrupted where its grace ends.

        Nothing of it is left then, without the collector.
        """
        token, source, gone = CancelToken(), Source(0), threading.Event()

        class Anchor:
            pass

        def slow() -> Iterator[str]:
            anchor = Anchor()
            weakref.finalize(anchor, gone.set)
            try:
                yield "item"
                yield "item"
            except StreamCancelled:
                source.block()
                yield "too late"

        def interrupt() -> None:
            if source.is_blocked.is_set():
                source.interrupt()

        gc.collect()
        gc.disable()
        try:
            rows = from_thread(slow, interrupt=interrupt)
            async with with_cancellation(rows, token, grace=3) as stream:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(spin, source.is_blocked.is_set)
                    assert await anext(stream) == "item"
                    token.cancel("stop")
                    assert await anext(stream) == "item"
                    with pytest.raises(StreamCancelled, match="stop"):
                        await anext(stream)
            assert source.interruptions
            assert stream.outcome is not None
            assert stream.outcome.grace_exceeded
            del rows, stream
            await in_thread(gone)
        finally:
            gc.enable()

    @pytest.mark.parametrize("after", [0, 1])
    async def test_blocked(self, after: int) -> None:
        """R7: nobody can stop a thread: the block is left when it comes back."""
        source = Source(1, blocks=True, after=after)
        left = False

        async with anyio.create_task_group() as tasks:

            async def consume(scope: anyio.CancelScope) -> None:
                nonlocal left
                with scope:
                    async with from_thread(source.items()) as stream:
                        async for _ in stream:
                            pass
                left = True

            scope = anyio.CancelScope()
            tasks.start_soon(consume, scope)
            await source.blocked()
            scope.cancel()
            await wait_all_blocked()
            await anyio.sleep(100)
            assert not left
            assert len(ours()) == 1
            source.released.set()
        assert left
        assert source.closed == 1
        # What it yields after that is dropped, and it is at a yield by then.
        assert source.seen == ["GeneratorExit"] * after


class TestTimers:
    async def test_beats_and_limits(self) -> None:
        """K1, T1: beats come while it is blocked, and a limit is reached, which interrupts it."""
        source = Source(1, blocks=True, interrupted=ConnectionError())
        rows = from_thread(source.items, interrupt=source.interrupt)
        received = []
        async with with_keepalive(with_timeout(rows, first=1e6, idle=5), 2, "beat") as stream:
            with pytest.raises(StreamTimeout) as caught:
                async for item in stream:
                    received.append(item)
        assert caught.value.reason == TimedOut("idle", 5)
        assert [item for item in received if item != "beat"] == [1]
        assert received[-1] == "beat"
        assert stream.outcome is not None
        assert stream.outcome.kind == "timed_out"

    async def test_interrupted_again(self) -> None:
        """L7: an interrupt that comes before there is something to interrupt is repeated."""
        source, calls = Source(0, blocks=True, interrupted=ConnectionError()), []

        def interrupt() -> None:
            calls.append(anyio.current_time())
            if len(calls) == 3:
                source.interrupt()

        async with with_timeout(from_thread(source.items, interrupt=interrupt), idle=5) as stream:
            with pytest.raises(StreamTimeout):
                await anext(stream)
        assert [round(when - calls[0], 6) for when in calls[:3]] == [0, 1, 2]
        assert source.closed == 1

    async def test_limit_while_it_waits_for_a_thread(self) -> None:
        """T1: a limit is reached while the limiter is full, which is no time of the iterable's."""
        limiter, source = anyio.CapacityLimiter(1), Source()
        limiter.acquire_on_behalf_of_nowait(self)
        async with with_timeout(from_thread(source.items(), limiter=limiter), first=5) as stream:
            with pytest.raises(StreamTimeout):
                await anext(stream)
        assert source.produced == 0
        assert limiter.statistics().tasks_waiting == 0
