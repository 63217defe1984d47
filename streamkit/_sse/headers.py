"""The headers of a request, in whatever form a framework has them, and the id that is in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from .events import BREAKS, MAX_ID

#: What headers may be.
Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str] | tuple[bytes, bytes]]
)


def pairs(headers: Headers) -> Iterator[tuple[str | bytes, str | bytes]]:
    """
    Return headers by name and value.

    :raises TypeError: if they are none

    """
    given: Any = headers
    # Those of frameworks may have several of one name, which all of them give here.
    items: Any = given.items() if hasattr(given, "items") else given
    try:
        found = [(name, value) for name, value in items]
    except (TypeError, ValueError):
        found = [(None, None)]
    for name, value in found:
        if not isinstance(name, str | bytes) or not isinstance(value, str | bytes):
            raise TypeError(
                f"expected the headers of a request, got {type(given).__qualname__}: write "
                "last_event_id(request.headers), or last_event_id(scope['headers'])"
            )
    return iter(found)


def id_in(value: str | bytes) -> str | None:
    """Return the id that a header has, or ``None`` if no event could have had it."""
    if isinstance(value, str):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            # Somebody has decoded it as what it is.
            value = value.encode(errors="replace")
    if not value or len(value) > MAX_ID or not BREAKS.isdisjoint(value):
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
