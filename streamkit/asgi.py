"""
Answer an HTTP request with a stream: for any ASGI server and framework, on asyncio and on trio.

:class:`StreamResponse` answers one request, :class:`WebSocketStream` one WebSocket.
:class:`StreamHost` is entered in the lifespan: it ends all streams of an application at shutdown,
and drains those whose clients have gone. :class:`SharedReceive` is for a source that reads its own
request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, cast

from ._combinators.keepalive import beats_of as _beats_of
from ._combinators.status import StatusStream, status_above
from ._core.arguments import refuse_misplaced, seconds
from ._core.metadata import Head
from ._core.outcome import Outcome
from ._core.public import name_publicly
from ._core.source import AsyncSource
from ._core.stage import Stage
from ._core.telemetry import Telemetry, check_telemetry
from ._http.exchange import Exchange
from ._http.headers import RawHeaders, default_headers, merged, raw
from ._http.home import HostStats as HostStats
from ._http.host import StreamHost as StreamHost
from ._http.last_word import LastWord as _LastWord
from ._http.messages import Receive, Scope, Send
from ._http.outlet import Content, Outlet
from ._http.refusal import Overloaded as Overloaded, Refusal
from ._http.returned import UNSERIALIZABLE, Returned
from ._http.shared_receive import SharedReceive as SharedReceive
from ._http.terms import (
    FIRST_ITEM_WITHIN as _FIRST_ITEM_WITHIN,
    Disconnected as Disconnected,
    ResponseCancelled as ResponseCancelled,
    Terms,
    check_final as _check_final,
)
from ._http.watched import watched
from ._signals.shutdown import Shutdown as Shutdown
from ._websocket.arguments import OF_SOCKETS, check_told
from ._websocket.exchange import SocketExchange
from ._websocket.outlet import SocketOutlet
from ._websocket.stops import check_stop as _check_stop, stop_in as _stop_in

__all__ = [
    "Disconnected",
    "HostStats",
    "Overloaded",
    "ResponseCancelled",
    "ResponseOptions",
    "SharedReceive",
    "Shutdown",
    "StreamHost",
    "StreamResponse",
    "WebSocketStream",
]

#: What ``final`` may return: one item, several in a list, a tuple or an iterator, or nothing.
LastWord: TypeAlias = Content | Sequence[Content] | Iterator[Content] | None

_Final: TypeAlias = Callable[[Outcome], Any] | None

# Seconds until the handshake, whatever the source does: a client waits for ten or so.
_HANDSHAKE_WITHIN = 5.0


class ResponseOptions(TypedDict, total=False):
    """
    The options of a :class:`StreamResponse` that do not concern its content: all responses that are
    built on it take them, too.
    """

    first_item_within: float | None
    on_end: Callable[[Outcome], Awaitable[object]] | None
    on_end_timeout: float
    on_disconnect: Literal["cancel", "drain", "close"]
    grace: float
    finish: float | None
    drain_timeout: float
    send_timeout: float | None
    log_failures: bool
    receive: SharedReceive | None
    host: StreamHost | None
    telemetry: Telemetry | None


class StreamResponse(Returned):
    """
    An answer to an HTTP request whose body is a stream: an ASGI application for one request.

    It enters the stream itself, in the task of the request, so an endpoint returns it as it is. The
    status comes from the :class:`~streamkit.Head` that the source may yield first; without one it
    is 200, sent with the first item, at the end, or after ``first_item_within`` seconds. Beats are
    sent after the status, and do not decide it. Nothing is read ahead of the client, unless the
    source is :func:`~streamkit.with_buffer`.

    An error before the first item is raised from the call, the same object, before anything has
    been sent: a framework answers it like any error of an endpoint. Later, ``final`` has the last
    word in the body, for each kind of outcome. If it has none for an outcome that raises, the
    exception is raised from the call, and the server cuts the connection, which never looks like a
    complete answer. A failure that ``final`` tells the client is logged under ``streamkit``. So is
    the failure of an ``on_end``, which ``final`` finds in ``outcome.on_end_error``. A cancellation
    is not an error: if it comes before the first item and ``final`` has a last word, this is sent
    with status 200.

    An answer with the status 204, 205 or 304 has no body: no beat is sent, ``final`` is not called,
    and an item is an error.

    When the client goes, as ``receive()`` or ``send()`` tells, nothing more is sent, and
    ``on_disconnect`` decides:

    * ``"cancel"``: the source is told ``StreamCancelled(Disconnected())`` and has its ``grace``.
    * ``"drain"``: the source runs on to its end, and its items are dropped. After
      ``drain_timeout`` seconds it is told as above. With a ``host``, the request ends at once, and
      an error that comes later is logged; without one, it lasts until the source is closed.
    * ``"close"``: the stream is left, as at the end of a block.

    An error of the source is still raised from the call; a client that has gone is not an error. A
    cancellation of the request task closes the stream and goes on. ``HEAD`` is answered without
    starting the source. A response is used once.

    :param source: an async iterable of ``bytes``, ``str`` or ``memoryview``, an async context
        manager that yields one, or a stream; owned and closed by the response. An item of another
        type ends it with :exc:`TypeError`.
    :param headers: headers of the response, which may replace the default ones: these ask caches
        and proxies to pass everything on at once. The headers of a :class:`~streamkit.Head` replace
        both, except for cookies, which are added.
    :param media_type: the content type, or ``None`` for none
    :param first_item_within: seconds after which the status 200 is sent without an item; 15 if it
        is ``None``
    :param final: called with the :class:`~streamkit.Outcome` when the source is closed. Returns the
        last item, or several in a list, a tuple or an iterator; with ``None``, the outcome is
        raised if it is an error. Not called if the stream is left.
    :param on_end: called with the :class:`~streamkit.Outcome` and awaited, once, before ``final``.
        It is also called for a ``HEAD``, with the outcome of a stream that nobody has asked
        for an item
    :param on_end_timeout: seconds after which ``on_end`` is cancelled
    :param on_disconnect: what to do when the client goes, as above
    :param grace: seconds that the source has to react to a disconnect, or to a shutdown
    :param drain_timeout: seconds for which a source runs on without a client
    :param finish: seconds that the stream may go on for when the program ends, before it is told.
        Give 0 for a stream that would not end. ``None`` means: as the host says.
    :param send_timeout: seconds that the client may take for one message before it counts as gone.
        The call then returns without the last message, and a warning is logged. The server decides
        when the connection ends. It may wait for the client to read what it was sent: until it lets
        go of the message, the call does not return, though the source is closed
    :param log_failures: whether a failure that is not raised from the call is logged
    :param receive: where the source reads its own request; ``None`` if it reads nothing
    :param host: drains streams and tells that the program ends. If it is ``None``, the
        :class:`StreamHost` in ``scope["state"]`` is taken, under whatever name the lifespan has put
        it there.
    :param telemetry: receives how the stream goes, instead of the host's:
        :class:`streamkit.opentelemetry.OpenTelemetry`, for instance
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is negative or not finite, or a header is not valid

    """

    #: What makes beats, below the outlet.
    _beats: Stage[Any, Any] | None = None

    def __init__(
        self,
        source: AsyncSource[Content | Head],
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        media_type: str | None = "text/plain; charset=utf-8",
        first_item_within: float | None = None,
        final: Callable[[Outcome], LastWord] | None = None,
        on_end: Callable[[Outcome], Awaitable[object]] | None = None,
        on_end_timeout: float = 5.0,
        on_disconnect: Literal["cancel", "drain", "close"] = "cancel",
        grace: float = 5.0,
        finish: float | None = None,
        drain_timeout: float = 300.0,
        send_timeout: float | None = None,
        log_failures: bool = True,
        receive: SharedReceive | None = None,
        host: StreamHost | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        # Before all other attributes.
        self._unserializable = UNSERIALIZABLE
        if on_disconnect not in ("cancel", "drain", "close"):
            raise ValueError(
                f"on_disconnect is 'cancel', 'drain' or 'close', got {on_disconnect!r}"
            )
        _check_host(host)
        _check_receive(receive)
        check_telemetry(telemetry)
        if send_timeout is not None:
            seconds("send_timeout", send_timeout, positive=True)
        if finish is not None:
            seconds("finish", finish)
        self._terms = Terms(
            headers=merged(self._own_headers(media_type), raw(headers)),
            opening=self._opening(),
            on_disconnect=on_disconnect,
            grace=seconds("grace", grace),
            finish=finish,
            drain_timeout=seconds("drain_timeout", drain_timeout),
            send_timeout=send_timeout,
            logs_failures=log_failures,
            telemetry=telemetry,
        )
        self._host = host
        self._receive = receive
        self._first_item_within = (
            _FIRST_ITEM_WITHIN if first_item_within is None else (first_item_within)
        )
        self._outlet = self._make_outlet()
        _check_final(final)
        self._last_word = _LastWord(self._said_last(final), self._outlet)
        # Given away with the call. Frames of a framework hold this response, an error holds them,
        # and the outcome of the stream holds the error: such a cycle would keep send() alive, and
        # granian ends the connection only when nothing refers to that.
        self._stream: StatusStream[Any] | None = status_above(
            source,
            (self._outlet,) if self._beats is None else (self._beats, self._outlet),
            self._first_item_within,
            self._last_word,
            on_end,
            on_end_timeout,
            self._outlet.on_head,
        )

    def __repr__(self) -> str:
        state = "used" if self._stream is None else f"with {self._stream!r}"
        return f"<{type(self).__name__} {state}>"

    def _make_outlet(self) -> Outlet:
        """Return the outlet that makes bytes of items. Called once, when the response is made."""
        return Outlet()

    def _said_last(self, final: Callable[[Outcome], Any] | None) -> _Final:
        """Return what says the last word: the user's ``final``, if there is one, or another."""
        return final

    def _own_headers(self, media_type: str | None) -> RawHeaders:
        """Return the headers that those of the user replace."""
        return default_headers(media_type)

    def _opening(self) -> bytes:
        """Return the bytes to send with a status that comes before the first item."""
        return b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer a request.

        Returns when the source is closed, or when it is drained by a host.

        :raises BaseException: what the source, a stage or ``send`` raised, if nothing was sent
            instead
        :raises ResponseCancelled: if the source was cancelled, let the exception out, and ``final``
            had no last word
        :raises RuntimeError: if the scope is not of an HTTP request, if the response was used
            before, or if its host was not entered

        """
        self._check_scope(scope)
        if self._stream is None:
            raise RuntimeError(f"{self!r} answers one request: make a new one for each")
        stream, self._stream = self._stream, None
        host = self._host or _host_in(scope)
        if host is not None:
            host.note(scope)
        stream = watched(stream, self._terms, host, scope, self._first_item_within)
        self._outlet.expect(self._terms.status)
        exchange = self._exchange(stream, host, scope, receive, send)
        try:
            refused = None if host is None else host.admit(exchange)
            if refused is not None:
                await exchange.refuse(refused)
                await exchange.run_background()
                return
            if host is None or self._terms.on_disconnect != "drain":
                await exchange.run()
            else:
                await host.run(exchange.run, exchange.rest.let_go, f"response with {stream!r}")
            await exchange.conclude()
        finally:
            if host is not None and not exchange.rest.has_let_go:
                # Its task may have been cancelled before it began. A drained stream lives on.
                host.leave(exchange, None)
            # The traceback of an error includes this frame.
            del stream, exchange

    def _check_scope(self, scope: Scope) -> None:
        if scope["type"] != "http":
            raise RuntimeError(
                f"a {type(self).__name__} answers an HTTP request, but was called with a scope of "
                f"the type {scope['type']!r}: return it from an HTTP endpoint"
            )

    def _exchange(
        self,
        stream: StatusStream[Any],
        host: StreamHost | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Exchange:
        """Return the object that answers the request."""
        return Exchange(
            stream,
            self._outlet,
            self._last_word,
            self._terms,
            host,
            partial(self._refusal, closes=scope.get("http_version", "1.1").startswith("1")),
            is_head=scope["method"] == "HEAD",
            receive=self._receive or receive,
            send=send,
        )

    def _refusal(self, *, closes: bool) -> Refusal:
        """Return the answer if the stream does not start. Called only then."""
        return Refusal(None, self._terms.headers, closes=closes)


class WebSocketStream(StreamResponse):
    """
    A stream that is sent over a WebSocket: a :class:`StreamResponse` whose client can ask it to
    stop.

    It makes the handshake when the status is known, sends a message for each item, and closes the
    socket at the end. So it is called instead of ``accept()``, and nothing else may read the
    client's messages. Text is sent as text, ``bytes`` and ``memoryview`` as they are, and anything
    else as JSON text, like the data of an event: see :class:`~streamkit.sse.EventStream`.

    If the source yields a :class:`~streamkit.Head` with a status of 300 or more, or is not started
    at all, there is no handshake: the client gets the status, with the items as the body. If the
    server cannot do that (``"websocket.http.response"`` is not in the extensions of the scope), the
    status is 403, without a body. An error before the first item is raised from the call, as in any
    response.

    The client asks for a stop by a message. The source is then told
    :exc:`~streamkit.StreamCancelled` with the reason that the client gave, and has its ``grace``.
    Its last items and the last word reach the client. Any other message is read and dropped, so
    that a stop never waits behind one.

    At the end the last word is sent, if ``final`` has one, and then the socket is closed. The code
    tells how the stream has ended, and the reason of the close says it in a word: 1000
    ``completed`` or ``cancelled``; 1001 ``shutdown``; 1008 ``refused``, by a
    :class:`~streamkit.Head` that came after the handshake; 1011 ``failed`` or ``timed_out``; 1013
    ``overloaded``. So a cancellation is never raised. An error is raised if there was no last word
    for it, once the socket is closed.

    A client that goes is handled as by a :class:`StreamResponse`. If the server closes the socket
    with 1012, because it restarts, the client was not lost: the source is told ``Shutdown()``.

    :param source: an async iterable of items, an async context manager that yields one, or a
        stream, whose own beats are sent, too. Owned and closed by the response
    :param headers: headers of the handshake, or of the response that replaces it
    :param subprotocols: the supported ones. The first one that the client offers is chosen
    :param stop: called with each message of the client, ``str`` or ``bytes``. A falsy result means:
        no stop. ``True`` means: stop. Anything else means: stop, for this reason. By default, a
        JSON message like ``{"type": "stop", "reason": "..."}`` is a stop. With ``None``, no message
        is
    :param errors: how a client is told that there is no stream for it: by a ``"status"``, which a
        browser does not show to its page; or by a handshake and a ``"close"``, with the items in
        between
    :param accepted: whether the handshake is over because ``accept()`` was called already. A
        refusal is then told by the close
    :param beat: an item that is sent while the source is silent, which clients know and drop;
        ``None`` for no beats, where the server sends pings of its own, as uvicorn does
    :param keepalive: seconds of silence before each beat, if there is one
    :param encoder: called with a value for which there would be no JSON, wherever in an item it is.
        Returns a value for which there is, or raises :exc:`TypeError`
    :param final: called with the :class:`~streamkit.Outcome`. Returns the last message: an item,
        several in a list, a tuple or an iterator, or ``None``. Not called for a client that was
        refused
    :param options: further options of :class:`StreamResponse`, all but ``media_type`` and
        ``receive``. ``first_item_within`` is 5 by default: clients do not wait for long
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is negative or not finite, or a header is not valid

    """

    def __init__(
        self,
        source: AsyncSource[Any],
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        stop: Callable[[str | bytes], object] | None = _stop_in,
        errors: Literal["status", "close"] = "status",
        accepted: bool = False,
        beat: object = None,
        keepalive: float = 15.0,
        encoder: Callable[[Any], object] | None = None,
        final: Callable[[Outcome], object] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        refuse_misplaced(type(self).__qualname__, options, OF_SOCKETS)
        _check_stop(stop)
        check_told(errors, subprotocols, encoder)
        seconds("keepalive", keepalive, positive=True)
        # Before all other attributes.
        self._unserializable = UNSERIALIZABLE
        self._socket_outlet = SocketOutlet(encoder)
        self._subprotocols = tuple(subprotocols)
        self._stop = stop
        #: Called for a stop, if the source is not told.
        self._on_stop: Callable[[object], object] | None = None
        self._errors: Literal["status", "close"] = errors
        self._accepted = accepted
        if beat is not None:
            self._beats = _beats_of(keepalive, beat)
        if options.get("first_item_within") is None:
            options["first_item_within"] = _HANDSHAKE_WITHIN
        super().__init__(
            source,
            headers=headers,
            final=cast("Any", final),
            **options,
        )

    def _make_outlet(self) -> Outlet:
        return self._socket_outlet

    def _said_last(self, final: Callable[[Outcome], Any] | None) -> _Final:
        return None if final is None else partial(self._socket_outlet.last, final)

    def _own_headers(self, media_type: str | None) -> RawHeaders:
        return []

    def _check_scope(self, scope: Scope) -> None:
        if scope["type"] != "websocket":
            raise RuntimeError(
                f"a {type(self).__name__} answers a WebSocket, but was called with a scope of the "
                f"type {scope['type']!r}: for an HTTP request, write StreamResponse or "
                "EventStream"
            )

    def _exchange(
        self,
        stream: StatusStream[Any],
        host: StreamHost | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Exchange:
        return SocketExchange(
            stream,
            self._socket_outlet,
            self._last_word,
            self._terms,
            host,
            partial(self._refusal, closes=False),
            scope=scope,
            receive=receive,
            send=send,
            stop=self._stop,
            on_stop=self._on_stop,
            subprotocols=self._subprotocols,
            refuses_by=self._errors,
            is_accepted=self._accepted,
        )


def _check_receive(given: object) -> None:
    if given is not None and not isinstance(given, SharedReceive):
        raise TypeError(
            f"receive must be a SharedReceive, got {type(given).__qualname__}: write "
            "body = SharedReceive(request.receive), read the request from body, and give the "
            "response receive=body"
        )


def _check_host(given: object) -> None:
    if given is not None and not isinstance(given, StreamHost):
        raise TypeError(
            f"host must be a StreamHost, got {type(given).__qualname__}: write 'async with "
            "StreamHost() as host:' in the lifespan of the application"
        )


def _host_in(scope: Scope) -> StreamHost | None:
    state = scope.get("state")
    if type(state) is dict or isinstance(state, Mapping):
        for value in cast("Mapping[str, object]", state).values():
            if isinstance(value, StreamHost):
                return value
    return None


name_publicly(globals())
