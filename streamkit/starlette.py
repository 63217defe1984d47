"""
Answer a request of Starlette or FastAPI with a stream: return one of these from the endpoint.

They are those of :mod:`streamkit.asgi`, :mod:`streamkit.sse` and :mod:`streamkit.jsonlines`, and
responses of Starlette at the same time. An endpoint of a WebSocket returns nothing: it awaits one
of the two that are for sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Unpack

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

    What holds for any response of Starlette holds for it until it starts: ``status_code``,
    ``headers`` and ``background`` may be set, and cookies. An :exc:`Exception` before the first
    item is raised where Starlette calls the response, so that exception handlers answer it as if it
    came from the endpoint. The source is closed before the dependencies of FastAPI are.

    Of FastAPI's route, ``response_class`` only tells the documentation what is returned. An
    endpoint that yields is none that returns a response: make the response of another generator.

    :param source: as for :class:`streamkit.asgi.StreamResponse`
    :param status_code: the status, unless the source yields a :class:`~streamkit.Head`
    :param headers: as for :class:`streamkit.asgi.StreamResponse`
    :param media_type: the content type. With ``None``, it is the class attribute of this name,
        which is ``"text/plain"`` here; if that is ``None``, there is none. As everywhere in
        Starlette, a text is said to be UTF-8.
    :param background: called and awaited when the source is closed, also if the client has gone. It
        is not called if the response raises an error. Where a host drains the stream, it runs
        there, when the request has ended.
    :param final: as for :class:`streamkit.asgi.StreamResponse`
    :param options: further options of :class:`streamkit.asgi.StreamResponse`
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if ``status_code`` is not from 200 to 599, a time is negative or not finite,
        or a header none

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

        :raises BaseException: as :meth:`streamkit.asgi.StreamResponse.__call__`, and what
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
    A :class:`streamkit.sse.EventStream` that is a response of Starlette, too.

    It is to :class:`streamkit.sse.EventStream` what :class:`StreamResponse` is to
    :class:`streamkit.asgi.StreamResponse`, and takes ``status_code`` and ``background`` like that.
    """

    media_type: str | None = "text/event-stream"

    @by_name
    def __init__(
        self,
        source: AsyncSource[Any],
        *,
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
    A :class:`streamkit.jsonlines.JsonLines` that is a response of Starlette, too.

    It is to :class:`streamkit.jsonlines.JsonLines` what :class:`StreamResponse` is to
    :class:`streamkit.asgi.StreamResponse`, and takes ``status_code`` and ``background`` like that.
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
    A :class:`streamkit.sse.RunEvents` that is a response of Starlette, too.

    It is to :class:`streamkit.sse.RunEvents` what :class:`EventStream` is to
    :class:`streamkit.sse.EventStream`, and takes ``background`` like that. The status is that of
    the run.
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

    It makes the handshake itself. Where the endpoint has to read something first, it calls
    ``await websocket.accept()`` and reads it: the stream then goes on from there, and a refusal is
    told by the close. From there on, nobody else reads.
    """

    async def serve(self, websocket: WebSocket) -> None:
        """
        Send the stream over a socket, and close that.

        Returns when the source is closed, or when it is drained by a host.

        :param websocket: that of the endpoint
        :raises BaseException: as :meth:`streamkit.asgi.StreamResponse.__call__`
        :raises RuntimeError: if the socket was closed before, and as
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
    A :class:`streamkit.websocket.RunMessages` for an endpoint of Starlette or FastAPI: see
    :class:`WebSocketStream`.
    """


def _is_accepted(websocket: WebSocket) -> bool:
    state = websocket.application_state
    if state not in (WebSocketState.CONNECTING, WebSocketState.CONNECTED):
        raise RuntimeError(
            "the WebSocket was closed before: let the stream close it, or yield a Head from the "
            "source to refuse it"
        )
    return state is WebSocketState.CONNECTED


def _receiver(websocket: WebSocket) -> Receive:
    async def receive() -> Message:
        if websocket.client_state is WebSocketState.DISCONNECTED:
            # It may have been read by the endpoint, and Starlette gives it once.
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


def _with_charset(media_type: str | None, charset: str) -> str | None:
    if media_type is None or not media_type.startswith("text/") or "charset=" in media_type.lower():
        return media_type
    return f"{media_type}; charset={charset}"
