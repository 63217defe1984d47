"""Interruptions in the event loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from streamkit.testing import Interrupted, interruptions
from support import on_trio


async def words() -> AsyncIterator[str]:
    for word in ("a", "b"):
        await anyio.sleep(40)
        yield word


async def test_cases() -> None:
    """L1: each point and kind is a case, on the clock of the test, before anything is torn down."""
    torn_down = 0
    lock = anyio.Lock()

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        nonlocal torn_down
        async with lock:
            yield words(), torn_down
        torn_down += 1

    cases = interruptions(make)
    seen = 0
    async for case in cases:
        with case:
            assert case.given == torn_down == seen
            assert lock.locked()
            assert case.run.outcome is not None
            seen += 1
    kinds, undisturbed = (6, 5) if on_trio() else (7, 2)
    assert cases.report.runs == seen == undisturbed + 4 * kinds
    assert len(cases.report.points) == 4
    assert repr(case).startswith("<Case timeout at test_cases.py:")


async def test_failures() -> None:
    """L1: what fails in a case is told at the end, folded; so is what is wrong by itself."""

    async def source() -> AsyncIterator[str]:
        try:
            await anyio.sleep(1)
            yield "a"
        except BaseException:
            await anyio.sleep(100)
            raise

    with pytest.raises(Interrupted) as caught:
        async for case in interruptions(source, kinds=["stop"]):
            with case:
                assert case.run.kind is None, "my own"
    messages = [failure.message for failure in caught.value.report.failures]
    assert messages[0] == "my own"
    assert messages[1].startswith("is cut when its time to clean up is over")


async def test_failures_of_pytest() -> None:
    """L1: so does what pytest raises for a failure, which is no Exception. A skip is none."""
    with pytest.raises(Interrupted) as caught:
        async for case in interruptions(words, kinds=["stop"]):
            with case:
                pytest.fail("my own")
    assert [failure.message for failure in caught.value.report.failures] == ["Failed: my own"]
    async with interruptions(words) as cases:
        with pytest.raises(pytest.skip.Exception):
            async for case in cases:
                with case:
                    pytest.skip("not here")


async def test_without_a_block() -> None:
    """E1: an assertion that is in no block of the case ends the loop; the rest is torn down."""
    open_ones = 0

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        nonlocal open_ones
        open_ones += 1
        async with anyio.create_task_group():
            yield words()
        open_ones -= 1

    with pytest.raises(AssertionError, match="my own"):
        async with interruptions(make) as cases:
            async for case in cases:
                assert case.run.kind is None, "my own"
    assert not open_ones


async def test_leaves_the_case_alone() -> None:
    """E8: what is no error of the case is not kept for later."""
    with pytest.raises(KeyboardInterrupt):
        async with interruptions(words) as cases:
            async for case in cases:
                with case:
                    raise KeyboardInterrupt


async def test_options() -> None:
    """L1: one point, fewer runs, less time; a function has fewer kinds."""
    line = words.__code__.co_firstlineno + 2
    cases = interruptions(words, at=f"test_cases.py:{line}#2")
    struck = [case.run.asked_at async for case in cases if case.run.kind]
    assert struck == [f"test_cases.py:{line}#2"] * len(struck)
    assert cases.report.points == [f"test_cases.py:{line}#2"]
    cases = interruptions(words, max_runs=6)
    assert len([case async for case in cases]) == 6
    assert cases.report.left_out
    cases = interruptions(words, max_seconds=0)
    assert {case.run.kind async for case in cases} == {None}

    async def function() -> None:
        await anyio.sleep(1)

    kinds = [case.run.kind async for case in interruptions(lambda: function) if case.run.kind]
    assert kinds == (["cancel"] if on_trio() else ["cancel", "native"])
    with pytest.raises(ValueError, match="no kind 'halt'"):
        interruptions(words, kinds=["halt"])  # type: ignore[list-item]


async def test_never_reached() -> None:
    """L1: a point that a run does not come to again is left out, and said."""
    runs = 0

    async def source() -> AsyncIterator[str]:
        nonlocal runs
        runs += 1
        await anyio.sleep(1)
        if runs < 3:
            await anyio.sleep(2)
        yield "a"

    cases = interruptions(source, kinds=["stop"])
    async for _ in cases:
        pass
    assert len(cases.report.left_out) == 1


@pytest.mark.asyncio_only
async def test_handler_of_the_loop() -> None:
    """Y9: the exception handler of the test's loop is put back."""
    before = asyncio.get_running_loop().get_exception_handler()
    async for _ in interruptions(words, kinds=["stop"]):
        pass
    assert asyncio.get_running_loop().get_exception_handler() is before


@pytest.mark.asyncio_only
async def test_error_in_a_cycle() -> None:
    """L1: an error that nobody took is found if the garbage collector frees its task."""

    async def fail() -> None:
        mine = asyncio.current_task()
        raise ValueError(mine)

    async def source() -> AsyncIterator[str]:
        try:
            await anyio.sleep(1)
            yield "a"
        except BaseException:
            asyncio.ensure_future(fail())
            raise

    with pytest.raises(Interrupted) as caught:
        async for _ in interruptions(source, kinds=["stop"]):
            pass
    [failure] = caught.value.report.failures
    assert failure.message == "leaves behind: error nobody took: ValueError"


async def test_cancelled() -> None:
    """L1: what cancels the test ends the run that goes on, and leaves no task of it."""
    with anyio.move_on_after(20) as scope:
        async for _ in interruptions(words):
            raise AssertionError("must not be reached")
    assert scope.cancelled_caught


async def test_cancelled_while_it_resists() -> None:
    """L1: what cancels the test ends a run that swallows everything, after so many waits."""
    waits = 0

    async def resist() -> None:
        nonlocal waits
        while True:
            with suppress(BaseException):
                waits += 1
                await anyio.sleep(1)

    with anyio.move_on_after(20) as scope:
        async for _ in interruptions(lambda: resist, steps=100):
            raise AssertionError("must not be reached")
    assert scope.cancelled_caught
    assert 100 < waits < 200
