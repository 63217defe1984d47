"""What the client of a request says that it has seen of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from .._sse.headers import pairs
from .._sse.profile import Profile
from .cursor import Cursor, parse
from .info import RunInfo


def cursor_in(scope: Mapping[str, Any]) -> Cursor | None:
    """
    Return what the client of a request has seen. It comes from outside: a client may send any
    text.

    :raises ValueError: if the request says something that is not a cursor

    """
    given = [value for name, value in pairs(scope["headers"]) if name == "last-event-id" and value]
    if not given:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = list(query.get("starting_after", ()))
    if not given:
        return None
    value = given[0] if isinstance(given[0], str) else given[0].decode("latin-1")
    found = parse(value)
    if not isinstance(found, Cursor):
        raise ValueError(value)
    return found


def is_past(cursor: Cursor | None, info: RunInfo, profile: Profile) -> bool:
    """Tell whether a client that counts has seen the end, which counts as one more position."""
    return (
        cursor is not None
        and cursor.epoch is None
        and profile.position_field is not None
        and info.outcome is not None
        and cursor.position == info.last + 1
    )
