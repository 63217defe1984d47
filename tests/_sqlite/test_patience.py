"""How long calls wait for the thread of a log in a file."""

from __future__ import annotations

import anyio
import pytest

from streamkit._sqlite.patience import Patience
from streamkit._sqlite.worker import Call
from support import Log, wait_all_blocked


def nothing(target: object) -> None:
    """Have nothing done."""


async def wait(patience: Patience, call: Call[None], log: Log) -> None:
    await patience.wait(call)
    log("given up" if call.is_given_up else "over")


async def test_each_has_its_time() -> None:
    """Calls that come one after the other are given up one after the other; one that is over is
    not. While there is none, no timer is set.
    """
    patience, log = Patience(5), Log()
    calls = [Call(nothing) for _ in range(3)]
    for _ in range(2):
        log.start()
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(wait, patience, call, log)
                await anyio.sleep(1.5)
            calls[1].is_over.set()
        assert log == [(4.5, "over"), (5, "given up"), (8, "given up")]
        assert not patience._waiting
        await anyio.sleep(20)
        assert not patience._is_set
        log.clear()
        calls = [Call(nothing) for _ in range(3)]
    patience.close()
    await patience.settle()


async def test_over_at_the_last_moment() -> None:
    """A call that is over in the very moment in which its time is up is not given up."""
    patience, log, call = Patience(5), Log(), Call(nothing)
    log.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, patience, call, log)
        await wait_all_blocked()
        patience._waiting[call] = anyio.current_time()
        call.is_over.set()
        patience._look()
    assert log == [(0, "over")]
    patience.close()
    await patience.settle()


async def test_closed() -> None:
    """Who waits is told that nobody does it any more; a call that is cancelled is given up, too."""
    patience, log = Patience(5), Log()
    calls = [Call(nothing) for _ in range(2)]
    log.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, patience, calls[0], log)
        with anyio.move_on_after(1):
            await patience.wait(calls[1])
        assert calls[1].is_given_up
        assert not calls[1].is_over.is_set()
        patience.close()
    assert log == [(1, "given up")]
    await patience.settle()


async def test_the_timer_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the timer is told."""
    patience = Patience(5)
    patience._timer._fail(LookupError("odd"))
    [record] = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "odd"
    patience.close()
    await patience.settle()
