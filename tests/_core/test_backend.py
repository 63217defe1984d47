"""A task that waits for another: woken once, and cancelled like in any other wait."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
import trio

from streamkit import with_keepalive
from streamkit._core.backend import Backend, Wakeup, error_of_stray, get_backend
from support import Log, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def test_set() -> None:
    """B4: a task that waits goes on when it is woken, and can wait again."""
    wakeup, log = get_backend().make_wakeup(), Log()
    log.start()

    async def wait() -> None:
        for number in range(2):
            await wakeup.wait()
            log(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        for _ in range(2):
            await anyio.sleep(1)
            wakeup.set()
            wakeup.set()
    assert log == [(1, 0), (2, 1)]


async def test_nobody_waits() -> None:
    """B4: it is not kept for a later wait: whoever waits looks first."""
    wakeup = get_backend().make_wakeup()
    wakeup.set()
    with anyio.move_on_after(1) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught
    wakeup.set()


async def test_cancelled_in_the_same_tick() -> None:
    """C31: whichever comes first counts, but in a turn: a wait that is over is not cancelled."""
    for woken_first in True, False:
        wakeup, log = get_backend().make_wakeup(), Log()
        scope = anyio.CancelScope()

        async def wait(
            wakeup: Wakeup = wakeup, scope: anyio.CancelScope = scope, log: Log = log
        ) -> None:
            with scope:
                await wakeup.wait()
                log("woken")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await wait_all_blocked()
            for step in (wakeup.set, scope.cancel) if woken_first else (scope.cancel, wakeup.set):
                step()
        assert log.events == (["woken"] if woken_first else [])


class PingPong:
    """Two tasks that wake each other in turns, and notes of how the event loop ran meanwhile."""

    def __init__(self) -> None:
        self.ping, self.pong = get_backend().make_wakeup(), get_backend().make_wakeup()
        self.log = Log()

    async def serve(self, count: int) -> None:
        for number in range(count):
            await self.ping.wait()
            self.log(number)
            self.pong.set()

    async def ask(self, count: int) -> None:
        for _ in range(count):
            self.ping.set()
            await self.pong.wait()


@pytest.mark.asyncio_only
async def test_turns() -> None:
    """B4: two tasks that answer each other at once both run in each iteration of the event loop."""
    pair, iterations = PingPong(), 0

    async def count_iterations() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.serve, 100)
        await wait_all_blocked()
        tasks.start_soon(count_iterations)
        await pair.ask(100)
        tasks.cancel_scope.cancel()
    assert pair.log.events == list(range(100))
    assert 100 <= iterations <= 110


@pytest.mark.asyncio_only
async def test_turn_is_not_enough() -> None:
    """B4: whoever takes longer than a turn is waited for, and a turn is tried again much later."""
    wakeup, turns = get_backend().make_wakeup(), 0

    async def wait() -> None:
        await wakeup.wait()

    for _ in range(33):
        waiting = wait()
        if waiting.send(None) is None:
            turns += 1
            assert waiting.send(None) is not None
        wakeup.set()
        with pytest.raises(StopIteration):
            waiting.send(None)
    assert turns == 2


class TestCancelledInATurn:
    """B4: a wait that is in its turn is cancelled like any other, and leaves nothing."""

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("native", [False, True])
    @pytest.mark.parametrize("is_set", [False, True])
    async def test_cancelled(self, native: bool, is_set: bool) -> None:
        wakeup, log = get_backend().make_wakeup(), Log()
        scope = anyio.CancelScope()

        async def wait() -> None:
            # The first wait is without a turn.
            await wakeup.wait()
            waiting = True
            try:
                with scope:
                    await wakeup.wait()
                    waiting = False
            finally:
                log(waiting)
            # Nothing of the one before wakes it.
            with anyio.move_on_after(1) as limit:
                await wakeup.wait()
            log(limit.cancelled_caught)

        task = asyncio.ensure_future(wait())
        await wait_all_blocked()
        wakeup.set()
        await asyncio.sleep(0)
        if is_set:
            wakeup.set()
        if native:
            task.cancel()
        else:
            scope.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is native
        assert log.events == ([True] if native else [True, True])


@pytest.mark.asyncio_only
@pytest.mark.real_time
async def test_clock_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: a test that gives its event loop another clock, not its class, gets that one here."""
    assert get_backend().now() == pytest.approx(anyio.current_time(), abs=60)
    loop = asyncio.get_running_loop()
    try:
        monkeypatch.setattr(loop, "time", lambda: time.monotonic() + 5000)
    except AttributeError:
        pytest.skip("this event loop does not allow it")
    try:
        assert get_backend().now() == pytest.approx(anyio.current_time(), abs=60)
    finally:
        monkeypatch.undo()


