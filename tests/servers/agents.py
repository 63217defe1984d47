"""``examples/letta_response.py`` with agents for a test: what one does is the start of its name."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import anyio
import letta_response
from starlette.exceptions import HTTPException

from streamkit import StreamCancelled
from streamkit.runs import Runs


async def agent(agent_id: str) -> AsyncGenerator[Any, None]:
    kind = agent_id.partition("-")[0]
    match kind:
        case "empty":
            return
        case "unknown":
            raise HTTPException(404, "no such agent")
        case "busy":
            await anyio.sleep(0.3)
            yield chunk("busy"), 409
            raise AssertionError("goes on after a refusal")
        case "accepted":
            yield chunk(), 202
            yield chunk()
            return
    yield chunk()
    match kind:
        case "refused":
            yield chunk("secret"), 500
        case "broken":
            raise LookupError("secret")
        case "short":
            await anyio.sleep(0.5)
            yield chunk()
        case "long":
            await anyio.sleep(0.5)
            for _ in range(399):
                yield chunk()
        case "silent":
            await blocked(agent_id)


async def blocked(agent_id: str) -> None:
    try:
        await anyio.sleep_forever()
    except StreamCancelled as stop:
        print(f"{agent_id} was told: {stop.reason}", flush=True)
        raise


def chunk(content: str = "") -> dict[str, Any]:
    return {"message_type": "assistant_message", "content": content}


letta_response.agent = agent
# So that a long run is trimmed.
letta_response.Runs = partial(Runs, max_items=50)
# Seconds.
letta_response.PING_EVERY, letta_response.CHECK_EVERY, letta_response.DEAD_AFTER = 0.1, 0.05, 4.0
app = letta_response.app
