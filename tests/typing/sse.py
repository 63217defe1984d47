"""Server-sent events and profiles. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, assert_type

from streamkit import Stream, with_keepalive
from streamkit.sse import BROWSER, Frame, Profile, ServerSentEvent


async def words() -> AsyncGenerator[str, None]:
    yield "a"


def events_of(item: tuple[str, str]) -> ServerSentEvent:
    return ServerSentEvent(item[1], event=item[0])


beating = with_keepalive(words(), 15, BROWSER.beat)
assert_type(beating, Stream[str | Frame])
assert_type(BROWSER.encode("a"), Frame)
mine = Profile("mine", event_of=events_of, tail=lambda kind, message: None)
anything: dict[str, Any] = {}
assert_type(mine.encode(anything), Frame)

ServerSentEvent("a", "b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ServerSentEvent(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
