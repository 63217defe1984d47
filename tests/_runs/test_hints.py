"""``Hints``: who waits for news of which run."""

from __future__ import annotations

import anyio

from streamkit._runs.hints import Hints
from support import Log, wait_all_blocked


async def test_told() -> None:
    """Those who watch a run are woken by a hint for it, those of others are not."""
    hints = Hints()
    when = Log()
    when.start()

    async def watch(run_id: str) -> None:
        async with hints.watch(run_id) as watch:
            await watch.wait()
            when(run_id)

    async with anyio.create_task_group() as tasks:
        for run_id in "aab":
            tasks.start_soon(watch, run_id)
        await anyio.sleep(1)
        assert set(hints.watched) == {"a", "b"}
        hints.tell("a")
        hints.tell("c")
        await anyio.sleep(1)
        hints.tell_all()
    assert when == [(1, "a"), (1, "a"), (2, "b")]
    assert not hints.watched


async def test_told_between_waits() -> None:
    """A hint that comes while nobody waits ends the next wait, once."""
    hints = Hints()
    async with hints.watch("a") as watch:
        hints.tell("a")
        hints.tell("a")
        await watch.wait()
        with anyio.move_on_after(10) as scope:
            await watch.wait()
        assert scope.cancelled_caught


async def test_patience() -> None:
    """A wait ends without a hint as well, where patience has an end."""
    hints = Hints()
    began = anyio.current_time()
    async with hints.watch("a", 5.0) as watch:
        await watch.wait()
        assert anyio.current_time() == began + 5
        hints.tell("a")
        await watch.wait()
        assert anyio.current_time() == began + 5


async def test_cancelled() -> None:
    """One that is cancelled disturbs no other, and leaves nothing."""
    hints = Hints()
    told: list[int] = []

    async def watch(number: int) -> None:
        async with hints.watch("a") as watch:
            await watch.wait()
            told.append(number)

    async with anyio.create_task_group() as others:
        others.start_soon(watch, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, 2)
            await wait_all_blocked()
            tasks.cancel_scope.cancel()
        hints.tell("a")
    assert told == [1]
    assert not hints.watched
