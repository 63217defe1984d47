"""
Tests of a source: what it says when it is stopped, and that it can be stopped anywhere.

Needs ``pytest``, ``trio`` and ``anyio-streamkit``. Run them with
``pytest examples/test_answer.py``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import pytest

from streamkit import CancelToken, StreamCancelled, with_cancellation
from streamkit.testing import interrupt_everywhere


async def answer() -> AsyncGenerator[str, None]:
    try:
        yield "To be,"
        await anyio.sleep(60)
    except StreamCancelled as stop:
        yield f"[{stop.reason}]"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.leaves_nothing_behind
async def test_stop() -> None:
    token = CancelToken()
    async with with_cancellation(answer(), token) as stream:
        assert await anext(stream) == "To be,"
        token.cancel("enough")
        assert await anext(stream) == "[enough]"


def test_it_ends_wherever_it_is_interrupted() -> None:
    interrupt_everywhere(answer)
