"""``Profile``: how items become events, and how the end is told, for one kind of client."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from .._core.arguments import check_status
from .._core.outcome import Outcome, OutcomeKind
from .._signals.shutdown import Shutdown
from .events import Frame, ServerSentEvent
from .foreign import event_from
from .items import TAKING_EVENTS, WITH_JSON, data_event
from .json import ToJSON, encoding_with, to_json

# All that a client is told. The text of an exception is not for the public.
_MESSAGES: dict[str, str] = {
    "completed": "The stream is complete.",
    "cancelled": "The stream was cancelled.",
    "timed_out": "The stream took too long.",
    "failed": "The stream failed.",
    "lost": "The stream was lost.",
    "shutdown": "The server is shutting down.",
}
_GONE = "There is no such stream, or no longer."

# A single line end. After an `id:` was sent, an empty line is one more event to some clients, and
# the SDKs of OpenAI crash on it.
_BEAT = Frame(b": ping\n")

#: Proxies must neither buffer the stream nor compress it.
HEADERS = MappingProxyType({"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})

# Types that are not an event of any library.
_PLAIN: tuple[type[Any], ...] = (str, bytes, dict)

# The fields that are called, and their arguments.
_ARGUMENTS = {
    "event_of": "item",
    "encoder": "value",
    "begin": "about",
    "fold": "state, item",
    "tail": "kind, message",
    "shutdown": "message",
    "resync": "first, last",
    "gone": "message",
}


# The state of the stream whose end is being told, for callers that have no state at hand.
_state: ContextVar[Any] = ContextVar("state", default=None)


def _no_tail(kind: str, message: str, state: object = None) -> None:
    return None


@dataclass(frozen=True, eq=False, slots=True)
class Profile:
    """
    How a stream becomes server-sent events for one kind of client.

    A profile keeps nothing between calls: one serves any number of streams. To change one field of
    a ready-made profile, write ``dataclasses.replace(BROWSER, headers={...})``.
    """

    #: Its name in messages.
    name: str
    _: KW_ONLY
    #: Turns an item into an event; not called for a :class:`ServerSentEvent`, an event of FastAPI
    #: or of sse-starlette, or a :class:`Frame` (ready-made profiles with a memory also look into
    #: these). By default, ``str`` and ``bytes`` are the data as they are, and anything else becomes
    #: JSON: what ``json`` takes, dataclasses, models of pydantic, classes of attrs, structs of
    #: msgspec, mappings, sets, enums by their value, dates and times in ISO format, and UUIDs,
    #: paths, IP addresses and ``Decimal`` as text, in any nesting. ``NaN`` and infinities are
    #: refused, because clients refuse them.
    event_of: (
        Callable[[Any], ServerSentEvent | Frame] | Callable[[Any, Any], ServerSentEvent | Frame]
    ) = data_event
    #: Called with a value for which there would be no JSON, wherever in an item it is. Returns a
    #: value for which there is, or raises :exc:`TypeError`. Works with the ``event_of`` of the
    #: ready-made profiles: an ``event_of`` of your own makes its own JSON.
    encoder: Callable[[Any], object] | None = None
    #: Called with what is known of a stream: ``about`` of :class:`EventStream`, or the ``"run_id"``
    #: and the ``"epoch"`` of a run. Returns the items and events that the client receives first,
    #: before any item. Not called where the status is 400 or more.
    begin: Callable[[Mapping[str, Any]], Iterable[Any]] | None = None
    #: Called with the state of a stream, which is ``None`` at first, and with what is sent next:
    #: what ``begin`` returns, each item, what ``tail`` returns. Returns the next state, and must
    #: not change the given one. ``event_of`` and ``tail`` then get the state as one more argument.
    #: The result must depend on nothing else: for a run, it is computed from the kept items, in any
    #: process that reads the run.
    fold: Callable[[Any, Any], Any] | None = None
    #: Called with the kind of an :class:`~streamkit.Outcome` and a message for the public. Returns
    #: what the client receives last, or ``None`` to add nothing; an exception, if there is one, is
    #: then raised. With ``fold``, it is called with the state, too, for every end: the kind may
    #: also be ``"shutdown"``, or, of a run, ``"lost"``.
    tail: (
        Callable[[OutcomeKind, str], Iterable[ServerSentEvent | Frame] | None]
        | Callable[[str, str, Any], Iterable[Any] | None]
    ) = _no_tail
    #: The same for a stream that is cancelled because the program ends: called with the message
    #: alone. If it is ``None``, such an end is told like any cancellation. With ``fold``, it is
    #: only used for a client that is refused by an event.
    shutdown: Callable[[str], Iterable[ServerSentEvent | Frame] | None] | None = None
    #: How a client is told that it is refused and that its source never started: by the
    #: ``"status"``, or, for clients that accept only status 200, by an ``"event"``: the one of
    #: ``shutdown``.
    errors: Literal["status", "event"] = "status"
    #: For a run: called with the positions of the first and the last kept item, when items that a
    #: client has not seen are missing before them. The kept items follow.
    resync: Callable[[int, int], Iterable[ServerSentEvent | Frame] | None] | None = None
    #: For a run: called with a message when there is no such run.
    gone: Callable[[str], Iterable[ServerSentEvent | Frame] | None] | None = None
    #: For a run: the status when there is no such run, for clients that are told by a status.
    nothing: int = 404
    #: Whether clients reconnect by themselves when the body ends and no event has told an end.
    reconnects: bool = False
    #: Whether clients notice that a body was cut. If not, a cut would look complete to them:
    #: instead of a cut, they are told that the stream failed.
    notices_cuts: bool = True
    #: Whether clients that reconnect say what they have seen. If not, they read a run from its
    #: beginning, whatever cursor they send, and are refused if the beginning is no longer kept.
    resumes: bool = True
    #: The name of a field in the JSON of each event for its position in a run: the number that
    #: clients give back in ``?starting_after=``. The position of the end is one more than that of
    #: the last item.
    position_field: str | None = None
    #: Fields that every event must have, and not empty: without them, clients crash or drop the
    #: event.
    requires: tuple[Literal["data", "event"], ...] = ()
    #: For :func:`~streamkit.with_keepalive`: a comment without an empty line after it.
    beat: Frame = _BEAT
    #: The content type.
    media_type: str = "text/event-stream; charset=utf-8"
    #: Further headers of the response.
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)
    # Derived from the fields above.
    _to_json: ToJSON = field(init=False, repr=False, default=to_json)
    _event_of: Callable[..., object] = field(init=False, repr=False)
    _takes_events: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_beat(self.beat)
        for name in _ARGUMENTS:
            _check_callable(name, getattr(self, name))
        check_errors(self.errors, self.shutdown)
        check_status("nothing", self.nothing)
        if "event" in self.requires and self.event_of is data_event:
            raise ValueError(
                "events have no name by default: write event_of=lambda item: "
                "ServerSentEvent(..., event='...')"
            )
        event_of: Any = self.event_of
        object.__setattr__(self, "_takes_events", event_of in TAKING_EVENTS)
        if self.encoder is not None:
            if event_of not in WITH_JSON:
                raise ValueError(
                    "encoder is for the JSON that a profile makes, but event_of makes its own: "
                    "write ServerSentEvent(json.dumps(item, default=...)) there"
                )
            encoded = encoding_with(self.encoder)
            object.__setattr__(self, "_to_json", encoded)
            event_of = partial(event_of, to_json=encoded)
        object.__setattr__(self, "_event_of", event_of)

    def encode(self, item: object) -> Frame:
        """
        Return an item as it goes on the wire. A :class:`Frame` is returned as it is.

        With a ``fold``, this is for the first item of a stream, and :meth:`encode_in` for all
        others.

        :raises TypeError: if there is no event for such an item
        :raises ValueError: if the event lacks what the clients need, or is not valid JSON

        """
        if isinstance(item, Frame):
            return item
        if self.fold is not None:
            return self.encode_in(None, item)
        if isinstance(item, _PLAIN):
            event = self._event_of(item)
        elif isinstance(item, ServerSentEvent):
            event = item
        else:
            event = event_from(item, self._to_json) or self._event_of(item)
        return event if isinstance(event, Frame) else self._encoded(event)

    def encode_in(self, state: object, item: object) -> Frame:
        """
        Return an item as it goes on the wire in a state that :attr:`fold` has made.

        :raises TypeError: as :meth:`encode`
        :raises ValueError: as :meth:`encode`

        """
        if self.fold is None:
            return self.encode(item)
        if self._takes_events:
            event: object = self._event_of(item, state)
        elif isinstance(item, Frame | ServerSentEvent):
            event = item
        else:
            known = None if isinstance(item, _PLAIN) else event_from(item, self._to_json)
            event = known or self._event_of(item, state)
        return event if isinstance(event, Frame) else self._encoded(event)

    def _encoded(self, event: object) -> Frame:
        if not isinstance(event, ServerSentEvent):
            event = self._checked(event)
        # A mere comment, or retry, is not an event to the clients.
        if self.requires and (event.data is not None or event.id is not None):
            for name in self.requires:
                if not getattr(event, name):
                    raise ValueError(
                        f"the clients of {self.name} need {name} in every event: write "
                        f"ServerSentEvent(..., {name}='...')"
                    )
        return event.encode()

    def _said(self, items: Iterable[Any], state: Any) -> tuple[list[Frame], Any]:
        """Return what several items are on the wire, and the state after them."""
        frames: list[Frame] = []
        for item in items:
            frames.append(self.encode_in(state, item))
            if self.fold is not None:
                state = self.fold(state, item)
        return frames, state

    def said(self, items: Iterable[Any]) -> list[Frame]:
        """Return what several items are on the wire, in the state of the stream that ends."""
        return self._said(items, _state.get())[0]

    def begun(self, about: Mapping[str, Any]) -> tuple[Frame, Any]:
        """Return what is sent first, and the state after that."""
        if self.begin is None:
            return Frame(), None
        frames, state = self._said(self.begin(about), None)
        return Frame(b"".join(frames)), state

    def _checked(self, made: object) -> ServerSentEvent:
        """Return the event that a user's ``event_of`` has made, with the class of a library."""
        event = event_from(made, self._to_json)
        if event is None:
            raise TypeError(
                f"event_of of {self.name} has returned {type(made).__qualname__}: return a "
                "ServerSentEvent or a Frame"
            )
        return event

    def final(
        self, outcome: Outcome, *, message: str | None = None, state: object = None
    ) -> list[Frame] | None:
        """
        Return the frames that tell the client how its stream ended: a ``final`` for
        :func:`~streamkit.with_status`.

        :param outcome: how the stream ended. The client is told only its kind, and whether the
            stream was cancelled because the program ends: a reason or an exception may hold what is
            not for the public.
        :param message: what the client is told instead of a general sentence
        :param state: the state after the last item, if there is a ``fold``. Not needed in the
            ``final`` of a response, which knows it
        :return: the last frames, or ``None`` if there are none, so that what the stream raises is
            raised: always so if the consumer has left early

        """
        kind: str = outcome.kind
        if kind == "closed":
            return None
        if kind == "cancelled" and isinstance(outcome.reason, Shutdown):
            if self.fold is not None:
                kind = "shutdown"
            elif self.shutdown is not None:
                return self.refusal(message=message)
        return self.ended(kind, message, state)

    def ended(self, kind: str, message: str | None, state: object = None) -> list[Frame] | None:
        """Return the frames that tell the end of a stream in a state."""
        if message is None:
            message = _MESSAGES[kind]
        make: Callable[..., Iterable[Any] | None] = self.tail
        if self.fold is None:
            tail = make(kind, message)
        else:
            state = _state.get() if state is None else state
            tail = make(kind, message, state)
        return None if tail is None else self._said(tail, state)[0]

    def lost(self) -> list[Frame] | None:
        """Return the frames that tell that the process of a run has died."""
        # Without a fold, there is no such kind of end.
        return self.ended("failed" if self.fold is None else "lost", _MESSAGES["lost"])

    def refusal(self, *, message: str | None = None) -> list[Frame] | None:
        """
        Return the frames that tell a client to come back later: those of :attr:`shutdown`.

        :param message: what the client is told instead of a general sentence
        :return: the frames, or ``None`` if there are none

        """
        tail = None
        if self.shutdown is not None:
            tail = self.shutdown(_MESSAGES["shutdown"] if message is None else message)
        return None if tail is None else [self.encode(event) for event in tail]

    def told(self, what: Literal["resync", "gone"], *values: Any) -> list[Frame] | None:
        """Return the frames that tell a client of a run that items are missing."""
        function: Any = getattr(self, what)
        tail = None if function is None else function(*(values or (_GONE,)))
        return None if tail is None else [self.encode(event) for event in tail]


@contextmanager
def in_state(state: object) -> Generator[None]:
    """Let :meth:`Profile.final` know the state of the stream whose end is being told."""
    token = _state.set(state)
    try:
        yield
    finally:
        _state.reset(token)


def _check_beat(value: object) -> None:
    # Plain bytes would be the data of an event.
    if not isinstance(value, Frame):
        raise TypeError(
            f"beat must be a Frame, got {type(value).__qualname__}: write Frame(b': ping\\n'), or "
            "ServerSentEvent(...).encode()"
        )


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(
            f"{name} must be callable, got {type(value).__qualname__}: write "
            f"{name}=lambda {_ARGUMENTS[name]}: ..."
        )


def check_errors(errors: object, shutdown: object) -> None:
    """
    Check how refused clients will be told.

    :raises ValueError: if there is no way to tell them

    """
    if errors not in ("status", "event"):
        raise ValueError(f"errors is 'status' or 'event', got {errors!r}")
    if errors == "event" and shutdown is None:
        raise ValueError(
            "errors='event' tells a refused client what shutdown returns, which is missing: write "
            "shutdown=lambda message: [ServerSentEvent(message, event='...', retry=3000)], or "
            "errors='status'"
        )
