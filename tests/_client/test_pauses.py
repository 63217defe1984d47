"""How long a client waits before it comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from streamkit._client.pauses import pause, seconds_in


@pytest.mark.parametrize(
    ("fruitless", "most"), [(0, 0.5), (1, 1.0), (3, 4.0), (5, 16.0), (6, 30.0), (10_000, 30.0)]
)
def test_doubles(fruitless: int, most: float) -> None:
    """Web: from half a second to half a minute, at random, so that not all come at once."""
    drawn = [pause(fruitless, None, 0.0) for _ in range(1000)]
    assert 0 <= min(drawn) < most * 0.1
    assert most * 0.9 < max(drawn) <= most


def test_told() -> None:
    """Web: never earlier than the server says, be it in the stream or with a refusal."""
    for told in pause(0, 3000, 0.0), pause(0, None, 3.0), pause(0, 3000, 1.0), pause(0, 1000, 3.0):
        assert 3 <= told <= 3.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("7", 7),
        (" 0 ", 0),
        ("-7", 0),
        ("\u0667", 0),
        ("9" * 400, 0),
        ("soon", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 -0000", 0),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", 0),
        ("Thu, 01 Jan 2970 00:00:00 +99999999999999", 0),
    ],
)
def test_header(header: str | None, seconds: float) -> None:
    """Web: what a Retry-After asks for, and nothing if it is none."""
    assert seconds_in(header) == seconds


def test_date() -> None:
    """Web: it may be a date."""
    at = datetime.now(UTC) + timedelta(seconds=100)
    assert 95 < seconds_in(format_datetime(at, usegmt=True)) <= 100
