"""``AG_UI``: what goes on the wire. What the client makes of it is in ``tests/clients``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from streamkit import Outcome
from streamkit.asgi import Shutdown
from streamkit.runs import Runs
from streamkit.sse import AG_UI, AG_UI_0, EventStream, Frame, Profile, RunEvents, ServerSentEvent
from support import Client, Probe
from support.event_stream import parse

IDS = {"threadId": "t", "runId": "r"}
STARTED, FINISHED = {"type": "RUN_STARTED", **IDS}, {"type": "RUN_FINISHED", **IDS}


def said(
    *items: Any, kind: Any = "completed", reason: object = None, profile: Profile = AG_UI
) -> list[Any]:
    """Return the events of a run, but for the first one."""
    opening, state = profile.begun(IDS)
    frames = [opening]
    assert profile.fold is not None
    for item in items:
        frames.append(profile.encode_in(state, item))
        state = profile.fold(state, item)
    outcome = Outcome(kind=kind, reason=reason, started_at=0.0, ended_at=1.0)
    frames += profile.final(outcome, message="Sorry.", state=state) or []
    first, *events = [json.loads(event.data) for event in parse(*frames).events]
    assert first == STARTED
    return events


def text(delta: str, message: int = 0) -> dict[str, str]:
    id_ = f"r.{message}"
    return {"type": "TEXT_MESSAGE_CHUNK", "messageId": id_, "role": "assistant", "delta": delta}


def error(code: str) -> dict[str, str]:
    return {"type": "RUN_ERROR", "message": "Sorry.", "code": code}


def test_text() -> None:
    """Text is a message, and after anything else another one; a piece without text is none."""
    custom = {"type": "CUSTOM", "name": "n", "value": 1}
    event = ServerSentEvent('{"type":"RAW"}')
    assert said("a", "", b"\xc3\xa9\n", custom, "b", custom, custom, "", "c", Frame(), event) == [
        text("a"),
        text("\u00e9\n"),
        custom,
        text("b", 1),
        custom,
        custom,
        text("c", 2),
        {"type": "RAW"},
        FINISHED,
    ]
    assert said() == [FINISHED]


@pytest.mark.parametrize(
    ("kind", "reason", "end"),
    [
        ("completed", None, FINISHED),
        ("cancelled", None, {**FINISHED, "outcome": {"type": "cancelled"}}),
        ("cancelled", Shutdown(), error("shutdown")),
        ("timed_out", None, error("timed_out")),
        ("failed", None, error("failed")),
    ],
)
def test_ends(kind: str, reason: object, end: Any) -> None:
    """What is open is closed before any end, the last that was opened first."""
    items = [
        {"type": "STEP_STARTED", "stepName": "s"},
        {"type": "THINKING_START"},
        {"type": "TEXT_MESSAGE_START", "messageId": "m"},
        {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "t"},
        {"type": "TOOL_CALL_START", "toolCallId": "d", "toolCallName": "t"},
        {"type": "TOOL_CALL_END", "toolCallId": "c"},
    ]
    closed = [
        {"type": "TOOL_CALL_END", "toolCallId": "d"},
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        {"type": "THINKING_END"},
        {"type": "STEP_FINISHED", "stepName": "s"},
    ]
    assert said(*items, kind=kind, reason=reason) == [*items, *closed, end]
    assert said(*items, *closed, kind=kind, reason=reason) == [*items, *closed, end]
    # An end of its own is the end.
    assert said(*items, FINISHED, kind=kind, reason=reason) == [*items, *closed, FINISHED]


def test_before_1_0() -> None:
    """Clients before 1.0 are told of a cancellation by an error."""
    assert said("a", kind="cancelled", profile=AG_UI_0) == [text("a"), error("cancelled")]
    assert said("a", profile=AG_UI_0) == [text("a"), FINISHED]


def test_a_start_of_its_own() -> None:
    """A run is started once."""
    assert said(STARTED, "a") == [text("a"), FINISHED]
    assert AG_UI.encode(STARTED) == b'data: {"type":"RUN_STARTED","threadId":"t","runId":"r"}\n\n'


@pytest.mark.parametrize("kind", ["completed", "cancelled", "failed"])
@pytest.mark.parametrize(
    "as_event",
    [
        lambda event: ServerSentEvent(json.dumps(event), event=event["type"]),
        lambda event: Frame(b"data: %b\r\n\r\n" % json.dumps(event).encode()),
    ],
)
def test_in_events(as_event: Any, kind: str) -> None:
    """An event in a ServerSentEvent, or in a frame, is what it says: a start, and an end, too."""
    step, custom = {"type": "STEP_STARTED", "stepName": "s"}, {"type": "CUSTOM", "name": "n"}
    for events in (
        [STARTED, custom, FINISHED],
        [step, {"type": "TEXT_MESSAGE_START", "messageId": "m"}],
        [step, {"type": "STEP_FINISHED", "stepName": "s"}, {"type": "RUN_ERROR", "message": "x"}],
        [step, FINISHED],
    ):
        expected = said("a", *events, "b", kind=kind)
        assert said("a", *map(as_event, events), "b", kind=kind) == expected


def test_what_the_client_fails_on() -> None:
    """The last word of other protocols is left out, and lines end in LF alone."""
    assert said("a", ServerSentEvent("[DONE]"), "b") == [text("a"), text("b"), FINISHED]
    _, state = AG_UI.begun(IDS)
    assert AG_UI.encode_in(state, Frame(b"data: {}\r\n\r\n")) == b"data: {}\n\n"
    assert AG_UI.encode_in(state, Frame(b": c\n")) == b": c\n"


def test_ids_of_the_source() -> None:
    """Without a beginning, the ids are those of the source's own start, if it has any."""
    alone = replace(AG_UI, begin=None)
    for start, ids in (STARTED, ("t", "r")), ({"type": "RUN_STARTED"}, ("", "")):
        assert alone.fold is not None
        state = alone.fold(None, ServerSentEvent(json.dumps(start)))
        assert (state.thread_id, state.run_id) == ids


async def test_in_a_response() -> None:
    """Text takes a shorter way to the same bytes."""
    items = "a", "b", "\ud800", "", {"type": "RAW", "event": 1}, "c", "d"
    client = Client("POST")
    stream = EventStream(Probe(*items).source(), profile=AG_UI, about=IDS, keepalive=None)
    await client.get(stream)
    pieces = [str(event).encode() for event in client.log.events[1:-1]]
    assert [json.loads(event.data) for event in parse(*pieces).events][1:] == said(*items)


async def test_without_ids() -> None:
    """Misuse: the ids of the request are asked for early, of a run, too."""
    expected = r"write about=\{'threadId': body\['threadId'\], "
    with pytest.raises(ValueError, match=expected):
        EventStream(Probe().source(), profile=AG_UI)
    async with Runs() as runs:
        with pytest.raises(ValueError, match=expected):
            RunEvents(runs, "r", profile=AG_UI, about={"threadId": "t"})


def test_what_is_no_event() -> None:
    """What has no type is refused, and what to write is said."""
    with pytest.raises(TypeError, match=r"there is none in dict: yield {'type': 'CUSTOM'"):
        AG_UI.encode({"name": "n"})
