"""How an item that is not an event becomes one: as text, as JSON, or named after its type."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from .events import Frame, ServerSentEvent, lines, utf8
from .foreign import refuse_fields
from .json import ToJSON, to_json as _to_json

_logger = logging.getLogger("streamkit")

_FIELDS = ("data:", "event:", "id:", "retry:", ":")
_FIELDS_AS_BYTES = tuple(field.encode() for field in _FIELDS)

# Whether the warning about framed text was logged.
_was_warned = False


_MakesEvents = TypeVar("_MakesEvents", bound=Callable[..., Any])

#: The functions that make JSON of an item with the ``to_json`` of a profile.
WITH_JSON: set[Callable[..., Any]] = set()

#: The functions that are also given events and frames, and look into them.
TAKING_EVENTS: set[Callable[..., Any]] = set()

#: By the ``event_of`` and the ``fold`` of a profile: what comes before a text on the wire in a
#: state. The text as JSON and the end of the object follow. ``None`` where more is sent, or the
#: state changes.
SHORT_WAYS: dict[tuple[object, object], Callable[[Any], str | None]] = {}

quoted: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode


def makes_json(event_of: _MakesEvents) -> _MakesEvents:
    """Note that a function makes JSON as a profile does."""
    WITH_JSON.add(event_of)
    return event_of


def takes_events(event_of: _MakesEvents) -> _MakesEvents:
    """Note that a function also takes items that are already events."""
    TAKING_EVENTS.add(event_of)
    return event_of


@makes_json
def data_event(item: object, to_json: ToJSON = _to_json) -> ServerSentEvent | Frame:
    """Return the event with an item as its data: text as it is, and anything else as JSON."""
    if isinstance(item, (str, bytes)):
        text = item
        if not _was_warned:
            _warn_if_framed(text)
    else:
        fields: Any = item
        if isinstance(fields, dict) and "data" in fields:
            refuse_fields(cast("dict[object, object]", item))
        text = to_json(item)
    # Most items pass here. The profile checks for empty ones.
    return Frame(lines(b"data: ", utf8(text)) + b"\n") if text else ServerSentEvent(text)


@makes_json
def named_event(item: object, to_json: ToJSON = _to_json) -> ServerSentEvent:
    """Return the event that is named after the type of an item, with the item as JSON."""
    name = _type_of(item)
    if not isinstance(name, str):
        raise TypeError(
            "an event is named after the type of its item, but there is none in "
            f"{type(item).__qualname__}: yield {{'type': '...', ...}}, or "
            "ServerSentEvent(data, event='...')"
        )
    return ServerSentEvent(to_json(item), event=name)


def _type_of(item: object) -> object:
    if isinstance(item, Mapping):
        return cast("Mapping[str, object]", item).get("type")
    return getattr(item, "type", None)


def _warn_if_framed(text: str | bytes) -> None:
    """Warn once that text looks like an event already: to the client it is not one."""
    global _was_warned
    if isinstance(text, str):
        is_framed = text.startswith(_FIELDS) and text.endswith(("\n\n", "\r\n\r\n"))
    else:
        is_framed = text.startswith(_FIELDS_AS_BYTES) and text.endswith((b"\n\n", b"\r\n\r\n"))
    if is_framed:
        _was_warned = True
        # Without the text: it is the user's, and does not belong in a log.
        _logger.warning(
            "a source yielded text that is already framed ('data: ...' with an empty line at the "
            "end), and is framed once more: to the client it is text. Yield the text alone, or a "
            "ServerSentEvent, or write profile=RAW. This is said once"
        )
