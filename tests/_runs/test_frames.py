"""The items of a run as events that say where they are."""

from __future__ import annotations

import pytest

from streamkit._runs.entry import Entry
from streamkit._runs.frames import Frames, located
from streamkit.sse import BROWSER, OPENAI_RESPONSES, RAW, Frame, Profile, ServerSentEvent


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"data: a\n\n", b"data: a\nid: c\n\n"),
        (b"data: a\ndata: b\nevent: e\n\n", b"data: a\ndata: b\nid: c\nevent: e\n\n"),
        # The id is in the last event, in order that who has seen it has seen all.
        (b"data: a\n\ndata: b\n\n", b"data: a\n\ndata: b\nid: c\n\n"),
        (b"data\n\n", b"data\nid: c\n\n"),
        (b"data: a\n: x\n\n\n: y\n", b"data: a\nid: c\n: x\n\n\n: y\n"),
        (b"data: a\r\n\r\n", b"data: a\nid: c\n\n"),
        (b"data: a\r\r", b"data: a\nid: c\n\n"),
        (b"retry: 5\ndata: a\n\n", b"data: a\nid: c\n\nretry: 5\n"),
        # No events.
        (b"", b""),
        (b": a\n", b": a\n"),
        (b"retry: 5\n", b"retry: 5\n"),
        (b"event: e\n\n", b"event: e\n\n"),
    ],
)
def test_id(frame: bytes, expected: bytes) -> None:
    """Runs: the id is in the last event of a frame, and in none that would be no event."""
    assert located(frame, "c", None, 1) == expected
    assert b"id" not in located(frame, None, None, 1)


@pytest.mark.parametrize("frame", [b"data: a", b"data: a\n", b"data: a\n\nevent: b\n", b"x\n"])
def test_part_of_an_event(frame: bytes) -> None:
    """Runs: a part of an event is refused, for a client may come back between any two."""
    with pytest.raises(ValueError, match=r"write whole_events\("):
        located(frame, "c", None, 1)


@pytest.mark.parametrize("frame", [b"id: 7\ndata: a\n\n", b"data: a\nid\n\n", b"id: 7\r\r"])
def test_id_of_its_own(frame: bytes) -> None:
    """Runs: an id of its own is an error."""
    with pytest.raises(ValueError, match="this one has its own"):
        located(frame, "c", None, 1)
    with pytest.raises(ValueError, match="its own, '7'"):
        Frames(BROWSER).of(Entry(1, ServerSentEvent("a", id="7"), "ab"))


def test_number() -> None:
    """Runs: the position takes the place of the number that is there, in each event of a frame."""
    frame = b'data: {"n": 70,\ndata: "a": "\xc3\xa9"}\nevent: e\n\nevent: f\ndata: {}\n\n'
    assert located(frame, "c", "n", 3) == (
        'event: e\ndata: {"n":3,"a":"é"}\n\nevent: f\nid: c\ndata: {"n":3}\n\n'.encode()
    )
    for data in b"a", b"[1]":
        with pytest.raises(ValueError, match="'n', and are JSON objects"):
            located(b"data: " + data + b"\n\n", "c", "n", 3)


def test_what_is_kept() -> None:
    """Runs: what was made of the last items is kept, up to some size."""
    encoded = []

    def event_of(item: str) -> Frame:
        encoded.append(item[0])
        return Frame(b"data: %b\n\n" % item.encode())

    frames = Frames(Profile("MINE", event_of=event_of))
    for letter in "a", "b", "c", "c", "b", "a":
        frames.of(Entry(ord(letter), letter * 100_000, "ab"))
    assert "".join(encoded) == "abca"
    large = Entry(1, "d" * 10**6, "ab")
    assert frames.of(large) == frames.of(large)
    assert "".join(encoded) == "abcadd"


def test_profiles() -> None:
    """Runs: any profile will do, and what it makes is what a stream would say."""
    entry = Entry(1, {"type": "a"}, "ab")
    assert Frames(BROWSER).of(entry) == b'data: {"type":"a"}\nid: ab:1\n\n'
    assert Frames(OPENAI_RESPONSES).of(entry) == (
        b'event: a\nid: ab:1\ndata: {"type":"a","sequence_number":1}\n\n'
    )
    assert Frames(RAW).of(Entry(1, b"data: a\n\n", "ab")) == b"data: a\nid: ab:1\n\n"
