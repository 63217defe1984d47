"""
The events of FastAPI and of sse-starlette, which an editor offers first, and those that our own
client has read: taken for what they are.

Like other items, they would be sent as JSON of their fields, and their names and ids would be lost.
No library is imported: an object of a library can only be there if that library is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .events import ServerSentEvent
from .json import ToJSON

# The keys of a dict that sse-starlette turns into an event.
_FIELDS = frozenset({"data", "event", "id", "retry", "comment"})


def event_from(item: object, to_json: ToJSON) -> ServerSentEvent | None:
    """
    Convert an event of another library to ours, or return ``None`` if the item is not one.

    :param to_json: makes JSON of an event's data, where its library does so
    :raises ValueError: if there cannot be such an event here

    """
    data: Any
    given: Any = item
    if _is_event_of("fastapi.sse", item):
        data = given.raw_data
        if data is None and given.data is not None:
            data = to_json(given.data)
    elif is_read(item):
        name = None if given.event == "message" else given.event
        return ServerSentEvent(given.data, event=name, id=given.id or None)
    elif _is_event_of("sse_starlette", item):
        data = given.data
        if data is not None and not isinstance(data, str | bytes):
            data = str(data)
    else:
        return None
    return ServerSentEvent(
        data, event=given.event, id=given.id, retry=given.retry, comment=given.comment
    )


def is_read(item: object) -> bool:
    """Tell whether an item is an event that our own client has read."""
    return _is_event_of("streamkit._client.event", item, "Event")


def _is_event_of(module: str, item: object, name: str = "ServerSentEvent") -> bool:
    loaded: Any = sys.modules.get(module)
    event: Any = getattr(loaded, name, None)
    return isinstance(event, type) and isinstance(item, event)


def refuse_fields(fields: Mapping[object, object]) -> None:
    """
    Refuse a dict that is an event to sse-starlette. As JSON, it would lose its name and its id.

    :param fields: a dict with ``data`` in it

    :raises TypeError: if it is one

    """
    if len(fields) > 1 and _FIELDS.issuperset(fields):
        names = ", ".join(f"{name}=..." for name in fields if name != "data")
        raise TypeError(
            f"a dict with nothing but {', '.join(map(repr, fields))} is an event to sse-starlette, "
            f"and JSON here: yield ServerSentEvent(..., {names}) for an event, or "
            "json.dumps(item) for JSON"
        )
