"""
Answer a request of Starlette or FastAPI with a stream: return one of these from the endpoint.

They are the responses of :mod:`streamkit.asgi`, :mod:`streamkit.sse` and
:mod:`streamkit.jsonlines`, and responses of Starlette at the same time:

* :class:`EventStream`: server-sent events
* :class:`JsonLines`: one JSON record a line
* :class:`StreamResponse`: any other body
* :class:`RunEvents`: server-sent events that read a run of :mod:`streamkit.runs`
* :class:`WebSocketStream`, :class:`RunMessages`: the same over a WebSocket. The endpoint awaits
  ``serve()`` and returns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, Never, Unpack

from . import asgi, jsonlines, sse, websocket
from ._core.arguments import check_status
from ._core.extras import without_extra
from ._core.metadata import Head
from ._core.outcome import Outcome
from ._core.source import AsyncSource
from ._http.headers import RawHeaders
from ._http.messages import Message, Receive, Scope, Send
from ._http.outlet import Content
from ._sse.misplaced import by_name
from .asgi import LastWord, ResponseOptions
from .runs import Runs
from .sse import BROWSER, Profile

try:
    from starlette.background import BackgroundTask
    from starlette.responses import Response
    from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
except ImportError as _error:
    raise without_extra("streamkit.starlette", "starlette", "starlette", _error) from _error

__all__ = [
    "EventStream",
    "JsonLines",
    "RunEvents",
    "RunMessages",
    "StreamResponse",
    "WebSocketStream",
]


class StreamResponse(asgi.StreamResponse, Response):
    """
    A :class:`streamkit.asgi.StreamResponse` that is a response of Starlette, too.

    Until it starts, all that holds for a response of Starlette holds for it: ``status_code``,
    ``headers``, ``background`` and cookies may be set. An :exc:`Exception` before the first item is
    raised where Starlette calls the response, so that exception handlers answer it as if it came
    from the endpoint. The source is closed before the dependencies of FastAPI are.

    On a route of FastAPI, ``response_class`` only tells the documentation what is returned. An
    endpoint that yields cannot return a response: give another generator to the response.

    :param source: an async iterable of ``bytes``, ``str`` or ``memoryview``, an async context
        manager that yields one, or a stream; owned and closed by the response
    :param status_code: the status, unless the source yields a :class:`~streamkit.Head`
    :param headers: headers of the response, which may replace the default ones
    :param media_type: the content type. With ``None``, it is the class attribute of this name,
        which is ``"text/plain"`` here; if that is ``None``, there is none. As everywhere in
        Starlette, text is declared as UTF-8.
    :param background: called and awaited when the source is closed, also if the client has gone. It
        is not called if the response raises an error. If a host drains the stream, it runs in the
        host, after the request has ended.
    :param final: called with the :class:`~streamkit.Outcome`. Returns the last item, or several in
        a list, a tuple or an iterator; with ``None``, the outcome is raised if it is an error
    :param options: ``on_end``, ``on_disconnect``, ``grace``, ``host`` and all further options of
        :class:`streamkit.asgi.StreamResponse`
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if ``status_code`` is not from 200 to 599, a time is negative or not finite,
        or a header is not valid

    """

    media_type: str | None = "text/plain"
    raw_headers: RawHeaders

    def __init__(
        self,
        source: AsyncSource[Content | Head],
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        final: Callable[[Outcome], LastWord] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        if media_type is not None:
            self.media_type = media_type
        super().__init__(
            source,
            headers=headers,
            media_type=_with_charset(self.media_type, self.charset),
            final=final,
            **options,
        )
        check_status("status_code", status_code)
        self.status_code = status_code
        self.background = background
        self.raw_headers = self._terms.headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer a request.

        Returns when the source is closed and ``background`` has run, or when the stream is drained
        by a host.

        :raises BaseException: what :meth:`streamkit.asgi.StreamResponse.__call__` raises, and what
            ``background`` raised

        """
        check_status("status_code", self.status_code)
        # Only now: until here, an endpoint may change them, and FastAPI does.
        terms = self._terms
        terms.status, terms.headers = self.status_code, self.raw_headers
        terms.background = self.background
        await super().__call__(scope, receive, send)


