"""What a response leaves to the garbage collector: nothing, so that closing it frees all of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import pytest

from streamkit import starlette
from streamkit.asgi import StreamHost, StreamResponse, WebSocketStream
from streamkit.jsonlines import JsonLines
from streamkit.sse import VERCEL_UI, EventStream
from support import Client, Socket
from support.garbage import garbage


async def words() -> AsyncGenerator[str, None]:
    yield "a"
    yield "b"


async def blocked() -> AsyncGenerator[str, None]:
    yield "a"
    await anyio.sleep_forever()


RESPONSES: dict[str, Callable[[Any], Any]] = {
    "StreamResponse": StreamResponse,
    "EventStream": EventStream,
    "with a profile that remembers": lambda source: EventStream(source, profile=VERCEL_UI),
    "with a last word": lambda source: EventStream(source, final=lambda outcome: str(outcome.kind)),
    "JsonLines": JsonLines,
    "starlette.EventStream": starlette.EventStream,
    "WebSocketStream": WebSocketStream,
}


async def answer(name: str, source: AsyncGenerator[str, None], *, hosted: bool) -> None:
    """Answer a request whose client goes after a second."""
    async with StreamHost() as host:
        state = {"host": host} if hosted else {}
        if name == "WebSocketStream":
            await Socket(goes_after=1, state=state).open(RESPONSES[name](source))
        else:
            await Client(goes_after=1, state=state).get(RESPONSES[name](source))


@pytest.mark.parametrize("hosted", [False, True])
@pytest.mark.parametrize("source", [words, blocked])
@pytest.mark.parametrize("name", RESPONSES)
async def test_no_cycle(name: str, source: Any, hosted: bool) -> None:
    """E7: when an answer has ended, or its client has gone, reference counts have freed it."""
    # What is cached with the first one stays.
    await answer(name, source(), hosted=hosted)
    with garbage() as found:
        await answer(name, source(), hosted=hosted)
    assert found == []