async def test_called_with_the_next_pass() -> None:
    """B4: several functions are called with one pass, in the order in which they came."""
    backend, log = get_backend(), Log()
    task = backend.current_task()

    def first() -> None:
        log("first")
        backend.soon(task, lambda: log("later"))

    backend.soon(task, first)
    backend.soon(task, lambda: log("second"))
    assert log.events == []
    await wait_all_blocked()
    assert log.events == ["first", "second", "later"]
    backend.soon(task, lambda: log("again"))
    await wait_all_blocked()
    assert log.events == ["first", "second", "later", "again"]


@pytest.mark.trio_only
async def test_interrupted_before_the_next_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: Ctrl-C that comes while one is handed to trio does not keep later ones from it."""
    backend, log = get_backend(), Log()
    task = backend.current_task()

    def interrupted(function: object, *, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backend.soon, "_spawn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.soon(task, lambda: log("interrupted"))
    backend.soon(task, lambda: log("later"))
    await wait_all_blocked()
    assert log.events == ["later"]


async def test_scope() -> None:
    """B4: a scope of the backend is one of anyio's."""
    backend = get_backend()
    with backend.make_scope(deadline=backend.now() + 1) as scope:
        await anyio.sleep(2)
    assert scope.cancelled_caught


def test_dropped_without_a_loop() -> None:
    """B4: what a dropped task raises is told from a cancellation where no event loop runs."""
    assert error_of_stray(GeneratorExit(), "on_end") is None


def test_event_loop_is_let_go() -> None:
    """B4: when an event loop is closed, and was dropped, nothing of a stream keeps it."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with with_keepalive(source(), 1.0, beat=0) as stream:
            assert await anext(stream) == 1

    asyncio.run(main())
    gc.collect()
    assert loops[0]() is None


@pytest.mark.asyncio_only
async def test_in_a_callback() -> None:
    """B4: what the event loop calls in no task finds that loop as well."""
    loop, log = asyncio.get_running_loop(), Log()
    loop.call_soon(lambda: log(get_backend().loop))
    await wait_all_blocked()
    assert log.events == [id(loop)]


def test_trio_within_asyncio() -> None:
    """B4: a run of trio within a task of asyncio, as in a notebook, is the one that runs."""

    async def main() -> None:
        trio.run(within)

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        await anyio.sleep(0.001)
        yield 2

    async def within() -> None:
        async with with_keepalive(source(), 10.0, beat=0) as stream:
            assert [item async for item in stream] == [1, 2]

    asyncio.run(main())


@pytest.mark.trio_only
async def test_two_runs_in_turns() -> None:
    """B4: runs of trio in several threads that take turns look after their streams only once."""
    before = get_backend()

    async def elsewhere() -> None:
        assert get_backend().orphanage is not before.orphanage

    await anyio.to_thread.run_sync(trio.run, elsewhere)
    after = get_backend()
    assert after is not before
    assert after.orphanage is before.orphanage


def test_one_loop_after_the_other() -> None:
    """B4: what was found out about one event loop is not taken for another, nor holds it."""
    found: list[Backend] = []

    async def look() -> weakref.ref[asyncio.AbstractEventLoop]:
        backend, loop = get_backend(), asyncio.get_running_loop()
        assert backend is get_backend()
        assert backend.loop == id(loop)
        assert backend.is_here()
        assert not any(other.is_here() for other in found)
        found.append(backend)
        return weakref.ref(loop)

    loops = [asyncio.run(look()) for _ in range(2)]
    gc.collect()
    assert [loop() for loop in loops] == [None, None]
    assert not any(backend.is_here() for backend in found)
