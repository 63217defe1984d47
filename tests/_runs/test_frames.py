"""The items of a run as events that say where they are."""

from __future__ import annotations

import pytest

from streamkit._runs.codec import encode
from streamkit._runs.frames import Frames, Stretch, located
from streamkit.runs import CursorMismatch, Page
from streamkit.sse import BROWSER, OPENAI_RESPONSES, RAW, Frame, Profile, ServerSentEvent


def said(frames: Frames, position: int, item: object) -> bytes:
    """Return what is said of one item."""
    message, end, _ = frames.message(Stretch(position, [encode(item)], "ab"), 0)
    assert end == 1
    return message


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
        said(Frames(BROWSER), 1, ServerSentEvent("a", id="7"))


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
        said(frames, ord(letter), letter * 100_000)
    assert "".join(encoded) == "abca"
    # Those that come to a message at once have what is larger than all that.
    for _ in range(2):
        assert len(said(frames, 1, "d" * 10**6)) > 10**6
    assert "".join(encoded) == "abcad"
    said(frames, 2, "e")
    said(frames, 1, "d" * 10**6)
    assert "".join(encoded) == "abcaded"


@pytest.mark.parametrize(
    "item",
    [
        "a",
        "",
        " a ",
        "\u00e9\u2028\x85",
        "\0",
        "a\nb",
        "a\rb",
        "\ud800",
        "\ud7ff",
        "\ud55c",
        ":",
        "id: 7",
    ],
)
def test_short_way(item: str) -> None:
    """Runs: text of one line takes a shorter way to the same bytes."""
    profile = Profile("MINE", event_of=lambda item: ServerSentEvent(item))
    assert said(Frames(BROWSER), 7, item) == said(Frames(profile), 7, item)


def test_messages() -> None:
    """Runs: a message has what is there, up to some size, and never less than one item."""
    frames = Frames(BROWSER)
    items = ["a", "b" * 20_000, "c" * 20_000, "d", "e" * 100_000, "f"]
    stretch = Stretch(1, [encode(item) for item in items], "ab")
    ends, messages, end = [0], [], 0
    while end < len(items):
        message, end, _ = frames.message(stretch, end)
        ends.append(end)
        messages.append(message)
    assert ends == [0, 3, 5, 6]
    assert b"".join(messages) == b"".join(
        f"data: {item}\nid: ab:{position}\n\n".encode() for position, item in enumerate(items, 1)
    )


def test_messages_of_other_stretches() -> None:
    """Runs: two stretches may overlap in any way, and neither is taken for the other."""
    entries = [encode(number) for number in range(1, 8)]
    frames = Frames(BROWSER)
    for _ in range(2):
        for first in range(7):
            for last in range(first, 7):
                for start in range(last - first + 1):
                    stretch = Stretch(first + 1, entries[first : last + 1], "ab")
                    message, end, _ = frames.message(stretch, start)
                    assert end == len(stretch.entries)
                    assert message.count(b"id:") == end - start
                    assert message.startswith(b"data: %d\n" % (first + start + 1))


def test_what_cannot_be_said() -> None:
    """Runs: what comes before an item for which there is no event is said, and then it is told."""
    frames = Frames(BROWSER)
    stretch = Stretch(1, [encode("a"), encode(ServerSentEvent("b", id="7")), encode("c")], "ab")
    message, end, _ = frames.message(stretch, 0)
    assert (message, end) == (b"data: a\nid: ab:1\n\n", 1)
    with pytest.raises(ValueError, match="its own, '7'"):
        frames.message(stretch, end)


def test_profiles() -> None:
    """Runs: any profile will do, and what it makes is what a stream would say."""
    entry = {"type": "a"}
    assert said(Frames(BROWSER), 1, entry) == b'data: {"type":"a"}\nid: ab:1\n\n'
    assert said(Frames(OPENAI_RESPONSES), 1, entry) == (
        b'event: a\nid: ab:1\ndata: {"type":"a","sequence_number":1}\n\n'
    )
    assert said(Frames(RAW), 1, b"data: a\n\n") == b"data: a\nid: ab:1\n\n"


@pytest.mark.parametrize("epochs", ["ab", "a"])
async def test_what_came_before_is_gone(epochs: str) -> None:
    """Runs: the state is made of one run alone, and of nothing less than the reader has seen."""
    pages = [[encode("a"), encode("b")], [encode("c")] if len(epochs) > 1 else []]

    async def read(after: int) -> Page:
        number = after // 2
        epoch = epochs[number % len(epochs)]
        entries = pages[number]
        return Page(entries=entries, first=1, last=3, epoch=epoch, head=None, outcome=None)

    frames = Frames(
        Profile("MINE", event_of=lambda item, state: item, fold=lambda state, item: item)
    )
    assert await frames.state_after(2, "a", read) == "b"
    assert await Frames(BROWSER).state_after(3, "a", read) is None
    other = Frames(
        Profile("MINE", event_of=lambda item, state: item, fold=lambda state, item: item)
    )
    with pytest.raises(CursorMismatch):
        await other.state_after(3, "a", read)
