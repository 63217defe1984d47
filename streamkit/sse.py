"""
Server-sent events: ``ServerSentEvent``, profiles that fit the clients that read them, and
``EventStream``, a response of both.

What a stream yields becomes a :class:`Frame`: bytes as they go on the wire. Each frame is whole, so
that a beat can go between any two of them.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html. Where real
clients are stricter than that text, this module keeps to what all of them accept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal, Unpack, cast

from ._keepalive import with_keepalive
from ._outcome import Outcome, OutcomeKind
from ._source import AsyncSource
from ._stage import Stage
from ._stream import Stream, with_stage
from .asgi import ResponseOptions, StreamResponse

__all__ = [
    "ANTHROPIC",
    "BROWSER",
    "MAX_ID",
    "MAX_RETRY",
    "OPENAI_CHAT",
    "OPENAI_RESPONSES",
    "RAW",
    "EventStream",
    "Frame",
    "Profile",
    "ServerSentEvent",
    "last_event_id",
]

#: Bytes of UTF-8 that an id or a name may have. An id comes back as a header, and servers limit
#: those.
MAX_ID = 4096

#: Milliseconds that a client may be told to wait, about 24 days. With more, the timers of
#: JavaScript fire at once.
MAX_RETRY = 2**31 - 1


class Frame(bytes):
    """
    Bytes that go on the wire as they are: whole lines, which nothing is added to.

    To encode a frame once more is to return it. A source may yield one where an event of its own
    making is needed.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """
    One event, or a comment, or the advice when to reconnect.

    Whatever the text is, it stays where it was put: no value adds a field or another event.
    Everything is checked when the event is made, so that :meth:`encode` never fails.

    :raises TypeError: if a value is of the wrong type
    :raises ValueError: if there is nothing to send; if there is an ``event`` without ``data``; if
        ``event`` or ``id`` has a CR, LF or NUL in it; if a name, an id or ``retry`` is too
        large, or ``retry`` negative

    """

    #: The payload, of any number of lines; they may end in CRLF, CR or LF, and arrive with LF.
    #: Bytes are UTF-8. What is no text, a lone surrogate or a wrong byte, arrives as U+FFFD.
    #: Anything else is turned into text by who yields it, or by the profile, if it is yielded bare.
    data: str | bytes | None = None
    _: KW_ONLY
    #: The name of the event: ``"message"`` if there is none. A browser drops a named event that
    #: has no data, so one is given with ``data=""`` at least.
    event: str | None = None
    #: Where a client may resume: it comes back in :func:`last_event_id`. Without ``data`` it only
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

        What is to be dispatched ends with an empty line. A mere comment, or ``retry``, does not:
        after an ``id`` was sent, clients that keep less than strictly to the format take an empty
        line for another event.
        """
        parts: list[bytes] = []
        if self.comment is not None:
            parts.append(_lines(b": ", _utf8(self.comment)))
        if self.retry is not None:
            parts.append(b"retry: %d\n" % self.retry)
        if self.event is not None:
            parts.append(b"event: %b\n" % _utf8(self.event))
        if self.id is not None:
            parts.append(b"id: %b\n" % _utf8(self.id))
        if self.data is not None:
            parts.append(_lines(b"data: ", _utf8(self.data)))
        if self.id is not None or self.data is not None:
            parts.append(b"\n")
        return Frame(b"".join(parts))


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


def _data_event(item: object) -> ServerSentEvent | Frame:
    text = item if isinstance(item, (str, bytes)) else _json(item)
    # Most items come by here. What is empty is left to the check of the profile.
    return Frame(_lines(b"data: ", _utf8(text)) + b"\n") if text else ServerSentEvent(text)


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
    event_of: Callable[[Any], ServerSentEvent | Frame] = _data_event
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
        if "event" in self.requires and self.event_of is _data_event:
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
    return Frame(item if isinstance(item, bytes) else _utf8(item))


#: For a source that yields the bytes of an event stream, such as a proxy.
#:
#: They pass as they are, so each item must be of whole lines: a beat comes between two of them. The
#: client is told nothing of the end. If the stream fails, or is cancelled, the exception is raised.
RAW = Profile("RAW", event_of=_frame)


class EventStream(StreamResponse):
    """
    An answer of server-sent events: a :class:`~streamkit.asgi.StreamResponse` that speaks to its
    clients as a profile says.

    Items are encoded by the profile, one at a time, in the source task. While the source is silent,
    the client receives the profile's beat, which it does not notice, and which carries no id. The
    end is told as the profile tells it, with a message for the public.

    :param source: an async iterable of what the profile encodes, and of :class:`ServerSentEvent`
        and :class:`Frame`, which every profile takes; an async context manager that yields one; or
        a stream, whose own beats are encoded, too. Owned and closed by the response.
    :param profile: for which kind of client: one of this module's, or one of your own
    :param keepalive: seconds of silence before each beat, or ``None`` for no beats
    :param final: called with the :class:`~streamkit.Outcome`, in place of :meth:`Profile.final`.
        Returns what is to be sent last: an item, several in a list, a tuple or an iterator, or
        ``None``. To change the message alone, write ``final=lambda outcome: profile.final(outcome,
        message="...")``.
    :param headers: headers of the response, which may replace those of the profile
    :param options: further options of :class:`~streamkit.asgi.StreamResponse`, all but
        ``media_type``, which is that of the profile
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is out of range, or a header none

    """

    def __init__(
        self,
        source: AsyncSource[Any],
        *,
        profile: Profile = BROWSER,
        keepalive: float | None = 15.0,
        final: Callable[[Outcome], object] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        **options: Unpack[ResponseOptions],
    ) -> None:
        _check_profile(profile)
        if final is not None and not callable(final):
            raise TypeError(
                f"final must be callable, got {type(final).__qualname__}: write "
                "final=lambda outcome: ..."
            )
        stream: Stream[Any] = with_stage(source, _Encoded(profile))
        if keepalive is not None:
            stream = with_keepalive(stream, keepalive, profile.beat)
        super().__init__(
            stream,
            final=profile.final if final is None else _encoded_final(final, profile),
            headers=_with_headers(profile, headers),
            media_type=profile.media_type,
            **options,
        )


def _check_profile(given: object) -> None:
    if not isinstance(given, Profile):
        raise TypeError(
            f"profile must be a Profile, got {type(given).__qualname__}: write "
            "EventStream(source, profile=BROWSER), for instance"
        )


class _Encoded(Stage[Any, bytes]):
    def __init__(self, profile: Profile) -> None:
        self._encode = profile.encode
        self._takes_text = profile.event_of is _data_event

    def on_item(self, item: Any) -> bytes:
        # Most items are text of one line, for which there is a shorter way to the same bytes.
        if type(item) is str and self._takes_text and item and not ("\n" in item or "\r" in item):
            try:
                return f"data: {item}\n\n".encode()
            except UnicodeEncodeError:
                # Half of a surrogate pair: the longer way knows what to do.
                pass
        return self._encode(item)

    def on_beat(self, beat: Any) -> Frame:
        return self._encode(beat)


def _encoded_final(
    final: Callable[[Outcome], object], profile: Profile
) -> Callable[[Outcome], list[Frame] | None]:
    def encoded(outcome: Outcome) -> list[Frame] | None:
        last: Any = final(outcome)
        if last is None:
            return None
        several = isinstance(last, list | tuple | Iterator)
        items = cast("Iterable[object]", last) if several else (last,)
        return [profile.encode(item) for item in items]

    return encoded


def _with_headers(
    profile: Profile, headers: Mapping[str, str] | Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    given = list(
        cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    )
    names = {name.lower() for name, _ in given}
    return [pair for pair in profile.headers.items() if pair[0].lower() not in names] + given


def last_event_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """
    Return the id of the last event that a client has seen, when it connects again.

    It comes from outside: any client may send any text.

    :param headers: as in an ASGI scope: ``scope["headers"]``, or ``request.headers.raw`` of
        Starlette. (``request.headers["last-event-id"]`` is no alternative: it is not decoded as
        UTF-8.)
    :return: the value of the header ``Last-Event-ID``, or ``None`` if there is none, or none that
        :class:`ServerSentEvent` could have sent: it is empty, no UTF-8, longer than
        :data:`MAX_ID`, or has a control character in it that ends a line or a string

    """
    for name, value in headers:
        if name.lower() == b"last-event-id":
            if not value or len(value) > MAX_ID or not _BREAKS.isdisjoint(value):
                return None
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
    return None


# As numbers, which is what bytes are searched for fastest.
_CR, _LF = b"\r\n"
_BREAKS = frozenset(b"\r\n\0")
_SURROGATES = re.compile("[\ud800-\udfff]")


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
    encoded = _utf8(value)
    if not _BREAKS.isdisjoint(encoded):
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


def _utf8(text: str | bytes) -> bytes:
    """Encode text as a browser does: what is no character becomes U+FFFD, and nothing raises."""
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


def _lines(prefix: bytes, text: bytes) -> bytes:
    # Not splitlines(), which also splits str at U+2028, VT, FF and NEL: those are text here.
    if _CR in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if _LF in text:
        text = text.replace(b"\n", b"\n" + prefix)
    return prefix + text + b"\n"


def _json(value: object) -> str:
    return _JSON.encode(value)


def _plain(value: object) -> object:
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


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
