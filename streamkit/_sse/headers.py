"""The headers of a request, in the form of any framework, and the last id in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from .events import BREAKS, MAX_ID

#: The forms of headers.
Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str] | tuple[bytes, bytes]]
)


def pairs(headers: Headers) -> Iterator[tuple[str, str | bytes]]:
    """
    Return headers as pairs of a name, in lower case, and a value.

    :raises TypeError: if these are not headers

    """
    given: Any = headers
    # Those of a framework may have several of one name: all of them are here.
    items: Any = given.items() if hasattr(given, "items") else given
    try:
        for name, value in items:
            yield _text(name).lower(), value if isinstance(value, bytes) else _text(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"expected the headers of a request, got {type(given).__qualname__}: write "
            "last_event_id(request.headers), or last_event_id(scope['headers'])"
        ) from None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError


def id_in(value: str | bytes) -> str | None:
    """Return the id in a header, or ``None`` if no event could have had it."""
    try:
        as_bytes = value if isinstance(value, bytes) else _sent(value)
        if not as_bytes or len(as_bytes) > MAX_ID or not BREAKS.isdisjoint(as_bytes):
            return None
        return as_bytes.decode()
    except UnicodeError:
        return None


def _sent(text: str) -> bytes:
    """Return the bytes that a server has decoded as text."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        # It has decoded them as what they are.
        return text.encode()


def last_event_id(headers: Headers) -> str | None:
    """
    Return the id of the last event that a client has seen, when it reconnects.

    It comes from outside: a client may send any text.

    :param headers: of the request: ``request.headers`` of any framework, a mapping, or pairs of
        names and values, such as ``scope["headers"]`` of ASGI. Names match in any case. Text is
        encoded back as Latin-1, which servers use to decode headers, and decoded anew.
    :return: the value of the header ``Last-Event-ID``, or ``None`` if there is none, or if it is
        not an id that :class:`~streamkit.sse.ServerSentEvent` can send: it is empty, not UTF-8,
        longer than :data:`~streamkit.sse.MAX_ID`, or has a control character that ends a line or
        a string
    :raises TypeError: if these are not headers, but a whole request, for instance

    """
    for name, value in pairs(headers):
        if name == "last-event-id" and (found := id_in(value)) is not None:
            return found
    return None
