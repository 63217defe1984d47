"""``last_event_id``, with any header that a client may send."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, strategies as st

from odd_text import lines
from streamkit.sse import MAX_ID, ServerSentEvent, last_event_id
from support.event_stream import parse


def header(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"text/event-stream"), (b"last-event-id", value)]


@given(lines)
def test_an_id_comes_back(text: str) -> None:
    """Any id that could be sent comes back from the header of a browser."""
    assume(text)
    sent = parse(ServerSentEvent("x", id=text).encode()).last_event_id
    assert last_event_id(header(sent.encode())) == sent


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (b"7", "7"),
        (b"\xc3\xa9", "é"),
        (b"", None),
        (b"\xff", None),
        (b"a\0b", None),
        (b"a\nb", None),
        (b"a\rb", None),
        (b"a" * MAX_ID, "a" * MAX_ID),
        (b"a" * (MAX_ID + 1), None),
    ],
)
def test_last_event_id(value: bytes, result: str | None) -> None:
    """What no event could have had as its id counts as none."""
    assert last_event_id(header(value)) == result


def test_last_event_id_is_looked_up_in_any_case() -> None:
    """A server may give the name of the header as it came, and there may be none."""
    assert last_event_id([(b"Last-Event-ID", b"7")]) == "7"
    assert last_event_id([(b"accept", b"7")]) is None


@given(st.binary(max_size=50))
def test_any_header_is_taken(value: bytes) -> None:
    """Nothing that a client sends raises, and what is accepted can be sent as an id again."""
    found = last_event_id(header(value))
    assert found is None or ServerSentEvent("x", id=found).id == found
