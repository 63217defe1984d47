"""httpx: a response that is streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from libraries.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.upstream import Upstream
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_lines(
    upstream: Upstream, way: Way, module: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """L7, Y8: the lines of a response, which is silent after some; the connection is back."""
    wire = Wire(module)
    async with wire.client() as client:

        async def lines() -> AsyncGenerator[str, None]:
            async with client.stream("GET", f"{upstream.url}/lines") as response:
                async for line in response.aiter_lines():
                    yield line

        await way.leave(wire.library(upstream, lines), caplog)
