"""
How long to wait before a client comes back.

As long as the server says, and then some: not all clients are to come at the same time, and none
often where nothing is to be had. Whoever got something begins anew.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Seconds within which who was cut comes back, if nothing else is said; they double up to the last.
_FIRST = 0.5
_LAST = 30.0
_DOUBLINGS = 8

# Digits of a number of seconds that is one.
_DIGITS = 12


def pause(fruitless: int, retry: int | None, retry_after: float) -> float:
    """
    Return the seconds to wait.

    :param fruitless: how many attempts have brought nothing, one after the other
    :param retry: milliseconds that the server has told all of its clients, in the stream
    :param retry_after: seconds that it has told this one, with a refusal

    """
    told = max(retry_after, 0.0 if retry is None else retry / 1000)
    return told + random.uniform(0, min(_LAST, _FIRST * 2.0 ** min(fruitless, _DOUBLINGS)))


def seconds_in(header: str | None) -> float:
    """Return the seconds that a ``Retry-After`` asks to wait, or 0 if it says nothing of use."""
    if header is None:
        return 0.0
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header) if len(header) <= _DIGITS else 0.0
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
