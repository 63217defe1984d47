"""The client's parsers: by the text of the standard, in any pieces, and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from odd_text import texts
from streamkit._client.lines import Lines
from streamkit._client.parser import EventParser, Position
from streamkit._client.records import RecordParser
from streamkit.client import Event, TooLong
from support.event_stream import EventStreamParser, parse

ENDS = ["\n", "\r", "\r\n"]
FIELDS = ["data", "event", "id", "retry", "", "other", "Data", " data"]
VALUES = ["", " ", "a", " a b", "1", "0", "-5", "007", "\u0661", "a\0b", "é\u2028", ":", "\ufeff"]
LINES = st.one_of(
    st.just(""),
    st.builds(lambda f, s, v: f + s + v, *map(st.sampled_from, (FIELDS, ["", ":", ": "], VALUES))),
)
STREAMS = st.builds(
    lambda bom, lines: bom + "".join(line + end for line, end in lines),
    st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]),
    st.lists(st.tuples(LINES, st.sampled_from(ENDS)), max_size=20),
)
BYTES = (
    STREAMS.map(str.encode) | texts.map(lambda text: text.encode(errors="replace")) | st.binary()
)


def read(*pieces: bytes, max_size: int = 1000, last: str = "") -> tuple[list[Event], Position]:
    position = Position(last)
    parser = EventParser(position, max_size)
    found = [event for piece in pieces for event in parser.feed(piece)]
    assert list(parser.close()) == []
    return found, position


def as_ours(parser: EventStreamParser) -> list[Event]:
    return [Event(e.data, event=e.type, id=e.last_event_id) for e in parser.events]


@given(BYTES)
def test_as_the_standard_says(stream: bytes) -> None:
    """Web: the events, the last id and the time to wait are those of the standard."""
    found, position = read(stream, max_size=len(stream) + 1)
    expected = parse(stream)
    assert found == as_ours(expected)
    assert position.last_event_id == expected.last_event_id
    assert position.retry == (expected.retries[-1] if expected.retries else None)


@given(BYTES, st.data())
def test_in_any_pieces(stream: bytes, data: st.DataObject) -> None:
    """Web: where the bytes are cut changes nothing, and each event is there with its last byte."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    ours = EventParser(Position(), len(stream) + 1)
    oracle = EventStreamParser()
    found: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found.extend(ours.feed(stream[start:end]))
        oracle.feed(stream[start:end])
        assert found == as_ours(oracle)


def test_cr_is_no_chunk_late() -> None:
    """Web: an event that ends in CR is there at once, and the LF that comes later is no line."""
    assert read(b"data: a\r\r")[0] == [Event("a")]
    assert read(b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n")[0] == [Event("a\nb")]
    assert read(b"data: a\r", b"", b"\ndata: b\r\r")[0] == [Event("a\nb")]


def test_what_others_trip_over() -> None:
    """Web: a BOM, an event without data, a negative time, and one of thousands of digits."""
    assert read(b"\xef\xbb\xbfdata: a\n\n")[0] == [Event("a")]
    found, position = read(b"event: x\nid: 7\n\nretry: -5\n\ndata\n\n")
    assert found == [Event("", id="7")]
    assert position == Position("7", None)
    assert read(b"retry: " + b"9" * 5000 + b"\n", max_size=9999)[1].retry == 10**15 - 1
    assert read(b"retry: 000\n")[1].retry == 0


def test_id_goes_on() -> None:
    """Web: over connections the id goes on, until it is another, or empty."""
    assert read(b"data: a\n\n", last="7") == ([Event("a", id="7")], Position("7"))
    assert read(b"id\ndata: a\n\n", last="7") == ([Event("a")], Position(""))
    assert read(b"id: 8\ndata: a\n", last="7") == ([], Position("7"))
    assert read(b"id: 8\0\ndata: a\n\n", last="7") == ([Event("a", id="7")], Position("7"))


@pytest.mark.parametrize("kind", [b"data: ", b": ", b"", b"x"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_long_line(kind: bytes, size: int) -> None:
    """Web: a line ends the reading when it is too long, and not when it is all there."""
    parser = EventParser(Position(), 5000)
    fed = 0
    with pytest.raises(TooLong, match=r"more than 5000 bytes: write connect\(\.\.\., max_size="):
        for piece in [kind, *[b"y" * size] * 100_000]:
            fed += len(piece)
            list(parser.feed(piece))
    assert 5000 < fed <= 6000


def test_long_event() -> None:
    """Web: so does an event of many short lines."""
    parser = EventParser(Position(), 5000)
    with pytest.raises(TooLong):
        for _ in range(1001):
            list(parser.feed(b"data:yyyy\n"))
    assert read(*[b"data:yyyy\n"] * 200, b"\n" * 3)[0] == [Event("\n".join(["yyyy"] * 200))]


def test_a_hundred_mebibytes() -> None:
    """Web: a line of 100 MiB takes no more memory than it may have, and is no slower than it is."""
    parser = EventParser(Position(), 1 << 20)
    piece = b"y" * (1 << 16)
    with pytest.raises(TooLong):
        for _ in range(1600):
            list(parser.feed(piece))
    allowed = Lines(101 << 20, cr=True)
    for _ in range(1600):
        assert list(allowed.feed(piece)) == []
    [line] = allowed.feed(b"\n")
    assert len(line) == 100 << 20


class TestRecords:
    def read(self, *pieces: bytes) -> list[str]:
        parser = RecordParser(1000)
        found = [event for piece in pieces for event in parser.feed(piece)]
        found += parser.close()
        assert all(event.event is None and event.id == "" for event in found)
        return [event.data for event in found]

    @given(st.lists(st.sampled_from(["1", '"é\u2028\x85"', '{"a":\r1}', "", " "])), st.data())
    def test_in_any_pieces(self, lines: list[str], data: st.DataObject) -> None:
        """Web: a record ends in LF alone; empty lines are none."""
        end = data.draw(st.sampled_from(["\n", "\r\n"]))
        stream = ("\ufeff" + "".join(line + end for line in lines)).encode()
        cut = data.draw(st.integers(0, len(stream)))
        assert self.read(stream[:cut], stream[cut:]) == [line for line in lines if line.strip()]

    def test_last(self) -> None:
        """Web: the last one needs no LF, but must be whole."""
        assert self.read(b"1\n2") == ["1", "2"]
        assert self.read(b"1\n\n") == ["1"]
        assert self.read(b'1\n{"a":') == ["1"]

    def test_too_deep(self) -> None:
        """Web: a last record that cannot be parsed, because it is nested too deep, is a cut."""
        parser = RecordParser(1_000_000)
        assert list(parser.feed(b"1\n" + b"[" * 100_000)) == [Event("1", event=None)]
        assert list(parser.close()) == []
        assert parser.is_cut

    def test_too_long(self) -> None:
        """Web: a record has its bounds, too."""
        with pytest.raises(TooLong):
            self.read(b"1" * 1001)
