"""
Server-sent events.

* :class:`EventStream`: a response of events, on any ASGI server
* :class:`RunEvents`: the same for a run of :mod:`streamkit.runs`
* :class:`Profile`: how items, beats and the end are sent to one kind of client: :data:`BROWSER`,
  :data:`OPENAI_CHAT`, :data:`OPENAI_RESPONSES`, :data:`ANTHROPIC`, :data:`VERCEL_UI`,
  :data:`AG_UI`, :data:`AG_UI_0` or :data:`RAW`
* :class:`ServerSentEvent`: one event with a name, an id or a comment. :class:`Frame`: bytes as they
  go on the wire, always whole, so that a beat can go between any two of them
* :func:`last_event_id`: where a client goes on. :func:`whole_events`: for the bytes of an upstream
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Literal, Never, Unpack, cast

from ._combinators.keepalive import beats_of as _beats_of
from ._core.arguments import refuse_misplaced, seconds
from ._core.outcome import Outcome
from ._core.public import name_publicly
from ._core.source import AsyncSource
from ._core.stream import with_stage
from ._http.headers import RawHeaders, default_headers, merged, raw
from ._http.messages import Receive, Scope, Send
from ._http.outlet import Outlet
from ._http.refusal import Refusal
from ._http.returned import UNSERIALIZABLE
from ._http.terms import FIRST_ITEM_WITHIN as _FIRST_ITEM_WITHIN, check_final as _check_final
from ._runs.answer import CUTS, Answer
from ._runs.arguments import check_text, url_of
from ._runs.said_last import said_last
from ._sse.ag_ui import AG_UI as AG_UI, AG_UI_0 as AG_UI_0
from ._sse.anthropic import ANTHROPIC as ANTHROPIC
from ._sse.arguments import check_said
from ._sse.browser import BROWSER as BROWSER
from ._sse.events import (
    MAX_ID as MAX_ID,
    MAX_RETRY as MAX_RETRY,
    Frame as Frame,
    ServerSentEvent as ServerSentEvent,
)
from ._sse.headers import last_event_id as last_event_id
from ._sse.misplaced import OF_A_RUN, OF_EVENTS, by_name, refuse_positional
from ._sse.openai import OPENAI_CHAT as OPENAI_CHAT, OPENAI_RESPONSES as OPENAI_RESPONSES
from ._sse.outlet import EventOutlet, RememberingOutlet, encoded_final
from ._sse.profile import Profile as Profile
from ._sse.raw import RAW as RAW, whole_events as whole_events
from ._sse.vercel import VERCEL_UI as VERCEL_UI
from .asgi import ResponseOptions, StreamResponse
from .runs import Runs

__all__ = [
    "AG_UI",
    "AG_UI_0",
    "ANTHROPIC",
    "BROWSER",
    "MAX_ID",
    "MAX_RETRY",
    "OPENAI_CHAT",
    "OPENAI_RESPONSES",
    "RAW",
    "VERCEL_UI",
    "EventStream",
    "Frame",
    "Profile",
    "RunEvents",
    "ServerSentEvent",
    "last_event_id",
    "whole_events",
]


class EventStream(StreamResponse):
    """
    An answer of server-sent events: a :class:`~streamkit.asgi.StreamResponse` that encodes items
    for one kind of client, as a profile says.

    Items are encoded by the profile, one at a time, in the source task. While the source is silent,
    the client receives the profile's beat, which it does not notice, and which carries no id. At
    the end, the profile tells the client how the stream ended, with a message for the public.

    :param source: an async iterable of items that the profile encodes, of :class:`ServerSentEvent`
        or of :class:`Frame`, which every profile takes; an async context manager that yields one;
        or a stream, whose own beats are encoded, too. Owned and closed by the response.
    :param profile: the kind of client: a profile of this module, or one of your own
    :param about: the data for the beginning, if the profile has one: :attr:`Profile.begin`
    :param keepalive: seconds of silence before each beat, or ``None`` for no beats
    :param errors: how a client is told that its stream does not start, because the program ends or
        too many are open: by the ``"status"`` 503 with a ``Retry-After``, or by an ``"event"``, the
        profile's ``shutdown``, with the status 200. ``None``: as the profile says
    :param final: called with the :class:`~streamkit.Outcome`, instead of :meth:`Profile.final`.
        Returns what to send last: an item, several in a list, a tuple or an iterator, or ``None``.
        To change only the message, write ``final=lambda outcome: profile.final(outcome,
        message="...")``.
    :param headers: headers of the response, which may replace those of the profile
    :param first_item_within: seconds after which the status 200 is sent without an item. With
        ``None`` it is the shorter of ``keepalive`` and 15; then the beats begin
    :param options: further options of :class:`~streamkit.asgi.StreamResponse`, except for
        ``media_type``, which is that of the profile
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is out of range, or a header is not valid

    """

    @by_name
    def __init__(
        self,
        source: AsyncSource[Any],
        *misplaced: Never,
        profile: Profile = BROWSER,
        about: Mapping[str, Any] | None = None,
        keepalive: float | None = 15.0,
        errors: Literal["status", "event"] | None = None,
        final: Callable[[Outcome], object] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        **options: Unpack[ResponseOptions],
    ) -> None:
        if misplaced:
            refuse_positional(type(self).__qualname__, misplaced)
        refuse_misplaced(type(self).__qualname__, options, OF_EVENTS)
        check_said(profile, about, errors)
        # Before all other attributes.
        self._unserializable = UNSERIALIZABLE
        self._profile = profile
        self._about: Mapping[str, Any] = {} if about is None else about
        self._errors = profile.errors if errors is None else errors
        if keepalive is not None:
            self._beats = _beats_of(keepalive, profile.beat)
            if options.get("first_item_within") is None:
                # Beats come after a status, and a proxy that waits for them cuts what is silent.
                options["first_item_within"] = min(keepalive, _FIRST_ITEM_WITHIN)
        super().__init__(
            source,
            final=cast("Any", final),
            headers=headers,
            media_type=profile.media_type,
            **options,
        )

    def _make_outlet(self) -> Outlet:
        if self._profile.begin is None and self._profile.fold is None:
            return EventOutlet(self._profile)
        return RememberingOutlet(self._profile, self._about)

    def _said_last(self, final: Callable[[Outcome], Any] | None) -> Callable[[Outcome], Any]:
        said = self._profile.final if final is None else encoded_final(final, self._profile)
        # The last items may depend on the earlier ones.
        return (
            partial(self._outlet.last, said)
            if isinstance(self._outlet, RememberingOutlet)
            else said
        )

    def _own_headers(self, media_type: str | None) -> RawHeaders:
        return _headers_of(self._profile, media_type)

    def _opening(self) -> bytes:
        return b"" if self._beats is None else bytes(self._profile.beat)

    def _refusal(self, *, closes: bool) -> Refusal:
        in_band = self._say_later if self._errors == "event" else None
        return Refusal(in_band, self._terms.headers, closes=closes)

    def _say_later(self) -> bytes:
        return b"".join(self._profile.refusal() or ())


@lru_cache(maxsize=64)
def _headers_of(profile: Profile, media_type: str | None) -> RawHeaders:
    return merged(default_headers(media_type), raw(profile.headers))


class RunEvents(EventStream):
    """
    An answer of server-sent events that reads a run: an :class:`EventStream` of
    :meth:`Runs.attach() <streamkit.runs.Runs.attach>`, whose clients may go and come back.

    The client says where it goes on: by ``Last-Event-ID``, as an ``EventSource`` does, or else by
    ``?starting_after=``, with the ``id`` of the last event that it has seen, or with a position.
    Each event of an item has such an id. So has the end, so that a client that comes back between
    the last item and the end receives the end. The end is that of the run, told as the profile
    tells it, and the same for every reader. When a client goes, the run goes on.

    The status of the answer is

    * 200, or that of the run's :class:`~streamkit.Head` for a client that reads from the beginning,
      if there is something to read, or the run goes on;
    * 204 if the client has seen the end: an ``EventSource`` then stops;
    * 400 if what the client sends is not a position in a run;
    * 404 if there is no such run, or none of this ``owner``;
    * 410 if items that the client has not seen are missing, or it has seen items of another run
      with this id. The body says what is kept: ``{"code": ..., "first": ..., "last": ...}``
    * 503 with a ``Retry-After`` if the log is away, or the program ends.

    An ``EventSource`` gives up for good on any status except 200. So with ``errors="event"``, the
    choice of :data:`BROWSER`, events tell it of the last three cases: ``resync``, and then the
    kept items; an end of the kind ``gone``; and the advice to come back. What happens later, and is
    not the end of the run, is told in the same way, or else cuts the connection, so that it does
    not look like an end.

    ``HEAD`` has the same status. No answer is stored by a cache.

    :param runs: the runs, entered in the lifespan of the application
    :param run_id: the id of the run
    :param owner: who reads. If the run was started with another owner, there is no such run
    :param profile: as for :class:`EventStream`
    :param about: as for :class:`EventStream`, in addition to the ``"run_id"`` and the ``"epoch"``,
        which are there. It must be the same in all requests that should be told the same
    :param keepalive: as for :class:`EventStream`
    :param errors: how a client is told that it cannot read, or not go on: by the ``"status"``, or
        by an ``"event"``. ``None``: as the profile says
    :param max_age: seconds after which the body ends without an end of the run, give or take a
        tenth, before a proxy would cut it. The client comes back by itself, so this is for profiles
        whose clients do
    :param location: for the answer to the request that has started the run: the URL at which its
        client comes back, with ``{run_id}`` instead of the id. It is sent as ``Location``, whatever
        the status, because the run goes on even if its first reader is refused
    :param final: called with the :class:`~streamkit.Outcome` of the run, instead of
        :meth:`Profile.final`
    :param headers: as for :class:`EventStream`
    :param options: further options of :class:`EventStream`, except for ``on_disconnect``,
        ``drain_timeout`` and ``on_end``, which belong to :meth:`Runs.start()
        <streamkit.runs.Runs.start>`
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is out of range, or the profile has no events for its errors, or
        its clients do not come back

    """

    def __init__(
        self,
        runs: Runs,
        run_id: str,
        *,
        owner: str | None = None,
        profile: Profile = BROWSER,
        about: Mapping[str, Any] | None = None,
        keepalive: float | None = 15.0,
        errors: Literal["status", "event"] | None = None,
        max_age: float | None = None,
        location: str | None = None,
        final: Callable[[Outcome], object] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        **options: Unpack[ResponseOptions],
    ) -> None:
        _check_runs(runs)
        check_text("run_id", run_id)
        if owner is not None:
            check_text("owner", owner)
        refuse_misplaced(type(self).__qualname__, options, OF_A_RUN)
        check_said(profile, about, errors)
        _check_final(final)
        if max_age is not None:
            seconds("max_age", max_age, positive=True)
            _check_reconnects(profile)
        if profile.begin is not None:
            # A missing argument is an error now, and not for the client.
            profile.begun({"run_id": run_id, "epoch": "", **(about or {})})
        answer = Answer(
            runs,
            run_id,
            owner,
            profile,
            {} if about is None else about,
            (profile.errors if errors is None else errors) == "event",
            max_age,
            partial(said_last, profile) if final is None else encoded_final(final, profile),
        )
        options["on_disconnect"] = "close"
        if options.get("host") is None:
            options["host"] = runs.host
        super().__init__(
            with_stage(answer.content(), answer.ahead),
            profile=profile,
            about=about,
            keepalive=keepalive,
            errors=errors,
            final=partial(_said_of_reading, profile, answer),
            headers=_with_own(headers, None if location is None else url_of(location, run_id)),
            **options,
        )
        answer.outlet = self._outlet
        self._answer, self._runs = answer, runs
        terms = self._terms
        terms.asks_for_head, terms.tell = True, runs.shut_down
        terms.name, terms.told = type(self).__name__, answer.told

    def _make_outlet(self) -> Outlet:
        # The items that it is given are encoded.
        return Outlet()

    def _refusal(self, *, closes: bool) -> Refusal:
        in_band = self._say_later if self._errors == "event" else None
        json = b'{"code":"unavailable"}'
        return Refusal(in_band, self._terms.headers, closes=closes, json=json)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer a request.

        Returns when the client has gone, or has been told everything.

        :raises RuntimeError: if the runs were not entered, and like
            :meth:`streamkit.asgi.StreamResponse.__call__`
        :raises BaseException: like :meth:`streamkit.asgi.StreamResponse.__call__`, and what can
            only be told by a cut

        """
        self._runs.check_open()
        self._runs.note(scope)
        self._answer.scope = scope
        await super().__call__(scope, receive, send)


def _check_runs(given: object) -> None:
    if not isinstance(given, Runs):
        raise TypeError(
            f"RunEvents takes runs and the id of one, got {type(given).__qualname__}: write "
            "RunEvents(runs, run.id)"
        )


def _check_reconnects(profile: Profile) -> None:
    if not profile.reconnects:
        raise ValueError(
            f"the clients of {profile.name} do not reconnect by themselves after max_age: write it "
            "for clients that do, with profile=BROWSER, for instance"
        )


def _said_of_reading(profile: Profile, answer: Answer, outcome: Outcome) -> list[Frame] | None:
    """Return the last word of the reading, which includes the end of the run."""
    if outcome.kind == "completed":
        return []
    return None if isinstance(outcome.error, CUTS) else profile.final(outcome, state=answer.state)


def _with_own(
    headers: Mapping[str, str] | Iterable[tuple[str, str]], location: str | None
) -> list[tuple[str, str]]:
    """Add the headers of an answer that reads a run to others, which take precedence."""
    given = list(
        cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    )
    own = {"cache-control": "no-store, no-transform"}
    if location is not None:
        own["location"] = location
    said = {name.lower() for name, _ in given}
    return [*((name, value) for name, value in own.items() if name not in said), *given]


name_publicly(globals())
