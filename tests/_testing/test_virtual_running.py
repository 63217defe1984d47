"""Virtual time in an event loop that runs already."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from streamkit._testing.virtual_running import running_in_virtual_time
from support import Backend


@pytest.mark.real_time
async def test_real_loop(backend: Backend) -> None:
    """K1: an hour is over at once in the block, where the event loop can be changed."""
    if backend.is_trio:
        with pytest.raises(RuntimeError, match="MockClock"):
            with running_in_virtual_time():
                raise AssertionError("must not be entered")
        return
    loop = asyncio.get_running_loop()
    kind, began, called = type(loop), loop.time(), list[str]()
    with running_in_virtual_time():
        await anyio.sleep(3600)
        assert loop.time() - began >= 3600
        # What is not over when the block is left goes on in real time.
        loop.call_later(0.01, called.append, "later")
        loop.call_later(0.01, called.append, "never").cancel()
    assert type(loop) is kind
    assert loop.time() - began < 60
    await asyncio.sleep(0.05)
    assert called == ["later"]


@pytest.mark.real_time
@pytest.mark.asyncio_only
async def test_cancelled_after_the_block() -> None:
    """K1: what is not over when the block is left can be cancelled after it, without an error."""
    loop, called, errors = asyncio.get_running_loop(), list[str](), list[object]()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    with running_in_virtual_time():
        over = loop.call_later(5, called.append, "once")
        await asyncio.sleep(10)
        handle = loop.call_later(0.01, called.append, "never")
    over.cancel()
    handle.cancel()
    handle.cancel()
    late = asyncio.Event()
    loop.call_later(0.02, late.set)
    await late.wait()
    loop.set_exception_handler(handler)
    assert (called, errors) == (["once"], [])


@pytest.mark.real_time
@pytest.mark.asyncio_only
async def test_no_rounding_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """K1: an hour is not over too soon, whatever the time is when the block begins."""
    unlucky = 62937.323078397
    assert unlucky + 3600 - unlucky < 3600
    monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda loop: unlucky)
    loop = asyncio.get_running_loop()
    with running_in_virtual_time():
        now = loop.time()
        await anyio.sleep(3600)
        assert loop.time() - now >= 3600


async def test_virtual_already() -> None:
    """K1: nothing happens where time is virtual already."""
    with running_in_virtual_time():
        await anyio.sleep(3600)
