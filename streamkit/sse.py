"""
Server-sent events: ``ServerSentEvent``, profiles that fit the clients that read them, and
``EventStream``, a response of both.

What a stream yields becomes a :class:`Frame`: bytes as they go on the wire. Each frame is whole, so
that a beat can go between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Unpack, cast

from ._combinators.keepalive import with_keepalive
from ._core.arguments import check_made, check_plain
from ._core.outcome import Outcome
from ._core.public import name_publicly
from ._core.source import AsyncSource
from ._http.outlet import Outlet, encode
from ._sse.events import (
    BREAKS,
    MAX_ID as MAX_ID,
    MAX_RETRY as MAX_RETRY,
    Frame as Frame,
    ServerSentEvent as ServerSentEvent,
)
from ._sse.profiles import (
    ANTHROPIC as ANTHROPIC,
    BROWSER as BROWSER,
    OPENAI_CHAT as OPENAI_CHAT,
    OPENAI_RESPONSES as OPENAI_RESPONSES,
    RAW as RAW,
    Profile as Profile,
    data_event,
)
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
        check_plain("final", final)
        self._profile = profile
        beating = source if keepalive is None else with_keepalive(source, keepalive, profile.beat)
        super().__init__(
            beating,
            final=profile.final if final is None else _encoded_final(final, profile),
            headers=_with_headers(profile, headers),
            media_type=profile.media_type,
            **options,
        )

    def _make_outlet(self) -> Outlet:
        return _EventOutlet(self._profile)


def _check_profile(given: object) -> None:
    if not isinstance(given, Profile):
        raise TypeError(
            f"profile must be a Profile, got {type(given).__qualname__}: write "
            "EventStream(source, profile=BROWSER), for instance"
        )


class _EventOutlet(Outlet):
    """Makes bytes of items as a profile does."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self._encode = profile.encode
        self._takes_text = profile.event_of is data_event

    def on_item(self, item: Any) -> bytes:
        # Most items are text of one line, for which there is a shorter way to the same bytes.
        if type(item) is str and self._takes_text and item and not ("\n" in item or "\r" in item):
            try:
                return f"data: {item}\n\n".encode()
            except UnicodeEncodeError:
                # Half of a surrogate pair: the longer way knows what to do.
                pass
        return encode(self._encode(item))

    def on_beat(self, beat: Any) -> bytes:
        return encode(self._encode(beat))


def _encoded_final(
    final: Callable[[Outcome], object], profile: Profile
) -> Callable[[Outcome], list[Frame] | None]:
    def encoded(outcome: Outcome) -> list[Frame] | None:
        last: Any = final(outcome)
        check_made("final", last)
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
            if not value or len(value) > MAX_ID or not BREAKS.isdisjoint(value):
                return None
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
    return None


name_publicly(globals())
