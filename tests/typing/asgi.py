"""What a type checker says of responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from streamkit import Head, Outcome, with_keepalive
from streamkit.asgi import StreamHost, StreamResponse


async def text() -> AsyncIterator[str]:
    yield "a"


async def text_with_head() -> AsyncIterator[str | Head]:
    yield Head(202)
    yield "a"


async def mixed() -> AsyncIterator[str | bytes | memoryview]:
    yield b"a"


async def numbers() -> AsyncIterator[int]:
    yield 1


def word(outcome: Outcome) -> str | None:
    return None


def words(outcome: Outcome) -> list[str]:
    return ["a"]


def parts(outcome: Outcome) -> Iterator[bytes]:
    yield b"a"


async def on_end(outcome: Outcome) -> int:
    return 1


async def hosts() -> None:
    async with StreamHost(grace=3) as host:
        assert_type(host, StreamHost)
        StreamResponse(text(), host=host)


StreamResponse(text(), final=word, on_end=on_end)
StreamResponse(text_with_head(), final=words, headers={"a": "b"})
StreamResponse(mixed(), final=parts, headers=[("a", "b")], media_type=None)
StreamResponse(with_keepalive(text(), 15, b": ping\n"), on_disconnect="drain")
StreamResponse(numbers())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
StreamResponse(text(), on_disconnect="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
