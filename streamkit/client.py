"""
Read a stream over HTTP, and reconnect when it is cut. Needs the extra ``client``.

:func:`connect` makes a stream of the :class:`Event` objects that a server sends. Its ``last_word``
is a function that recognizes the last event: :func:`browser_end`, :func:`json_lines_end`,
:func:`openai_chat_end`, :func:`openai_responses_end`, :func:`anthropic_end`, :func:`vercel_ui_end`
or :func:`ag_ui_end`. The stream raises :exc:`Refused`, :exc:`StreamCut` and :exc:`TooLong`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, overload

from ._core.arguments import check_plain, positive, seconds
from ._core.extras import without_extra
from ._core.metadata import Head
from ._core.public import name_publicly
from ._core.stage import Stage
from ._core.stream import Stream, with_stage
from ._sse.events import BREAKS

try:
    import httpx2

    from ._client.asking import Asking
    from ._client.connection import Connection
except ImportError as _error:
    raise without_extra("streamkit.client", "client", "httpx2", _error) from _error

from ._client.errors import Refused as Refused, StreamCut as StreamCut, TooLong as TooLong
from ._client.event import Event as Event
from ._client.words import (
    LastWord as _LastWord,
    ag_ui_end as ag_ui_end,
    anthropic_end as anthropic_end,
    browser_end as browser_end,
    json_lines_end as json_lines_end,
    openai_chat_end as openai_chat_end,
    openai_responses_end as openai_responses_end,
    vercel_ui_end as vercel_ui_end,
)

__all__ = [
    "Event",
    "Refused",
    "StreamCut",
    "TooLong",
    "ag_ui_end",
    "anthropic_end",
    "browser_end",
    "connect",
    "json_lines_end",
    "openai_chat_end",
    "openai_responses_end",
    "vercel_ui_end",
]


@overload
def connect(
    client: httpx2.AsyncClient,
    url: httpx2.URL | str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    params: Any = None,
    json: Any = None,
    content: str | bytes | None = None,
    data: Mapping[str, Any] | None = None,
    auth: Any = None,
    last_word: _LastWord | None = browser_end,
    last_event_id: str = "",
    resume: httpx2.URL | str | None = None,
    idle: float = 45.0,
    attempts: int = 10,
    max_size: int = 16 * 1024 * 1024,
    head: None = None,
) -> Stream[Event]: ...
@overload
def connect(
    client: httpx2.AsyncClient,
    url: httpx2.URL | str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    params: Any = None,
    json: Any = None,
    content: str | bytes | None = None,
    data: Mapping[str, Any] | None = None,
    auth: Any = None,
    last_word: _LastWord | None = browser_end,
    last_event_id: str = "",
    resume: httpx2.URL | str | None = None,
    idle: float = 45.0,
    attempts: int = 10,
    max_size: int = 16 * 1024 * 1024,
    head: Iterable[str],
) -> Stream[Event | Head]: ...
def connect(
    client: httpx2.AsyncClient,
    url: httpx2.URL | str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    params: Any = None,
    json: Any = None,
    content: str | bytes | None = None,
    data: Mapping[str, Any] | None = None,
    auth: Any = None,
    last_word: _LastWord | None = browser_end,
    last_event_id: str = "",
    resume: httpx2.URL | str | None = None,
    idle: float = 45.0,
    attempts: int = 10,
    max_size: int = 16 * 1024 * 1024,
    head: Iterable[str] | None = None,
) -> Stream[Event] | Stream[Event | Head]:
    """
    Read an endpoint of server-sent events, or of JSON lines, as a stream of :class:`Event`.

    The function ``last_word`` recognizes the last event, after which the stream ends. A body that
    ends earlier was cut, and so was a body that is silent for ``idle`` seconds. Then a ``GET``
    is sent again, unchanged, with the id of the last event as ``Last-Event-ID``: an endpoint that
    takes it goes on after that event, and nothing is lost or doubled. An endpoint without ids
    begins anew, as with an ``EventSource``.

    Any other method is sent once. The client goes on by ``GET``: at the ``Location`` of its answer,
    if that is of the same origin, or at ``resume``. Without either, or without ids, a cut raises
    :exc:`StreamCut`. So does a cut in JSON lines, which have no ids.

    The client waits as ``retry:`` in the stream and ``Retry-After`` say, plus up to half a second:
    twice as much after each attempt that brings no event, up to half a minute. The status 204 ends
    the stream. An answer that is not a stream raises :exc:`Refused`. But if the client can go on, a
    status of 500 or more is an attempt that brings nothing, and so is 301, 302 or 303.

    Only ``stream()`` of the client is used, with the client's settings, except that the read
    timeout is ``idle``, a ``GET`` follows redirects, and no compression is asked for. The client
    must stay open while the stream is open.

    :param client: an open client of httpx2
    :param url: the URL of the endpoint
    :param method: the method of the first request
    :param headers: headers of each request; an ``Accept`` and an ``Accept-Encoding`` are added
    :param params: for the query of ``url``
    :param json: the body, as JSON; for any method except ``GET``, like the next two
    :param content: the body, as it is
    :param data: the body, as a form
    :param auth: the credentials of each request, as in httpx2
    :param last_word: called with each event. Returns whether it is the last, or ``None`` if the
        server asks its clients to come back and the event should not be passed on. Give ``None``
        instead of a function if the server has no last word: the end of a body is then the end
    :param last_event_id: the id of the last event that was read, to go on after it
    :param resume: the URL to go on at after a method other than ``GET``, instead of a ``Location``
    :param idle: seconds of silence after which a body was cut: more than the server leaves between
        its beats
    :param attempts: how many attempts in a row may bring nothing at all before :exc:`StreamCut`
    :param max_size: the most bytes in a line and in an event; more raise :exc:`TooLong`
    :param head: names of headers, for a response that should answer as the server does: a
        :class:`~streamkit.Head` comes first, with the status of the first answer and those of these
        headers that it has. ``None`` for no ``Head``
    :return: a stream, for all combinators and for a response
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a number is out of range, or a ``GET`` has a body

    """
    if not isinstance(client, httpx2.AsyncClient):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"client must be an httpx2.AsyncClient, got {_name_of(client)}: write 'async with "
            "httpx2.AsyncClient() as client:'"
        )
    if last_word is not None and not callable(last_word):
        raise TypeError(
            f"last_word must be callable, got {type(last_word).__qualname__}: write "
            "last_word=browser_end, for instance"
        )
    if last_word is not None:
        check_plain("last_word", last_word)
    if not BREAKS.isdisjoint(last_event_id.encode()):
        raise ValueError(
            "last_event_id must be one line without NUL: write last_event_id=event.id, with the "
            "last event that was read"
        )
    seconds("idle", idle, positive=True)
    positive("attempts", attempts)
    positive("max_size", max_size)
    method = method.upper()
    given = {"params": params, "json": json, "content": content, "data": data, "auth": auth}
    options = {name: value for name, value in given.items() if value is not None}
    if method == "GET":
        _check_get(options, resume)
    if isinstance(head, str):
        raise TypeError(f"head takes names of headers, got str: write head=[{head!r}]")
    own = httpx2.Headers(headers)
    if "last-event-id" in own:
        raise ValueError("the id changes: write last_event_id='...' instead of a header")
    asking = Asking(method, url, own, options, resume)
    connection = Connection(
        client,
        asking,
        idle=idle,
        attempts=attempts,
        last_word=last_word,
        max_size=max_size,
        last_event_id=last_event_id,
        head=None if head is None else tuple(head),
    )
    return with_stage(connection.events(), Stage[Event | Head, Event | Head]())


def _check_get(options: Mapping[str, Any], resume: object) -> None:
    for name in ("json", "content", "data"):
        if name in options:
            raise ValueError(f"a GET has no body: write connect(..., method='POST', {name}=...)")
    if resume is not None:
        raise ValueError("a GET goes on where it was: write resume=... for a POST alone")


def _name_of(value: object) -> str:
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


name_publicly(globals())
