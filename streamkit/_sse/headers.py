"""The headers of a request, in whatever form a framework has them, and the id that is in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from .events import BREAKS, MAX_ID

#: What headers may be.
Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str] | tuple[bytes, bytes]]
)


def pairs(headers: Headers) -> Iterator[tuple[str, str | bytes]]:
    """
    Return headers by name, in lower case, and value.

    :raises TypeError: if they are none

    """
    given: Any = headers
    # A framework's own may have several of one name, all of which are here.
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
    """Return the id that a header has, or ``None`` if no event could have had it."""
    try:
        as_bytes = value if isinstance(value, bytes) else _sent(value)
        if not as_bytes or len(as_bytes) > MAX_ID or not BREAKS.isdisjoint(as_bytes):
            return None
        return as_bytes.decode()
    except UnicodeError:
        return None


def _sent(text: str) -> bytes:
    """Return the bytes that a server has made text of."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        # It has decoded them as what they are.
        return text.encode()


def last_event_id(headers: Headers) -> str | None:
    """
    Return the id of the last event that a client has seen, when it connects again.

    It comes from outside: any client may send any text.

    :param headers: of the request: ``request.headers`` of any framework, a mapping, or pairs of
        names and values, such as ``scope["headers"]`` of ASGI. Names are found in any case. Text is
        taken for what a server has made of bytes, which is Latin-1, and is decoded anew.
    :return: the value of the header ``Last-Event-ID``, or ``None`` if there is none, or none that
        :class:`~streamkit.sse.ServerSentEvent` could have sent: it is empty, no UTF-8, longer than
        :data:`~streamkit.sse.MAX_ID`, or has a control character in it that ends a line or a string
    :raises TypeError: if these are no headers: a whole request, for instance

    """
    for name, value in pairs(headers):
        if name == "last-event-id" and (found := id_in(value)) is not None:
            return found
    return None
