"""All combinators together: what they leave to the garbage collector, which is nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import pytest

from streamkit import (
    CancelToken,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from support.garbage import garbage


async def words() -> AsyncGenerator[str, None]:
    yield "a"
    await anyio.sleep(1)
    yield "b"


async def read(end: str) -> None:
    token = CancelToken()
    stream = with_cancellation(words(), token)
    stream = with_timeout(with_keepalive(with_buffer(stream, 2), 0.5, beat="beat"), total=60)
    async with with_status(stream) as stream:
        with suppress(StreamCancelled):
            async for _ in stream:
                if end == "left":
                    break
                if end == "stopped":
                    token.cancel()
    assert stream.outcome.error is None


@pytest.mark.parametrize("end", ["completes", "stopped", "left"])
async def test_no_cycle(end: str) -> None:
    """E10: when a stream has ended without an error, reference counts have freed it."""
    # What is cached with the first one stays.
    await read(end)
    with garbage() as found:
        await read(end)
    assert found == []
