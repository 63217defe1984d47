"""Cursors, as text and back."""

from __future__ import annotations

import pytest

from streamkit._runs.cursor import Cursor, parse
from streamkit.runs import Entry


@pytest.mark.parametrize(
    ("after", "cursor"),
    [
        (None, None),
        ("now", "now"),
        (0, Cursor(None, 0)),
        (17, Cursor(None, 17)),
        ("17", Cursor(None, 17)),
        ("0f:17", Cursor("0f", 17)),
        ("0f:17.end", Cursor("0f", 17, is_end=True)),
        (Entry(17, "item", "0f").cursor, Cursor("0f", 17)),
        (str(Cursor("0f", 17, is_end=True)), Cursor("0f", 17, is_end=True)),
        (str(Cursor(None, 17)), Cursor(None, 17)),
    ],
)
def test_parsed(after: int | str | None, cursor: object) -> None:
    """A cursor is a position, with the epoch or without it."""
    assert parse(after) == cursor


@pytest.mark.parametrize(
    "after",
    [
        "",
        "a",
        "-1",
        -1,
        "0f:",
        ":1",
        "0f:1.ende",
        "17.end",
        "0g:1",
        " 1",
        "1\n",
        "\u0661",
        "1" * 16,
    ],
)
def test_malformed(after: int | str) -> None:
    """What is no cursor is refused where it is given."""
    with pytest.raises(ValueError, match=r"write after=entry\.cursor"):
        parse(after)


@pytest.mark.parametrize("after", [True, 1.5, b"1"])
def test_wrong_type(after: object) -> None:
    """So is what cannot be one."""
    with pytest.raises(TypeError, match=r"write after=entry\.cursor"):
        parse(after)
