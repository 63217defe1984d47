"""Server-sent events and profiles. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, assert_type

from starlette.datastructures import Headers

from streamkit import Stream, with_keepalive
from streamkit.sse import (
    BROWSER,
    EventStream,
    Frame,
    Profile,
    ServerSentEvent,
    last_event_id,
    whole_events,
)


async def words() -> AsyncGenerator[str, None]:
    yield "a"


async def pieces() -> AsyncGenerator[bytes, None]:
    yield b"a"


def events_of(item: tuple[str, str]) -> ServerSentEvent:
    return ServerSentEvent(item[1], event=item[0])


beating = with_keepalive(words(), 15, BROWSER.beat)
assert_type(beating, Stream[str | Frame])
assert_type(BROWSER.encode("a"), Frame)
mine = Profile("mine", event_of=events_of, tail=lambda kind, message: None)
anything: dict[str, Any] = {}
assert_type(mine.encode(anything), Frame)

assert_type(whole_events(pieces()), AsyncGenerator[Frame, None])
assert_type(last_event_id({"last-event-id": "7"}), str | None)
last_event_id([("last-event-id", "7")])
last_event_id([(b"last-event-id", b"7")])
last_event_id({b"last-event-id": b"7"})
last_event_id(Headers())
Profile("mine", shutdown=lambda message: [ServerSentEvent(message)], errors="event", encoder=str)
EventStream(words(), profile=mine, grace=2)
EventStream(source=words())

ServerSentEvent("a", "b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ServerSentEvent(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
EventStream(words(), BROWSER)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
EventStream(words(), media_type="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
whole_events(words())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Profile("mine", errors="both")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
last_event_id("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