class EventStream(sse.EventStream, StreamResponse):
    """
    Server-sent events: a :class:`streamkit.sse.EventStream` that is a response of Starlette, too.

    Items are encoded as the profile says. While the source is silent, the client receives beats; at
    the end, it is told how the stream ended.

    :param source: an async iterable of items, of :class:`~streamkit.sse.ServerSentEvent` or of
        :class:`~streamkit.sse.Frame`; an async context manager that yields one; or a stream. Owned
        and closed by the response. It may yield a :class:`~streamkit.Head` first
    :param profile: the kind of client: one of ``streamkit.sse``, or one of your own
    :param about: the data for :attr:`Profile.begin <streamkit.sse.Profile.begin>`, if the profile
        has it
    :param keepalive: seconds of silence before each beat, or ``None`` for no beats
    :param errors: how a client is told that its stream does not start, because the program ends or
        too many are open: by the ``"status"`` 503, or by an ``"event"`` with the status 200.
        ``None``: as the profile says
    :param status_code: the status, unless the source yields a :class:`~streamkit.Head`
    :param headers: headers of the response, which may replace those of the profile
    :param background: called and awaited when the source is closed, as for :class:`StreamResponse`
    :param final: called with the :class:`~streamkit.Outcome`, instead of
        :meth:`Profile.final() <streamkit.sse.Profile.final>`. Returns what to send last: an item,
        several in a list, a tuple or an iterator, or ``None``
    :param options: ``on_end``, ``on_disconnect``, ``grace``, ``host`` and all further options of
        :class:`streamkit.asgi.StreamResponse`, except for ``media_type``
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if ``status_code`` is not from 200 to 599, a time is out of range, or a
        header is not valid

    """

    media_type: str | None = "text/event-stream"

    @by_name
    def __init__(
        self,
        source: AsyncSource[Any],
        *misplaced: Never,
        profile: Profile = BROWSER,
        about: Mapping[str, Any] | None = None,
        keepalive: float | None = 15.0,
        errors: Literal["status", "event"] | None = None,
        status_code: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        background: BackgroundTask | None = None,
        final: Callable[[Outcome], object] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        super().__init__(
            source,
            *misplaced,
            profile=profile,
            about=about,
            keepalive=keepalive,
            errors=errors,
            headers=headers,
            final=final,
            **options,
        )
        check_status("status_code", status_code)
        self.status_code = status_code
        self.background = background


class JsonLines(jsonlines.JsonLines, StreamResponse):
    """
    JSON lines: a :class:`streamkit.jsonlines.JsonLines` that is a response of Starlette, too.

    Each item is one record on a line. The last record tells how the stream ended.

    :param source: an async iterable of items for which there is JSON, an async context manager that
        yields one, or a stream. Owned and closed by the response. It may yield a
        :class:`~streamkit.Head` first
    :param beat: a record that is sent while the source is silent, which clients know and drop;
        ``None`` for no beats
    :param keepalive: seconds of silence before each beat, if there is one
    :param end_key: the key of the last record
    :param encoder: called with a value for which there would be no JSON, wherever in an item it is.
        Returns a value for which there is, or raises :exc:`TypeError`
    :param status_code: the status, unless the source yields a :class:`~streamkit.Head`
    :param headers: headers of the response
    :param background: called and awaited when the source is closed, as for :class:`StreamResponse`
    :param final: called with the :class:`~streamkit.Outcome`, instead of the last record. Returns
        what to send last: a record, several in a list, a tuple or an iterator, or ``None``
    :param options: ``on_end``, ``on_disconnect``, ``grace``, ``host`` and all further options of
        :class:`streamkit.asgi.StreamResponse`, except for ``media_type``
    :raises TypeError: if an argument is of the wrong type, or a beat is not an object
    :raises ValueError: if ``status_code`` is not from 200 to 599, a time is out of range, a header
        is not valid, or the key is empty

    """

    media_type: str | None = "application/x-ndjson"

    def __init__(
        self,
        source: AsyncSource[Any],
        *,
        beat: object = None,
        keepalive: float = 15.0,
        end_key: str = "end",
        encoder: Callable[[Any], object] | None = None,
        status_code: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        background: BackgroundTask | None = None,
        final: Callable[[Outcome], object] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        super().__init__(
            source,
            beat=beat,
            keepalive=keepalive,
            end_key=end_key,
            encoder=encoder,
            headers=headers,
            final=final,
            **options,
        )
        check_status("status_code", status_code)
        self.status_code = status_code
        self.background = background


class RunEvents(sse.RunEvents, EventStream):
    """
    A run as server-sent events: a :class:`streamkit.sse.RunEvents` that is a response of Starlette,
    too.

    The client reads from where it says, by ``Last-Event-ID`` or ``?starting_after=``, and may come
    back. The status is that of the run: see :class:`streamkit.sse.RunEvents`.

    :param runs: the runs, entered in the lifespan of the application
    :param run_id: the id of the run
    :param owner: who reads. If the run was started with another owner, there is no such run
    :param profile: the kind of client: one of ``streamkit.sse``, or one of your own
    :param about: the data for :attr:`Profile.begin <streamkit.sse.Profile.begin>`, in addition to
        ``"run_id"`` and ``"epoch"``
    :param keepalive: seconds of silence before each beat, or ``None`` for no beats
    :param errors: how a client is told that it cannot read, or not go on: by the ``"status"``, or
        by an ``"event"``. ``None``: as the profile says
    :param max_age: seconds after which the body ends without an end of the run, give or take a
        tenth, before a proxy would cut it. The client reconnects by itself
    :param location: the URL at which the client may come back, with ``{run_id}`` for the id, for
        the answer to the request that has started the run
    :param headers: headers of the response, which may replace those of the profile
    :param background: called and awaited when the client has gone or was told everything
    :param final: called with the :class:`~streamkit.Outcome` of the run, instead of
        :meth:`Profile.final() <streamkit.sse.Profile.final>`
    :param options: ``host``, ``send_timeout`` and further options of
        :class:`streamkit.asgi.StreamResponse` that do not decide what becomes of the source
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is out of range, or the profile does not fit the options

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
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        background: BackgroundTask | None = None,
        final: Callable[[Outcome], object] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        super().__init__(
            runs,
            run_id,
            owner=owner,
            profile=profile,
            about=about,
            keepalive=keepalive,
            errors=errors,
            max_age=max_age,
            location=location,
            headers=headers,
            final=final,
            **options,
        )
        self.background = background


class WebSocketStream(asgi.WebSocketStream):
    """
    A :class:`streamkit.asgi.WebSocketStream` for an endpoint of Starlette or FastAPI::

        @app.websocket("/answer")
        async def answer(websocket: WebSocket) -> None:
            await WebSocketStream(source()).serve(websocket)

    It makes the handshake itself. If the endpoint must read something first, it calls
    ``await websocket.accept()`` and reads it: the stream then goes on from there, and a refusal is
    told by the close. After that, nothing else may read from the socket.

    :param source: an async iterable of items, an async context manager that yields one, or a
        stream. Owned and closed by the response. It may yield a :class:`~streamkit.Head` first
    :param headers: headers of the handshake, or of the response that replaces it
    :param subprotocols: the supported ones. The first one that the client offers is chosen
    :param stop: called with each message of the client. Returns whether it is a stop, or the
        reason for one. By default, ``{"type": "stop", "reason": "..."}`` is. ``None`` for no stop
    :param errors: how a client is told that there is no stream for it: by a ``"status"``, or by a
        handshake and a ``"close"``
    :param accepted: is found out by :meth:`serve`
    :param beat: an item that is sent while the source is silent; ``None`` for no beats
    :param keepalive: seconds of silence before each beat, if there is one
    :param encoder: called with a value for which there would be no JSON, wherever in an item it is.
        Returns a value for which there is, or raises :exc:`TypeError`
    :param final: called with the :class:`~streamkit.Outcome`. Returns the last message: an item,
        several in a list, a tuple or an iterator, or ``None``
    :param options: ``on_end``, ``on_disconnect``, ``grace``, ``host`` and all further options of
        :class:`streamkit.asgi.StreamResponse`, except for ``media_type`` and ``receive``
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is negative or not finite, or a header is not valid

    """

    async def serve(self, websocket: WebSocket) -> None:
        """
        Send the stream over a socket, and close the socket.

        Returns when the source is closed, or when it is drained by a host.

        :param websocket: the socket of the endpoint
        :raises BaseException: like :meth:`streamkit.asgi.StreamResponse.__call__`
        :raises RuntimeError: if the socket was closed before, and like
            :meth:`streamkit.asgi.StreamResponse.__call__`

        """
        self._accepted = _is_accepted(websocket)
        receive, send = _receiver(websocket), _sender(websocket)
        try:
            await self(websocket.scope, receive, send)
        finally:
            # The traceback of an error includes this frame.
            del receive, send, websocket


class RunMessages(websocket.RunMessages, WebSocketStream):
    """
    A run over a WebSocket: a :class:`streamkit.websocket.RunMessages` for an endpoint of Starlette
    or FastAPI, which awaits its :meth:`~WebSocketStream.serve`.

    :param runs: the runs, entered in the lifespan of the application
    :param run_id: the id of the run
    :param owner: who reads, if the run has an owner
    :param headers: as for :class:`WebSocketStream`
    :param subprotocols: as for :class:`WebSocketStream`
    :param stop: as for :class:`WebSocketStream`. A stop is for the run, in whichever process it is;
        ``None`` for clients that may only read
    :param errors: as for :class:`WebSocketStream`
    :param accepted: as for :class:`WebSocketStream`
    :param beat: as for :class:`WebSocketStream`
    :param keepalive: as for :class:`WebSocketStream`
    :param encoder: as for :class:`WebSocketStream`
    :param options: ``host``, ``send_timeout`` and further options of
        :class:`streamkit.asgi.StreamResponse` that do not decide what becomes of the source
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is out of range, or a header is not valid

    """


def _is_accepted(websocket: WebSocket) -> bool:
    state = websocket.application_state
    if state not in (WebSocketState.CONNECTING, WebSocketState.CONNECTED):
        raise RuntimeError(
            "the WebSocket is already closed: let the stream close it, or yield a Head from the "
            "source to refuse it"
        )
    return state is WebSocketState.CONNECTED


def _receiver(websocket: WebSocket) -> Receive:
    async def receive() -> Message:
        if websocket.client_state is WebSocketState.DISCONNECTED:
            # The endpoint may have read it, and Starlette gives it only once.
            return {"type": "websocket.disconnect", "code": 1006}
        return await websocket.receive()

    return receive


def _sender(websocket: WebSocket) -> Send:
    async def send(message: Message) -> None:
        try:
            await websocket.send(message)
        except WebSocketDisconnect as exc:
            raise ConnectionResetError("the client has gone") from exc

    return send


@lru_cache(maxsize=64)
def _with_charset(media_type: str | None, charset: str) -> str | None:
    if media_type is None or not media_type.startswith("text/") or "charset=" in media_type.lower():
        return media_type
    return f"{media_type}; charset={charset}"
