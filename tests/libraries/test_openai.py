"""The SDK of OpenAI: a chat that is streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai import AsyncOpenAI

from libraries.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.upstream import Upstream
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


async def test_chat(upstream: Upstream, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: a chat as most write it, with no ``async with``: its generators are closed."""
    wire = Wire(httpx2)
    async with AsyncOpenAI(
        base_url=f"{upstream.url}/v1", api_key="none", http_client=wire.client(), max_retries=0
    ) as client:

        async def texts() -> AsyncGenerator[str | None, None]:
            chat = await client.chat.completions.create(**ASK, stream=True)
            async for chunk in chat:
                yield chunk.choices[0].delta.content

        await way.leave(wire.library(upstream, texts), caplog)
