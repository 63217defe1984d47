"""The profiles of OpenAI's two APIs: an abnormal end makes their SDKs raise."""

from __future__ import annotations

from .._core.outcome import OutcomeKind
from .events import ServerSentEvent
from .items import named_event
from .json import to_json
from .profile import Profile


def _error(kind: OutcomeKind, message: str) -> dict[str, object]:
    # Not "server_error" for a cancellation: clients try that again.
    type_ = {"cancelled": "cancelled", "timed_out": "timeout_error"}.get(kind, "server_error")
    return {"message": message, "type": type_, "param": None, "code": kind}


def _shutdown_error(message: str) -> dict[str, object]:
    return {"message": message, "type": "server_error", "param": None, "code": "shutdown"}


def _chat_error(error: dict[str, object]) -> list[ServerSentEvent]:
    return [ServerSentEvent(to_json({"error": error}))]


def _chat_tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    # No [DONE] after an error: some clients take that for success, whatever came before. See
    # https://github.com/vllm-project/vllm/issues/57082.
    if kind == "completed":
        return [ServerSentEvent("[DONE]")]
    return _chat_error(_error(kind, message))


#: For clients of OpenAI's chat completions API, and of the many that are compatible.
#:
#: Items are chunks: mappings, models, or JSON as text. After the last comes ``[DONE]``. Any other
#: end is ``{"error": {...}}``, with the kind as its ``code``: the SDKs raise ``APIError``, also
#: when the stream was cancelled, because a cut answer must not pass for a whole one. After a
#: shutdown it is a ``server_error`` with the code ``shutdown``. The SDKs never retry a stream that
#: has begun: the application may do that.
OPENAI_CHAT = Profile(
    "OPENAI_CHAT",
    tail=_chat_tail,
    shutdown=lambda message: _chat_error(_shutdown_error(message)),
    requires=("data",),
)


def _response_error(error: dict[str, object]) -> list[ServerSentEvent]:
    # The reference of the API has the fields at the top, but the API itself sends them nested,
    # which is what the SDKs raise for: https://github.com/openai/openai-dotnet/issues/881.
    flat = {"code": error["code"], "message": error["message"], "param": error["param"]}
    return [ServerSentEvent(to_json({"type": "error", **flat, "error": error}), event="error")]


def _responses_tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    if kind == "completed":
        return []
    return _response_error(_error(kind, message))


#: For clients of OpenAI's responses API.
#:
#: Items are events: mappings or models whose ``type`` is the name of the event. They end with one
#: of the API's own, such as ``response.completed``. Any other end is an ``error``, with the kind
#: as its ``code``, or ``shutdown``: the SDKs raise ``APIError``. (``response.failed`` would need
#: the response so far.) In a run, each event has its position as ``sequence_number``:
#: ``client.responses.retrieve(id, stream=True, starting_after=...)`` goes on after it.
OPENAI_RESPONSES = Profile(
    "OPENAI_RESPONSES",
    event_of=named_event,
    tail=_responses_tail,
    position_field="sequence_number",
    shutdown=lambda message: _response_error(_shutdown_error(message)),
    requires=("data", "event"),
)
