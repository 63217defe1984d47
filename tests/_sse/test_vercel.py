"""``VERCEL_UI``: what goes on the wire. What the clients make of it is in ``tests/clients``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import fastapi.sse
import pytest
import sse_starlette

from streamkit import Outcome
from streamkit.asgi import Shutdown
from streamkit.client import Event
from streamkit.sse import VERCEL_UI, EventStream, Frame, Profile, ServerSentEvent, whole_events
from support import Client, aiter_of
from support.event_stream import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

TEXT = {"type": "text-start", "id": "a"}, {"type": "text-delta", "id": "a", "delta": "x"}
FINISH_STEP = {"type": "finish-step"}


def said(
    *items: Any, kind: Any = "completed", reason: object = None, profile: Profile = VERCEL_UI
) -> list[Any]:
    """Return the chunks of a stream, but for the first one and ``[DONE]``."""
    opening, state = profile.begun({"run_id": "r", "epoch": "e"})
    frames = [opening]
    for item in items:
        frames.append(profile.encode_in(state, item))
        assert profile.fold is not None
        state = profile.fold(state, item)
    outcome = Outcome(kind=kind, reason=reason, started_at=0.0, ended_at=1.0)
    frames += profile.final(outcome, message="Sorry.", state=state) or []
    first, *chunks, last = [event.data for event in parse(*frames).events]
    assert json.loads(first) == {"type": "start", "messageId": "r.e"}
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def delta(text: str) -> dict[str, str]:
    return {"type": "text-delta", "id": "text", "delta": text}


START, END = {"type": "text-start", "id": "text"}, {"type": "text-end", "id": "text"}
FINISH, ABORT = {"type": "finish"}, {"type": "abort"}
ERROR = {"type": "error", "errorText": "Sorry."}
TOLD = {"type": "data-end", "data": {"kind": "cancelled"}, "transient": True}


def test_text() -> None:
    """Text becomes one part, which is opened once and closed at the end."""
    texts = ["a", "", 'b"\n\r\u2028\u00e9', "\0"]
    assert said(*texts) == [START, *map(delta, texts), END, FINISH]
    assert said(b"\xc3\xa9", "\ud800") == [START, delta("\u00e9"), delta("\ufffd"), END, FINISH]
    assert said() == [FINISH]


@pytest.mark.parametrize(
    ("kind", "reason", "end"),
    [
        ("completed", None, [FINISH]),
        ("cancelled", None, [TOLD, ABORT]),
        ("cancelled", Shutdown(), [ERROR]),
        ("timed_out", None, [ERROR]),
        ("failed", None, [ERROR]),
    ],
)
def test_ends(kind: str, reason: object, end: list[Any]) -> None:
    """What is open is closed before any end."""
    source = {"type": "reasoning-start", "id": "a"}
    tool = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t", "dynamic": True}
    closed = {**tool, "type": "tool-input-error", "input": None, "errorText": "Sorry."}
    items = [*TEXT, source, "x", tool]
    ends = [{"type": "text-end", "id": "a"}, {"type": "reasoning-end", "id": "a"}, END, closed]
    assert said(*items, kind=kind, reason=reason) == [
        *TEXT,
        source,
        START,
        delta("x"),
        tool,
        *ends,
        *end,
    ]


def test_what_is_closed_already() -> None:
    """What the source has closed is not closed again."""
    tools = [
        {"type": "tool-input-start", "toolCallId": str(number), "toolName": "t"}
        for number in range(3)
    ]
    items = [
        *TEXT,
        {"type": "text-end", "id": "a"},
        {"type": "text-end", "id": "other"},
        *tools,
        {"type": "tool-input-delta", "toolCallId": "0", "inputTextDelta": "{"},
        {"type": "tool-input-available", "toolCallId": "0", "toolName": "t", "input": {}},
        {"type": "tool-input-error", "toolCallId": "1", "toolName": "t", "errorText": "x"},
        {"type": "tool-output-available", "toolCallId": "2", "output": 1},
        {"type": "data-x", "data": 1},
    ]
    assert said(*items) == [*items, FINISH]
    # Our own, too.
    assert said("x", END, "y") == [START, delta("x"), END, START, delta("y"), END, FINISH]


def test_steps() -> None:
    """At the end of a step its text is closed, and what follows is another part."""
    tool = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}
    assert said("x", tool, FINISH_STEP, "y") == [
        START,
        delta("x"),
        tool,
        END,
        FINISH_STEP,
        START,
        delta("y"),
        {**tool, "type": "tool-input-error", "input": None, "errorText": "Sorry."},
        END,
        FINISH,
    ]


@pytest.mark.parametrize(
    ("own", "ends"),
    [
        ({"type": "finish", "messageMetadata": {}}, ([], [TOLD, ABORT], [ERROR])),
        (ABORT, ([], [TOLD], [ERROR])),
        ({"type": "error", "errorText": "x"}, ([], [TOLD, ABORT], [])),
    ],
)
def test_an_end_of_its_own(own: Any, ends: tuple[list[Any], ...]) -> None:
    """An end that the source has sent is not sent again, and what is open is closed before it."""
    for kind, end in zip(("completed", "cancelled", "failed"), ends, strict=True):
        assert said("x", own, kind=kind) == [START, delta("x"), END, own, *end]


def test_message_id() -> None:
    """The id is that of the run, or the one that was given, or a new one; and there is only one."""
    assert VERCEL_UI.begin is not None
    [given] = VERCEL_UI.begin({"messageId": "m", "run_id": "r"})
    assert given["messageId"] == "m"
    ids = {next(iter(VERCEL_UI.begin({})))["messageId"] for _ in range(2)}
    assert len(ids) == 2
    start = {"type": "start", "messageId": "other", "messageMetadata": {"a": 1}}
    assert said(start) == [{"type": "start", "messageMetadata": {"a": 1}}, FINISH]
    # Without a beginning, the source's is the one.
    alone = replace(VERCEL_UI, begin=None)
    assert b"other" in alone.encode(start)


async def test_shorter_way() -> None:
    """In a response, text takes a shorter way to the same bytes, wherever it comes."""
    tool = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}
    line = Frame(b"data: {}"), Frame(b"\n\n")
    items = [
        "a",
        "",
        'b"\n\u2028\u00e9',
        "\ud800",
        "x",
        tool,
        "y",
        FINISH_STEP,
        "z",
        *line,
        "z",
        "z",
    ]

    async def source() -> AsyncGenerator[Any, None]:
        for item in items:
            yield item

    client = Client("GET")
    about = {"messageId": "m"}
    await client.get(EventStream(source(), profile=VERCEL_UI, about=about, keepalive=None))
    frame, state = VERCEL_UI.begun(about)
    expected = bytes(frame)
    for item in items:
        expected += VERCEL_UI.encode_in(state, item)
        assert VERCEL_UI.fold is not None
        state = VERCEL_UI.fold(state, item)
    outcome = Outcome(kind="completed", started_at=0.0, ended_at=1.0)
    expected += b"".join(VERCEL_UI.final(outcome, state=state) or [])
    assert "".join(map(str, client.log.events[1:-1])) == expected.decode()


async def test_beats_after_the_middle_of_a_line() -> None:
    """Text ends the line that a frame has left open, and beats go on after it."""

    async def source() -> AsyncGenerator[Any, None]:
        yield "a"
        yield Frame(b": c")
        yield "b"
        await anyio.sleep(25)

    client = Client("GET")
    await client.get(EventStream(source(), profile=VERCEL_UI, keepalive=10))
    said = "".join(map(str, client.log.events[1:-1]))
    assert said.count(": ping\n") == 2


@dataclass
class Chunk:
    type: str
    id: str
    more: Any = None


class Odd:
    pass


def test_models() -> None:
    """A model is a chunk, and is closed as one; an encoder is asked for what is in it."""
    chunk = Chunk("text-start", "m")
    assert said(chunk) == [
        {"type": "text-start", "id": "m", "more": None},
        {"type": "text-end", "id": "m"},
        FINISH,
    ]
    profile = replace(VERCEL_UI, encoder=lambda value: "odd")
    [made, *_] = said(Chunk("text-start", "m", Odd()), profile=profile)
    assert made["more"] == "odd"


def event(chunk: Any, **options: Any) -> ServerSentEvent:
    return ServerSentEvent(chunk if isinstance(chunk, str) else json.dumps(chunk), **options)


def test_what_passes() -> None:
    """Events and frames that say nothing of the protocol pass as they are."""
    part = {"type": "data-x", "data": 1}
    comment, no_chunks = Frame(b": x\n"), [event("x"), event('{"n":1}'), event("{"), event("")]
    assert VERCEL_UI.encode_in(None, comment) == comment
    for each in no_chunks:
        assert VERCEL_UI.encode_in(None, each) == each.encode()
        assert VERCEL_UI.fold is not None
        assert VERCEL_UI.fold(None, each) == VERCEL_UI.fold(None, comment)
    assert said(event(part), comment) == [part, FINISH]


AS_EVENTS = [
    event,
    lambda chunk: event(chunk).encode(),
    lambda chunk: fastapi.sse.ServerSentEvent(data=chunk),
    lambda chunk: sse_starlette.ServerSentEvent(json.dumps(chunk)),
    lambda chunk: Event(json.dumps(chunk), id="7"),
    lambda chunk: Frame(b"data: %b\r\n\r\n" % json.dumps(chunk).encode()),
    lambda chunk: Frame(b"data: %b\r\r" % json.dumps(chunk).encode()),
    # Of several lines.
    lambda chunk: ServerSentEvent(json.dumps(chunk, indent=1)).encode(),
]


@pytest.mark.parametrize("kind", ["completed", "cancelled", "failed"])
@pytest.mark.parametrize("as_event", AS_EVENTS)
def test_chunks_in_events(as_event: Any, kind: str) -> None:
    """A chunk in an event is what it says: ends are ends, and what it opens is closed."""
    tool = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}
    start = {"type": "start", "messageId": "other", "messageMetadata": {"a": 1}}
    for chunks in (
        [FINISH],
        [ABORT, FINISH],
        [{"type": "error", "errorText": "x"}],
        [start, *TEXT, {"type": "text-end", "id": "a"}, FINISH],
        [*TEXT, {"type": "reasoning-start", "id": "b"}, tool],
        [*TEXT, FINISH_STEP, tool, FINISH],
    ):
        expected = said("x", *chunks, "y", *chunks, kind=kind)
        assert said("x", *map(as_event, chunks), "y", *map(as_event, chunks), kind=kind) == expected


def test_what_has_no_json_in_an_event() -> None:
    """What an encoder is for is no hindrance to see what an event of FastAPI is."""
    profile = replace(VERCEL_UI, encoder=lambda value: "odd")
    part = {"type": "text-start", "id": "a", "providerMetadata": Odd()}
    said_ = said(fastapi.sse.ServerSentEvent(data=part), profile=profile)
    assert said_ == [{**part, "providerMetadata": "odd"}, {"type": "text-end", "id": "a"}, FINISH]


def test_several_in_a_frame() -> None:
    """What is open is closed in the middle of a frame of several events, where one is an end."""
    frame = b": a\n\nid: 7\n\n" + b"".join(event(chunk).encode() for chunk in [*TEXT, FINISH])
    assert said("x", Frame(frame + b": b\n")) == [
        *[START, delta("x")],
        *TEXT,
        *[END, {"type": "text-end", "id": "a"}],
        FINISH,
    ]
    _, state = VERCEL_UI.begun({})
    assert VERCEL_UI.encode_in(state, Frame(frame)).startswith(b": a\n\nid: 7\n\ndata: {")
    # The rest of an event that has begun in another frame is left alone.
    for part in b'data: {"type":"finish"}', b'data: {"type":"finish"}\r', b'"}\n\n', b"\n":
        assert VERCEL_UI.encode_in(state, Frame(part)) == part
        assert VERCEL_UI.fold is not None
        assert VERCEL_UI.fold(state, Frame(part)) == state


@pytest.mark.parametrize("data", [b'{"a":', b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}"])
def test_what_cannot_be_read_in_a_frame(data: bytes) -> None:
    """What is no chunk, or too deep or too long to be read, passes as it is."""
    _, state = VERCEL_UI.begun({})
    frame = Frame(b"data: " + data + b"\n\n")
    assert VERCEL_UI.encode_in(state, frame) == frame
    assert VERCEL_UI.fold is not None
    assert VERCEL_UI.fold(state, frame) == state


def test_another_id_in_an_event() -> None:
    """A start in an event passes without its id, and with all else that is in the event."""
    _, state = VERCEL_UI.begun({})
    start = event({"messageId": "m", "type": "start"}, id="7", event="e", retry=5, comment="c")
    [read] = parse(VERCEL_UI.encode_in(state, start)).events
    assert (read.data, read.type, read.last_event_id) == ('{"type":"start"}', "e", "7")


@pytest.mark.parametrize("kind", ["completed", "cancelled", "failed"])
def test_done(kind: Any) -> None:
    """After the last word of a source nothing is added, and what was open is closed before it."""
    done = ServerSentEvent("[DONE]")
    tool = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}
    failed = {**tool, "type": "tool-input-error", "input": None}
    failed["errorText"] = "The input is not complete."
    assert said("x", tool, done, kind=kind) == [START, delta("x"), tool, END, failed]
    assert said(FINISH, done, kind=kind) == [FINISH]
    # It is text, as text.
    assert said("[DONE]")[1] == delta("[DONE]")


async def test_relayed() -> None:
    """What another server says is passed on as it is, whatever it comes in, and is told once."""
    body = b"".join(
        each if isinstance(each, bytes) else event(each).encode()
        for each in [{"type": "start", "messageId": "m"}, *TEXT, FINISH, b"data: [DONE]\n\n"]
    )
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    about = {"messageId": "m"}
    client = Client("GET")
    source = whole_events(aiter_of(*pieces))
    await client.get(EventStream(source, profile=VERCEL_UI, about=about, keepalive=None))
    told = "".join(map(str, client.log.events[1:-1])).encode()
    assert [each.data for each in parse(told).events].count("[DONE]") == 1
    chunks = [json.loads(each.data) for each in parse(told).events[:-1]]
    start = {"type": "start"}
    end = {"type": "text-end", "id": "a"}
    assert chunks == [{**start, "messageId": "m"}, start, *TEXT, end, FINISH]


def test_what_is_no_chunk() -> None:
    """What has no type is refused, and what to write is said."""
    for item in {"data": 1}, 1, [1], {"type": 1}:
        with pytest.raises(TypeError, match=r"there is none in .*: yield {'type': 'data-"):
            VERCEL_UI.encode(item)
        assert VERCEL_UI.fold is not None
        assert VERCEL_UI.fold(None, item) == VERCEL_UI.fold(None, Frame())


def test_header() -> None:
    """The clients are told which protocol it is."""
    assert VERCEL_UI.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert VERCEL_UI.headers["X-Accel-Buffering"] == "no"
