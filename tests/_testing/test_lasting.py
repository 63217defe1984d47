"""A context manager that is left in another task than it was entered in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from streamkit import with_cancellation
from streamkit.testing import lasting
from support import environment

variable: ContextVar[str] = ContextVar("variable", default="none")


@asynccontextmanager
async def resource(log: list[str], error: Exception | None = None) -> AsyncIterator[str]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        log.append(f"entered with {variable.get()}")
        try:
            yield "value"
        except ValueError:
            log.append("saw the error")
            raise
        finally:
            log.append("left")
            tasks.cancel_scope.cancel()
            if error is not None:
                raise error


async def in_another_task(function: Any, *args: Any) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function, *args)


async def test_left_elsewhere() -> None:
    """G2: a task group is entered in one task and left in another; the context is the caller's."""
    log: list[str] = []
    variable.set("mine")
    held = lasting(resource(log))
    assert await held.__aenter__() == "value"
    await in_another_task(held.__aexit__, None, None, None)
    assert log == ["entered with mine", "left"]


async def test_stream() -> None:
    """G2: a stream is entered by a fixture, read by a test, and left by somebody else."""

    async def source() -> AsyncIterator[int]:
        with anyio.move_on_after(60):
            yield 1
            yield 2

    stream = with_cancellation(source())
    held = lasting(stream)
    await held.__aenter__()
    assert await anext(stream) == 1
    await in_another_task(held.__aexit__, None, None, None)
    assert stream.outcome.kind == "closed"


async def test_errors() -> None:
    """E3: an error of the block reaches the manager; what leaving raises is raised."""
    log: list[str] = []
    error = ValueError("body")
    with pytest.RaisesGroup(ValueError):
        async with lasting(resource(log)):
            raise error
    assert log[1:] == ["saw the error", "left"]
    with pytest.RaisesGroup(KeyError):
        async with lasting(resource(log, KeyError("closing"))):
            pass


async def test_bare_error() -> None:
    """E1: an error that the manager lets out is the same object; one that it takes is gone."""

    @asynccontextmanager
    async def lets_out() -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def takes() -> AsyncIterator[None]:
        with suppress(ValueError):
            yield

    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with lasting(lets_out()):
            raise error
    assert caught.value is error
    async with lasting(takes()):
        raise error


async def test_cannot_be_entered() -> None:
    """E1: what entering raises is raised, bare."""

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        await anyio.sleep(1)
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        async with lasting(broken()):
            raise AssertionError("must not be entered")


async def test_cancelled_while_entering() -> None:
    """C1: a cancellation while it is entered ends that, and leaves nothing."""
    log: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            await anyio.sleep(60)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            log.append("left")

    began = anyio.current_time()
    with anyio.move_on_after(1) as scope:
        async with lasting(slow()):
            raise AssertionError("must not be entered")
    assert scope.cancelled_caught
    assert log == ["left"]
    assert anyio.current_time() - began == 2


async def test_cancelled_while_leaving() -> None:
    """G10: leaving it is shielded."""
    log: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        yield
        await anyio.sleep(1)
        log.append("left")

    with anyio.CancelScope() as scope:
        async with lasting(slow()):
            scope.cancel()
    assert log == ["left"]


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_never_left(name: str) -> None:
    """Z1: what is not left until the event loop ends is left then, and does not hold it up."""
    program = """
import sys
from contextlib import asynccontextmanager
import anyio
from streamkit.testing import interruptions, lasting

@asynccontextmanager
async def resource():
    try:
        yield "value"
    finally:
        print("left")

async def source():
    yield "a"

async def forgets():
    await lasting(resource()).__aenter__()

async def breaks():
    async for case in interruptions(source):
        raise SystemExit("own")

anyio.run(forgets, backend=sys.argv[1])
anyio.run(breaks, backend=sys.argv[1])
"""
    result = subprocess.run(
        [sys.executable, "-c", program, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert (result.stdout.split(), result.stderr.split()) == (["left"], ["own"])


async def test_used_once() -> None:
    """G4: it is used once."""
    log: list[str] = []
    held = lasting(resource(log))
    async with held:
        with pytest.raises(RuntimeError, match="for each block"):
            await held.__aenter__()
