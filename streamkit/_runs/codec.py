"""
Items as bytes: as a log keeps them.

Each is a byte for the version of the form, a byte for the kind of the item, and the item. Text,
bytes, events (of other libraries, too) and frames come back as they were; everything else is JSON,
and comes back as JSON has it. This holds for every log, even for one that could keep the
objects themselves: so what works in one process works in several, and no reader can change what
another one reads.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from .._sse.events import Frame, ServerSentEvent
from .._sse.foreign import event_from, is_read
from .._sse.json import encoding_with
from .errors import UnknownVersion

_VERSION = 1
_TEXT, _BYTES, _JSON, _FRAME, _EVENT = (bytes([_VERSION, kind]) for kind in b"tbjfe")

# Types that are not an event of any library.
_PLAIN: tuple[type[Any], ...] = (dict, list, int, float, type(None))


def line_of(data: bytes) -> bytes | None:
    """
    Return an item in UTF-8 if it is one line of text, and ``None`` for anything else.

    Most items are, and need not become objects to be sent.
    """
    if data[:2] != _TEXT or b"\n" in data or b"\r" in data:
        return None
    # Not if half of a surrogate pair may be in it.
    return None if b"\xed" in data else data[2:]


def encode(item: object) -> bytes:
    """
    Return an item as bytes.

    :raises TypeError: if there is no form for it
    :raises ValueError: if it is not JSON, because it has a cycle or a NaN

    """
    # Half of a surrogate pair passes, as it does where the item is not encoded at all.
    if isinstance(item, str):
        return _TEXT + item.encode("utf-8", "surrogatepass")
    if isinstance(item, bytes | bytearray | memoryview):
        return (_FRAME if isinstance(item, Frame) else _BYTES) + item
    if isinstance(item, _PLAIN):
        return _JSON + to_json(item)
    event = item if isinstance(item, ServerSentEvent) else event_from(item, _text_of)
    if event is None:
        return _JSON + to_json(item)
    if is_read(item):
        # Its id is its position in another stream.
        event = replace(event, id=None)
    return _EVENT + to_json(_fields_of(event))


_AN_ITEM = "an item", "yield text, bytes, a ServerSentEvent, or what json.dumps() takes"
_ITS_DATA = "data", "write data={'title': '...'}, for instance, or what else json.dumps() takes"


def to_json(value: object, *, is_data: bool = False) -> bytes:
    """
    Return a value as JSON.

    :param is_data: whether it is the data of a run, and not an item
    :raises TypeError: if there is no JSON for it
    :raises ValueError: if it has a cycle or a NaN

    """
    try:
        return _json_of(value).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as exc:
        error = ValueError if isinstance(exc, ValueError) else TypeError
        what, instead = _ITS_DATA if is_data else _AN_ITEM
        raise error(
            f"a run cannot keep {what} of {type(value).__qualname__}, {exc}: {instead}"
        ) from exc


def _refuse(value: object) -> object:
    raise TypeError(f"there is no JSON for {type(value).__qualname__}")


_json_of = encoding_with(_refuse)


def _text_of(value: object) -> str:
    return to_json(value).decode("utf-8", "surrogatepass")


def from_json(data: bytes) -> Any:
    """Return the value of some JSON."""
    return json.loads(data.decode("utf-8", "surrogatepass"))


def decode(data: bytes) -> Any:
    """
    Return the item that :func:`encode` has encoded.

    :raises UnknownVersion: if a later release has encoded it

    """
    kind, payload = data[:2], data[2:]
    if kind == _TEXT:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            # It has half of a surrogate pair. Checking for that would cost every other text.
            return payload.decode("utf-8", "surrogatepass")
    if kind == _JSON:
        return from_json(payload)
    if kind == _BYTES:
        return payload
    if kind == _FRAME:
        return Frame(payload)
    if kind == _EVENT:
        return _event_of(from_json(payload))
    raise UnknownVersion(data[0], _VERSION)


def _fields_of(event: ServerSentEvent) -> dict[str, Any]:
    data, is_bytes = event.data, isinstance(event.data, bytes)
    fields = {
        # Bytes as text of as many characters.
        "data": data.decode("latin-1") if isinstance(data, bytes) else data,
        "bytes": is_bytes or None,
        "event": event.event,
        "id": event.id,
        "retry": event.retry,
        "comment": event.comment,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _event_of(fields: dict[str, Any]) -> ServerSentEvent:
    data = fields.pop("data", None)
    if fields.pop("bytes", False):
        data = data.encode("latin-1")
    return ServerSentEvent(data, **fields)
