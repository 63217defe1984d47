"""
The last word of each protocol: it tells an end from a cut.

A body that ends without it was cut, however clean that looks: a proxy ends a body cleanly when its
upstream has gone, and so does a server of HTTP/1.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from .event import Event

#: Tells whether an event is the last. ``None``: the server asks its clients to come back, and the
#: event is not passed on.
LastWord: TypeAlias = Callable[[Event], bool | None]

_RESPONSES = frozenset(
    ("response.completed", "response.failed", "response.incomplete", "response.cancelled", "error")
)
_AG_UI = ("RUN_FINISHED", "RUN_ERROR")


def browser_end(event: Event) -> bool | None:
    """
    Tell whether an event is the last of :data:`streamkit.sse.BROWSER`, or a record the last of
    :class:`streamkit.jsonlines.JsonLines`. In an event stream, the end of the kind ``shutdown`` is
    not the last: its reader comes back.
    """
    if event.event is None:
        return _has(event, "end")
    if event.event != "end":
        return False
    said = _object(event)
    return None if said.get("kind") == "shutdown" else True


def json_lines_end(key: str) -> LastWord:
    """
    Return a ``last_word`` for JSON lines whose end has another key.

    :param key: the ``end_key`` of the server
    :raises TypeError: if it is not text

    """
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"json_lines_end takes a key, got {type(key).__qualname__}: write "
            "last_word=json_lines_end('end'), for instance"
        )
    return lambda event: _has(event, key)


def openai_chat_end(event: Event) -> bool:
    """Tell whether an event is the last of :data:`streamkit.sse.OPENAI_CHAT`."""
    if event.data == "[DONE]":
        return True
    # Some servers write ``"error": null`` in each chunk. Like the SDK, take that for no error.
    return _has(event, "error") and bool(_object(event)["error"])


def openai_responses_end(event: Event) -> bool:
    """Tell whether an event is the last of :data:`streamkit.sse.OPENAI_RESPONSES`."""
    return event.event in _RESPONSES


def anthropic_end(event: Event) -> bool:
    """Tell whether an event is the last of :data:`streamkit.sse.ANTHROPIC`."""
    return event.event in ("message_stop", "error")


def vercel_ui_end(event: Event) -> bool:
    """Tell whether an event is the last of the UI message stream of the AI SDK."""
    return event.data == "[DONE]"


def ag_ui_end(event: Event) -> bool:
    """Tell whether an event is the last of AG-UI."""
    return "RUN_" in event.data and _object(event).get("type") in _AG_UI


def _has(event: Event, key: str) -> bool:
    # Most events cannot have the key, which shows without parsing them. A key may be written with
    # escapes, so events that have any are parsed, too.
    if key not in event.data and "\\" not in event.data:
        return False
    return key in _object(event)


def _object(event: Event) -> dict[str, Any]:
    try:
        said = json.loads(event.data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}
