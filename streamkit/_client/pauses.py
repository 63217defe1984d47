"""
How long to wait before a client reconnects.

As long as the server says, and a little more: clients should not all reconnect at once, nor often
where there is nothing to get. A client that got something starts over.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Seconds within which a client that was cut reconnects, by default; they double up to the last.
_FIRST = 0.5
_LAST = 30.0
_DOUBLINGS = 8

# Digits of a sensible number of seconds.
_DIGITS = 12


def pause(fruitless: int, retry: int | None, retry_after: float) -> float:
    """
    Return the seconds to wait.

    :param fruitless: how many attempts in a row have brought nothing
    :param retry: milliseconds that the server has told all clients, in the stream
    :param retry_after: seconds that the server has told this client, with a refusal

    """
    told = max(retry_after, 0.0 if retry is None else retry / 1000)
    return told + random.uniform(0, min(_LAST, _FIRST * 2.0 ** min(fruitless, _DOUBLINGS)))


def seconds_in(header: str | None) -> float:
    """Return the seconds to wait by a ``Retry-After``, or 0 if it is of no use."""
    if header is None:
        return 0.0
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header) if len(header) <= _DIGITS else 0.0
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
