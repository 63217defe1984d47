"""
Server-sent events, as they go on the wire.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html. Where real
clients are stricter than that text, this module sends only what all of them accept.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass

#: The most bytes of UTF-8 in an id or a name. An id comes back as a header, and servers limit
#: those.
MAX_ID = 4096

#: The most milliseconds that a client may be told to wait, about 24 days. With more, the timers of
#: JavaScript fire at once.
MAX_RETRY = 2**31 - 1

# As numbers, which bytes are searched for fastest.
_CR, _LF = b"\r\n"
BREAKS = frozenset(b"\r\n\0")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Frame(bytes):
    """
    Bytes that go on the wire as they are: whole lines, to which nothing is added.

    Encoding a frame returns it unchanged. A source may yield one where it needs an event of its own
    making.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """
    One event, or a comment, or advice on when to reconnect.

    Any text stays where it was put: no value can add a field or another event. Everything is
    checked when the event is made, so that :meth:`encode` never fails.

    :raises TypeError: if a value is of the wrong type
    :raises ValueError: if there is nothing to send; if there is an ``event`` without ``data``; if
        ``event`` or ``id`` contains a CR, LF or NUL; if a name, an id or ``retry`` is too large,
        or ``retry`` is negative

    """

    #: The payload, of any number of lines; they may end in CRLF, CR or LF, and arrive with LF.
    #: Bytes are UTF-8. What is not text, a lone surrogate or a wrong byte, arrives as U+FFFD.
    #: Other types must be turned into text by the source, or by the profile if they are yielded
    #: bare.
    data: str | bytes | None = None
    _: KW_ONLY
    #: The name of the event: ``"message"`` if there is none. A browser drops a named event that
    #: has no data, so give it at least ``data=""``.
    event: str | None = None
    #: Where a client may resume: :func:`last_event_id` returns it. Without ``data`` it only
    #: moves that place, which crashes the SDKs of OpenAI.
    id: str | None = None
    #: Milliseconds that a browser waits before it connects again.
    retry: int | None = None
    #: Text of any number of lines that clients drop.
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.data is not None:
            _check_data(self.data)
        if self.event is not None:
            _check_line("event", self.event)
            if self.data is None:
                raise ValueError(
                    "browsers drop an event that has no data: write "
                    f"ServerSentEvent('', event={_short(self.event)})"
                )
        if self.id is not None:
            _check_line("id", self.id)
        if self.retry is not None:
            _check_retry(self.retry)
        if self.comment is not None:
            _check_str("comment", self.comment)
        elif self.data is None and self.id is None and self.retry is None:
            raise ValueError("nothing to send: write ServerSentEvent('') for an event without text")

    def encode(self) -> Frame:
        """
        Return the event as it goes on the wire.

        An event that the client should dispatch ends with an empty line. A mere comment, or
        ``retry``, does not: after an ``id`` was sent, less strict clients take an empty line for
        another event.
        """
        parts: list[bytes] = []
        if self.comment is not None:
            parts.append(lines(b": ", utf8(self.comment)))
        if self.retry is not None:
            parts.append(b"retry: %d\n" % self.retry)
        if self.event is not None:
            parts.append(b"event: %b\n" % utf8(self.event))
        if self.id is not None:
            parts.append(b"id: %b\n" % utf8(self.id))
        if self.data is not None:
            parts.append(lines(b"data: ", utf8(self.data)))
        if self.id is not None or self.data is not None:
            parts.append(b"\n")
        return Frame(b"".join(parts))


def _check_data(value: object) -> None:
    if not isinstance(value, str | bytes):
        raise TypeError(
            f"data must be str or bytes, got {type(value).__qualname__}: write "
            "data=json.dumps(value), or yield the value bare and let the profile encode it"
        )


def _check_str(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be str, got {type(value).__qualname__}: write {name}=str(value), for "
            "instance"
        )


def _check_line(name: str, value: str) -> None:
    _check_str(name, value)
    encoded = utf8(value)
    if not BREAKS.isdisjoint(encoded):
        raise ValueError(
            f"{name} must be one line without NUL, got {_short(value)}: put such text into data, "
            "which may have any number of lines"
        )
    if len(encoded) > MAX_ID:
        raise ValueError(
            f"{name} must have at most {MAX_ID} bytes, got {len(encoded)}: send a short key for "
            "what it stands for"
        )


def _check_retry(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"retry must be an int, in milliseconds, got {type(value).__qualname__}: write "
            "retry=3000, for instance"
        )
    if not 0 <= value <= MAX_RETRY:
        raise ValueError(
            f"retry must be from 0 to {MAX_RETRY} milliseconds: write retry=3000, for instance"
        )


def _short(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."


def utf8(text: str | bytes) -> bytes:
    """Encode text as a browser does: what is not a character becomes U+FFFD, and nothing raises."""
    if isinstance(text, bytes):
        try:
            text.decode()
        except UnicodeDecodeError:
            return text.decode(errors="replace").encode()
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def lines(prefix: bytes, text: bytes) -> bytes:
    """Return the lines of a text, each with the prefix and an LF."""
    # Not splitlines(), which also splits str at U+2028, VT, FF and NEL: those are text here.
    if _CR in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if _LF in text:
        text = text.replace(b"\n", b"\n" + prefix)
    return prefix + text + b"\n"
