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


async def test_virtual_already() -> None:
    """K1: nothing happens where time is virtual already."""
    with running_in_virtual_time():
        await anyio.sleep(3600)
