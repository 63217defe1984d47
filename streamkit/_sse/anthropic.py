"""``ANTHROPIC``: the profile of Anthropic's messages API."""

from __future__ import annotations

from .._core.outcome import OutcomeKind
from .events import ServerSentEvent
from .items import named_event
from .json import to_json
from .profile import Profile


def _error(type_: str, code: str, message: str) -> list[ServerSentEvent]:
    error = {"type": type_, "message": message, "details": {"error_code": code}}
    return [ServerSentEvent(to_json({"type": "error", "error": error}), event="error")]


def _tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    if kind == "completed":
        return []
    type_ = {"cancelled": "cancelled", "timed_out": "timeout_error"}.get(kind, "api_error")
    return _error(type_, kind, message)


#: For clients of Anthropic's messages API.
#:
#: Items are events: mappings or models whose ``type`` is the name of the event; the SDK drops an
#: event without a name. They end with the API's own ``message_stop``. Any other end is an
#: ``error``, with
#: the kind as its ``error_code``: the SDK raises ``APIStatusError``. After a shutdown it is an
#: ``overloaded_error`` with the code ``shutdown``.
ANTHROPIC = Profile(
    "ANTHROPIC",
    event_of=named_event,
    tail=_tail,
    shutdown=lambda message: _error("overloaded_error", "shutdown", message),
    requires=("data", "event"),
)
