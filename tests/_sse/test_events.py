"""``ServerSentEvent``, against a parser written from the standard."""

from __future__ import annotations

import re
import time
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from odd_text import lines, texts
from streamkit.sse import MAX_ID, MAX_RETRY, Frame, ServerSentEvent
from support.event_stream import Event, EventStreamParser, parse

events = st.builds(
    ServerSentEvent,
    texts | st.binary(max_size=30) | texts.map(lambda text: text.encode(errors="replace")),
    event=st.none() | lines,
    id=st.none() | lines,
    retry=st.none() | st.integers(0, MAX_RETRY),
    comment=st.none() | texts,
) | st.builds(
    ServerSentEvent,
    id=lines,
    retry=st.none() | st.integers(0, MAX_RETRY),
    comment=texts,
)
SENTINEL = ServerSentEvent("sentinel", event="sentinel", id="sentinel")


def arriving(text: str | bytes) -> str:
    """Return text as a client receives it, with one kind of line end."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def expected(event: ServerSentEvent, last_id: str) -> list[Event]:
    """Return what a client makes of an event that follows one with ``last_id``."""
    if event.data is None:
        return []
    event_id = last_id if event.id is None else arriving(event.id)
    return [Event(arriving(event.data), arriving(event.event or "message"), event_id)]


@given(events)
def test_round_trip(event: ServerSentEvent) -> None:
    """What a client receives is what was sent, field by field, and nothing else."""
    parser = parse(event.encode())
    assert parser.events == expected(event, "")
    assert parser.retries == ([] if event.retry is None else [event.retry])
    assert parser.comments == ([] if event.comment is None else arriving(event.comment).split("\n"))
    assert parser.last_event_id == arriving(event.id or "")
    assert parser.ignored == []


@given(st.lists(events, max_size=4))
def test_nothing_is_injected(between: list[ServerSentEvent]) -> None:
    """No text changes what comes before or after its event, or adds one."""
    parser = parse(*(event.encode() for event in (SENTINEL, *between, SENTINEL)))
    received, last_id = list[Event](), ""
    for event in (SENTINEL, *between, SENTINEL):
        received += expected(event, last_id)
        last_id = last_id if event.id is None else arriving(event.id)
    assert parser.events == received
    assert parser.retries == [event.retry for event in between if event.retry is not None]
    assert parser.last_event_id == "sentinel"
    assert parser.ignored == []


@given(st.lists(events, min_size=1, max_size=3), st.data())
def test_chunks_are_cut_anywhere(sent: list[ServerSentEvent], data: st.DataObject) -> None:
    """The same events arrive however the bytes are cut, also within a character or a line end."""
    stream = b"".join(event.encode() for event in sent)
    whole, cut = parse(stream), EventStreamParser()
    while stream:
        size = data.draw(st.integers(1, max(1, min(len(stream), 8))))
        cut.feed(stream[:size])
        stream = stream[size:]
    cut.close()
    assert (cut.events, cut.comments, cut.retries) == (whole.events, whole.comments, whole.retries)


@given(events)
def test_every_frame_is_whole(event: ServerSentEvent) -> None:
    """A frame ends its last line, so that a beat may follow, and begins with no byte order mark."""
    frame = event.encode()
    assert type(frame) is Frame
    assert frame.endswith(b"\n")
    assert b"\r" not in frame
    assert not frame.startswith("\ufeff".encode())


@given(comment=texts, retry=st.none() | st.integers(0, MAX_RETRY))
def test_a_comment_ends_no_event(comment: str, retry: int | None) -> None:
    """A comment and ``retry`` have no empty line, which some clients take for another event."""
    frame = ServerSentEvent(comment=comment, retry=retry).encode()
    assert b"\n\n" not in frame
    assert (
        parse(SENTINEL.encode(), frame, SENTINEL.encode()).events
        == [Event("sentinel", "sentinel", "sentinel")] * 2
    )


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (ServerSentEvent("hello"), b"data: hello\n\n"),
        (ServerSentEvent(""), b"data: \n\n"),
        (ServerSentEvent(b"\xc3\xa9"), b"data: \xc3\xa9\n\n"),
        (ServerSentEvent("a\r\nb\rc\nd\n"), b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (ServerSentEvent(" a"), b"data:  a\n\n"),
        (ServerSentEvent("a\u2028b\x85c\x0bd"), "data: a\u2028b\x85c\x0bd\n\n".encode()),
        (ServerSentEvent("\ud800|\0"), b"data: \xef\xbf\xbd|\0\n\n"),
        (ServerSentEvent(b"\xff"), b"data: \xef\xbf\xbd\n\n"),
        (
            ServerSentEvent("x", event="e", id="7", retry=0),
            b"retry: 0\nevent: e\nid: 7\ndata: x\n\n",
        ),
        (ServerSentEvent(id=""), b"id: \n\n"),
        (ServerSentEvent(retry=5), b"retry: 5\n"),
        (ServerSentEvent(comment="ping"), b": ping\n"),
        (ServerSentEvent(comment="a\r\rb"), b": a\n: \n: b\n"),
    ],
)
def test_wire_form(event: ServerSentEvent, wire: bytes) -> None:
    """The bytes of each kind of event."""
    assert event.encode() == wire


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "\n", "a" * MAX_ID + "é"])
def test_a_name_is_one_line(field: str, text: str) -> None:
    """CR, LF, NUL and excess are refused in ``event`` and ``id`` when the event is made."""
    with pytest.raises(ValueError, match=f"^{field} must .*: (put|send) "):
        ServerSentEvent("x", **{field: text})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "nothing to send: write ServerSentEvent"),
        ({"event": "done"}, ValueError, r"write ServerSentEvent\('', event='done'\)"),
        ({"data": {"a": 1}}, TypeError, "data must be str or bytes, got dict: write data=json"),
        ({"data": 1}, TypeError, "data must be str or bytes, got int"),
        ({"data": bytearray()}, TypeError, "data must be str or bytes, got bytearray"),
        ({"data": "", "event": b"x"}, TypeError, "event must be str, got bytes"),
        ({"id": 5}, TypeError, r"id must be str, got int: write id=str\(value\)"),
        ({"comment": 5}, TypeError, "comment must be str, got int"),
        ({"retry": True}, TypeError, "retry must be an int, in milliseconds, got bool: write"),
        ({"retry": 1.5}, TypeError, "retry must be an int, in milliseconds, got float: write"),
        ({"retry": -1}, ValueError, f"retry must be from 0 to {MAX_RETRY} milliseconds: write"),
        ({"retry": MAX_RETRY + 1}, ValueError, "retry must be from 0"),
        ({"retry": 10**5000}, ValueError, "retry must be from 0"),
    ],
)
def test_misuse(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """What can't be sent is refused when the event is made, with what to write instead."""
    with pytest.raises(error, match=message):
        ServerSentEvent(**arguments)


def test_a_long_name_is_not_repeated_in_the_message() -> None:
    """A message quotes the beginning of what it refuses."""
    with pytest.raises(ValueError) as caught:
        ServerSentEvent("x", event="\n" * 4000)
    assert len(str(caught.value)) < 250


def test_frozen() -> None:
    """What was checked stays as it was, and a copy is checked again."""
    event = ServerSentEvent("x")
    with pytest.raises(FrozenInstanceError):
        event.data = "y"  # type: ignore[misc]
    with pytest.raises(ValueError, match="one line"):
        replace(event, id="a\nb")


@pytest.mark.parametrize("character", ["a", "\n", "\r", "\r\n", "\ud800", "\0"])
def test_huge_events_take_linear_time(character: str) -> None:
    """An event of a million characters or lines is encoded in a fraction of a second.

    In quadratic time it would take minutes, of the processor and not of the clock.
    """
    event = ServerSentEvent(character * 1_000_000)
    start = time.thread_time()
    event.encode()
    assert time.thread_time() - start < 10
