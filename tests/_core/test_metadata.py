"""``Head``: what no server could send is refused where it is written."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from streamkit import Head

NO_INT: list[Any] = ["409", None, True, False, 409.0, 200j]


@pytest.mark.parametrize("status", NO_INT, ids=repr)
def test_status_of_another_type(status: Any) -> None:
    """Misuse: a status that is no int is a TypeError, and says what to write."""
    with pytest.raises(TypeError, match=f"status must be an int .*, got {status!r}; write status="):
        Head(status)


@pytest.mark.parametrize("status", [99, 0, -1, 100, 199, 600, 999, 1000])
def test_status_out_of_range(status: int) -> None:
    """Misuse: a status that is none of an answer is a ValueError."""
    with pytest.raises(ValueError, match=f"from 200 to 599, got {status}; write status=409"):
        Head(status)


@pytest.mark.parametrize("status", [200, 204, 409, 599, HTTPStatus.CONFLICT])
def test_status(status: int) -> None:
    """S1: what is one, also as a member of HTTPStatus, is kept as it is."""
    assert Head(status).status is status


NO_TEXT: list[dict[Any, Any]] = [
    {"retry-after": 5},
    {"retry-after": None},
    {"retry-after": b"5"},
    {b"retry-after": "5"},
    {1: "5"},
]


@pytest.mark.parametrize("headers", NO_TEXT, ids=repr)
def test_header_that_is_no_text(headers: dict[Any, Any]) -> None:
    """Misuse: a header with a name or a value that is no text is a TypeError."""
    with pytest.raises(TypeError, match=r"is not a header: .* must be str, got \w+; write 'retry-"):
        Head(409, headers)


@pytest.mark.parametrize("character", [*map(chr, range(9)), *map(chr, range(10, 32)), "\x7f"])
def test_control_characters(character: str) -> None:
    """Misuse: a value with a control character, at which servers fail, is a ValueError."""
    for value in character, f"a{character}b", f"a{character}":
        with pytest.raises(ValueError, match="is one line, without control characters"):
            Head(409, {"x-reason": value})


@pytest.mark.parametrize("name", ["", "a b", "a:", "\u00fc", "a\n"])
def test_name(name: str) -> None:
    """Misuse: what is no name of a header is a ValueError."""
    with pytest.raises(ValueError, match="is not a header: a name has letters"):
        Head(409, {name: "a"})


def test_outside_latin_1() -> None:
    """Misuse: a value that has no bytes is a ValueError, which says how to write it."""
    with pytest.raises(ValueError, match=r"outside latin-1.*: write it with urllib\.parse\.quote"):
        Head(409, {"x-price": "5 \u20ac"})


@pytest.mark.parametrize("headers", [[("a", "b")], "a: b", None], ids=repr)
def test_headers_of_another_type(headers: Any) -> None:
    """Misuse: headers that are no mapping are a TypeError."""
    with pytest.raises(TypeError, match=r"must be a mapping of names to values, got \w+: write"):
        Head(409, headers)


def test_headers() -> None:
    """S1: what can be sent is kept as it is."""
    headers = {"Retry-After": "5", "x-tab": "a\tb", "x-latin": "\u00fc", "x-empty": ""}
    assert Head(409, headers).headers is headers
