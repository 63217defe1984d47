"""``last_event_id``, with any header that a client may send."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from hypothesis import assume, given, strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request

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


FORMS: dict[str, Callable[[list[tuple[bytes, bytes]]], Any]] = {
    "scope": lambda raw: raw,
    "iterator": iter,
    "starlette": lambda raw: Headers(raw=raw),
    "httpx": lambda raw: httpx.Headers(raw),
    "str pairs": lambda raw: [(n.decode("latin-1"), v.decode("latin-1")) for n, v in raw],
    "dict": lambda raw: {n.decode("latin-1").title(): v.decode("latin-1") for n, v in raw},
    "dict of bytes": dict,
    "read only": lambda raw: MappingProxyType(dict(raw)),
    "email": lambda raw: message_of(raw),
}
in_each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def message_of(raw: list[tuple[bytes, bytes]]) -> Message:
    """Return headers as ``http.server`` has them."""
    message = Message()
    for name, value in raw:
        message[name.decode("latin-1")] = value.decode("latin-1")
    return message


@in_each_form
@given(st.binary(max_size=20) | lines.map(lambda text: text.encode(errors="replace")))
def test_any_headers(form: Callable[[Any], Any], value: bytes) -> None:
    """Whatever form a framework has the headers in, the id is the same."""
    if form is FORMS["httpx"]:
        # It reads all headers as one encoding, that of ASCII or UTF-8 if they are that.
        assume(value.isascii())
    assert last_event_id(form(header(value))) == last_event_id(header(value))


@in_each_form
def test_no_id(form: Callable[[Any], Any]) -> None:
    """Headers without it, in any form."""
    assert last_event_id(form([(b"accept", b"7")])) is None
    assert last_event_id(form([])) is None


def test_of_a_framework_that_decodes() -> None:
    """Text that is no Latin-1 was decoded as UTF-8 by whoever has made it, as aiohttp does."""
    assert last_event_id({"last-event-id": "ключ"}) == "ключ"
    assert last_event_id({"last-event-id": "a\udcff"}) is None


def test_the_first_that_is_valid() -> None:
    """Of several headers, one that no event could have had hides none of the others."""
    assert last_event_id([(b"last-event-id", b""), (b"last-event-id", b"7")]) == "7"
    assert last_event_id([(b"last-event-id", b"7"), (b"last-event-id", b"8")]) == "7"


SCOPE = {"type": "http", "headers": header(b"7"), "asgi": {"version": "3.0"}}


@pytest.mark.parametrize(
    "given", [SCOPE, Request(SCOPE), None, "last-event-id: 7", b"7", ["last-event-id"], [("a", 7)]]
)
def test_no_headers(given: Any) -> None:
    """Misuse: a whole request, or what else is no headers, is not taken for one without an id."""
    what = type(given).__name__
    with pytest.raises(TypeError, match=f"got {what}: write last_event_id\\(request.headers\\)"):
        last_event_id(given)


@given(st.binary(max_size=50))
def test_any_header_is_taken(value: bytes) -> None:
    """Nothing that a client sends raises, and what is accepted can be sent as an id again."""
    found = last_event_id(header(value))
    assert found is None or ServerSentEvent("x", id=found).id == found
