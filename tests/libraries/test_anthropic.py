"""The SDK of Anthropic: a message that is streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from anthropic import AsyncAnthropic

from libraries.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.upstream import Upstream
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

ASK: dict[str, Any] = {
    "model": "m",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "?"}],
}


async def test_message(upstream: Upstream, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: the texts of a message; what the SDK has inside is closed with its block."""
    wire = Wire(httpx2)
    async with AsyncAnthropic(
        base_url=upstream.url, api_key="none", http_client=wire.client(), max_retries=0
    ) as client:

        async def texts() -> AsyncGenerator[str, None]:
            async with client.messages.stream(**ASK) as message:
                async for text in message.text_stream:
                    yield text

        await way.leave(wire.library(upstream, texts), caplog)
