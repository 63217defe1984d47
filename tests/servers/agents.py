"""``examples/letta_response.py`` with agents for a test: what one does is the start of its name."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import letta_response
from starlette.exceptions import HTTPException

from streamkit import StreamCancelled


async def agent(agent_id: str) -> AsyncGenerator[Any, None]:
    kind = agent_id.partition("-")[0]
    match kind:
        case "empty":
            return
        case "unknown":
            raise HTTPException(404, "no such agent")
        case "busy":
            await anyio.sleep(0.3)
            yield chunk(1, "busy"), 409
            raise AssertionError("goes on after a refusal")
        case "accepted":
            yield chunk(1), 202
            yield chunk(2)
            return
    yield chunk(1)
    match kind:
        case "refused":
            yield chunk(2, "secret"), 500
        case "broken":
            raise LookupError("secret")
        case "short":
            await anyio.sleep(0.5)
            yield chunk(2)
        case "silent":
            await blocked(agent_id)


async def blocked(agent_id: str) -> None:
    try:
        await anyio.sleep_forever()
    except StreamCancelled as stop:
        print(f"{agent_id} was told: {stop.reason}", flush=True)
        raise


def chunk(number: int, content: str = "") -> dict[str, Any]:
    return {"message_type": "assistant_message", "seq_id": number, "content": content}


letta_response.agent = agent
# Seconds.
letta_response.PING_EVERY, letta_response.CHECK_EVERY, letta_response.DEAD_AFTER = 0.1, 0.05, 4.0
app = letta_response.app
