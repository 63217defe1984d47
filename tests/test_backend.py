"""A task that waits for another: woken once, and cancelled like in any other wait."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from streamkit._backend import Wakeup, get_backend
from support import Log, wait_all_blocked


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
    """C31: whichever comes first counts: a wait that is over is not cancelled, nor woken."""
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
