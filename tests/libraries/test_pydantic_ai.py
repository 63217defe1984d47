"""pydantic-ai: an agent whose answer is streamed, from a model over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from libraries.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.upstream import Upstream
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio_only, pytest.mark.one_of_each]


async def test_agent(upstream: Upstream, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: the texts of an agent, which reads ahead in a task of its own; it is over."""
    wire = Wire(httpx2)
    async with AsyncOpenAI(
        base_url=f"{upstream.url}/v1", api_key="none", http_client=wire.client(), max_retries=0
    ) as client:
        agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client)))

        async def texts() -> AsyncGenerator[str, None]:
            async with agent.run_stream("?") as answer:
                async for text in answer.stream_text(delta=True):
                    yield text

        await way.leave(wire.library(upstream, texts), caplog)
