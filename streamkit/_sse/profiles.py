"""Profiles: how items become events, and how the end is told, for each kind of client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

from .._core.outcome import Outcome, OutcomeKind
from .events import MAX_RETRY, Frame, ServerSentEvent, lines, utf8

# Said to a client that is told no more. What an exception says is not for the public.
_MESSAGES: dict[OutcomeKind, str] = {
    "completed": "The stream is complete.",
    "cancelled": "The stream was cancelled.",
    "timed_out": "The stream took too long.",
    "failed": "The stream failed.",
}

# One line end only. After an `id:` was sent, an empty line is one more event to some clients, and
# the SDKs of OpenAI crash on it.
_BEAT = Frame(b": ping\n")

# Proxies must neither keep the stream back nor compress it.
_HEADERS = MappingProxyType({"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})


def data_event(item: object) -> ServerSentEvent | Frame:
    """Return the event whose data an item is: text as it is, and anything else as JSON."""
    text = item if isinstance(item, (str, bytes)) else _json(item)
    # Most items come by here. What is empty is left to the check of the profile.
    return Frame(lines(b"data: ", utf8(text)) + b"\n") if text else ServerSentEvent(text)


def _no_tail(kind: OutcomeKind, message: str) -> None:
    return None


def _check_beat(value: object) -> None:
    # Plain bytes would be the data of an event.
    if not isinstance(value, Frame):
        raise TypeError(
            f"beat must be a Frame, got {type(value).__qualname__}: write Frame(b': ping\\n'), or "
            "ServerSentEvent(...).encode()"
        )


@dataclass(frozen=True, eq=False, slots=True)
class Profile:
    """
    How a stream becomes server-sent events for one kind of client.

    A profile keeps nothing between calls: one serves any number of streams. To change one thing of
    a ready-made profile, write ``dataclasses.replace(BROWSER, headers={...})``.
    """

    #: What messages call it.
    name: str
    _: KW_ONLY
    #: Turns an item into an event; not called for a :class:`ServerSentEvent` or a :class:`Frame`.
    #: By default, ``str`` and ``bytes`` are the data as they are, and anything else becomes JSON:
    #: what ``json`` takes, dataclasses, and models of pydantic, in any nesting. ``NaN`` and
    #: infinities are refused, because clients refuse them.
    event_of: Callable[[Any], ServerSentEvent | Frame] = data_event
    #: Called with the kind of an :class:`~streamkit.Outcome` and a message for the public. Returns
    #: what the client receives last, or ``None`` to add nothing, and to let an exception be raised
    #: where there is one.
    tail: Callable[[OutcomeKind, str], Iterable[ServerSentEvent | Frame] | None] = _no_tail
    #: What must be in every event, and not empty: the clients crash without it, or drop the event.
    requires: tuple[Literal["data", "event"], ...] = ()
    #: For :func:`~streamkit.with_keepalive`: a comment, with no empty line after it.
    beat: Frame = _BEAT
    #: The content type.
    media_type: str = "text/event-stream; charset=utf-8"
    #: Further headers of the response.
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)

    def __post_init__(self) -> None:
        _check_beat(self.beat)
        if "event" in self.requires and self.event_of is data_event:
            raise ValueError(
                "events have no name by default: write event_of=lambda item: "
                "ServerSentEvent(..., event='...')"
            )

    def encode(self, item: object) -> Frame:
        """
        Return an item as it goes on the wire. A :class:`Frame` is returned as it is.

        :raises TypeError: if there is no event for such an item
        :raises ValueError: if the event lacks what the clients need, or it is no valid JSON

        """
        if isinstance(item, Frame):
            return item
        event = item if isinstance(item, ServerSentEvent) else self.event_of(item)
        if isinstance(event, Frame):
            return event
        # A mere comment, or retry, is no event to the clients.
        if self.requires and (event.data is not None or event.id is not None):
            for name in self.requires:
                if not getattr(event, name):
                    raise ValueError(
                        f"the clients of {self.name} need {name} in every event: write "
                        f"ServerSentEvent(..., {name}='...')"
                    )
        return event.encode()

    def final(self, outcome: Outcome, *, message: str | None = None) -> list[Frame] | None:
        """
        Return what tells the client how its stream ended: a ``final`` for
        :func:`~streamkit.with_status`.

        :param outcome: how the stream ended. Of this only the kind is told, since a reason and an
            exception may hold what is not for the public.
        :param message: what the client is told instead of a general sentence
        :return: the last frames, or ``None`` if there are none, so that what the stream raises is
            raised: always so if the consumer has left early

        """
        if outcome.kind == "closed":
            return None
        tail = self.tail(outcome.kind, _MESSAGES[outcome.kind] if message is None else message)
        return None if tail is None else [self.encode(event) for event in tail]


def _browser_tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    ending = {"kind": kind} if kind == "completed" else {"kind": kind, "message": message}
    return [ServerSentEvent(_json(ending), event="end", retry=MAX_RETRY)]


#: For ``EventSource`` in a browser or in Node.js, and for ``fetch`` with a parser of events.
#:
#: The last event has the name ``end`` for every kind of end, and as its data
#: ``{"kind": "completed"}``, or ``"cancelled"``, ``"timed_out"`` or ``"failed"`` with a
#: ``"message"``. A page closes its source there. One that does not would connect again after any
#: end, and start the run anew, so the event also says to wait for some 24 days before that. (It is
#: not named ``error``, since ``EventSource`` has an event of that name, for a lost connection.)
BROWSER = Profile("BROWSER", tail=_browser_tail)


def _openai_error(kind: OutcomeKind, message: str) -> dict[str, object]:
    # Not "server_error" for a cancellation: clients try that again.
    type_ = {"cancelled": "cancelled", "timed_out": "timeout_error"}.get(kind, "server_error")
    return {"message": message, "type": type_, "param": None, "code": kind}


def _chat_tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    # No [DONE] after an error: some clients take that for success, whatever came before. See
    # https://github.com/vllm-project/vllm/issues/57082.
    if kind == "completed":
        return [ServerSentEvent("[DONE]")]
    return [ServerSentEvent(_json({"error": _openai_error(kind, message)}))]


#: For clients of OpenAI's chat completions API, and of the many that are compatible.
#:
#: Items are chunks: mappings, models, or JSON as text. After the last comes ``[DONE]``. Any other
#: end is ``{"error": {...}}``, with the kind as its ``code``: the SDKs raise ``APIError``, also
#: when the stream was cancelled, because a cut answer must not pass for a whole one.
OPENAI_CHAT = Profile("OPENAI_CHAT", tail=_chat_tail, requires=("data",))


def _named_event(item: object) -> ServerSentEvent:
    name = _type_of(item)
    if not isinstance(name, str):
        raise TypeError(
            "an event is named after the type of its item, but there is none in "
            f"{type(item).__qualname__}: yield {{'type': '...', ...}}, or "
            "ServerSentEvent(data, event='...')"
        )
    return ServerSentEvent(_json(item), event=name)


def _type_of(item: object) -> object:
    if isinstance(item, Mapping):
        return cast("Mapping[str, object]", item).get("type")
    return getattr(item, "type", None)


def _responses_tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    if kind == "completed":
        return []
    # The reference of the API has the fields at the top, and the API itself sends them nested,
    # which is what the SDKs raise for: https://github.com/openai/openai-dotnet/issues/881.
    error = _openai_error(kind, message)
    flat = {"code": error["code"], "message": error["message"], "param": error["param"]}
    return [ServerSentEvent(_json({"type": "error", **flat, "error": error}), event="error")]


#: For clients of OpenAI's responses API.
#:
#: Items are events: mappings or models whose ``type`` is the name of the event. They end with one
#: of the API's own, such as ``response.completed``. Any other end is an ``error``, with the kind
#: as its ``code``: the SDKs raise ``APIError``. (``response.failed`` would need the response as it
#: is by then.)
OPENAI_RESPONSES = Profile(
    "OPENAI_RESPONSES",
    event_of=_named_event,
    tail=_responses_tail,
    requires=("data", "event"),
)


def _anthropic_tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    if kind == "completed":
        return []
    type_ = {"cancelled": "cancelled", "timed_out": "timeout_error"}.get(kind, "api_error")
    error = {"type": type_, "message": message, "details": {"error_code": kind}}
    return [ServerSentEvent(_json({"type": "error", "error": error}), event="error")]


#: For clients of Anthropic's messages API.
#:
#: Items are events: mappings or models whose ``type`` is the name of the event; the SDK drops one
#: without a name. They end with the API's own ``message_stop``. Any other end is an ``error``, with
#: the kind as its ``error_code``: the SDK raises ``APIStatusError``.
ANTHROPIC = Profile(
    "ANTHROPIC",
    event_of=_named_event,
    tail=_anthropic_tail,
    requires=("data", "event"),
)


def _frame(item: object) -> Frame:
    if not isinstance(item, str | bytes):
        raise TypeError(
            f"RAW takes what is encoded already, got {type(item).__qualname__}: yield bytes or "
            "str, or a ServerSentEvent, or choose another profile"
        )
    return Frame(item if isinstance(item, bytes) else utf8(item))


#: For a source that yields the bytes of an event stream, such as a proxy.
#:
#: They pass as they are, so each item must be of whole lines: a beat comes between two of them. The
#: client is told nothing of the end. If the stream fails, or is cancelled, the exception is raised.
RAW = Profile("RAW", event_of=_frame)


def _json(value: object) -> str:
    return _JSON.encode(value)


def plain(value: object) -> object:
    """Take apart what ``json`` does not know."""
    dump: Any = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    raise TypeError(
        f"there is no JSON for {type(value).__qualname__}: yield what json.dumps() takes, a "
        "dataclass, a model of pydantic, or text that is JSON already"
    )


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
