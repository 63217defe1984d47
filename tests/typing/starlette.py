"""What a type checker says of responses of Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.responses import Response

from streamkit import Head, Outcome, with_keepalive
from streamkit.sse import OPENAI_CHAT
from streamkit.starlette import EventStream, JsonLines, StreamResponse


async def text() -> AsyncIterator[str | Head]:
    yield Head(202)
    yield "a"


async def numbers() -> AsyncIterator[int]:
    yield 1


def word(outcome: Outcome) -> str | None:
    return None


def endpoint() -> Response:
    return StreamResponse(
        text(), status_code=201, background=BackgroundTask(print), final=word, grace=1
    )


response = EventStream(numbers(), profile=OPENAI_CHAT, keepalive=None, on_disconnect="drain")
assert_type(response.headers, MutableHeaders)
assert_type(response.status_code, int)
EventStream(with_keepalive(numbers(), 15, "beat"), status_code=201, final=word)
StreamResponse(numbers())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
StreamResponse(text(), content=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
JsonLines(numbers(), beat={"type": "ping"}, status_code=201, grace=2)
