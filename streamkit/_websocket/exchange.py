"""
One socket and its stream: an exchange whose answer is a handshake, frames and a close.

Until the handshake, a client can be refused with a status, as by any response. After it, only the
code of the close can tell how the stream ended, and every client gets that. So a socket is never
cut off without it, unless the client takes nothing.

A refusal goes out at the end, and in one piece: granian accepts nothing else, and uvicorn's older
implementation drops what comes after the status.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, Literal

from anyio.lowlevel import checkpoint

from .._combinators.status import StatusStream
from .._core.exceptions import StreamCancelled, both, is_cancellation
from .._core.metadata import Head
from .._http.exchange import PLAIN, Exchange
from .._http.headers import RawHeaders, merged, raw
from .._http.home import Home
from .._http.last_word import LastWord
from .._http.messages import Message, Receive, Scope, Send, body, start
from .._http.outlet import encode
from .._http.refusal import Refusal
from .._http.terms import Terms
from .closing import DONE, FAILED, closing_of
from .connection import SocketConnection
from .messages import accept, can_be_denied, close, denial, frame
from .outlet import REFUSED, SocketOutlet
from .stops import Stop

_TEXT = (b"content-type", b"text/plain; charset=utf-8")

# The most bytes in the answer to a refused client: all of them are held until the end.
_LONGEST = 1024 * 1024


class _State(Enum):
    #: Nothing has been sent.
    NEW = auto()
    #: The handshake is over.
    OPEN = auto()
    #: The client is refused, and there is no handshake.
    REFUSED = auto()


class SocketExchange(Exchange):
    """
    Answers one handshake with one stream.

    :param stream: as for :class:`Exchange`, like all parameters that are not listed here
    :param scope: of ASGI
    :param stop: tells a stop from other messages, or ``None``
    :param on_stop: called with the reason when the client asks for one, or ``None`` to tell the
        source
    :param subprotocols: those that the application speaks
    :param refuses_by: how a client is told that there is no stream for it
    :param is_accepted: whether the handshake is over

    """

    __slots__ = (
        "_can_be_denied",
        "_denial",
        "_on_stop",
        "_refuses_by",
        "_socket",
        "_socket_outlet",
        "_state",
        "_stop",
        "_subprotocol",
    )

    def __init__(
        self,
        stream: StatusStream[Any],
        outlet: SocketOutlet,
        last_word: LastWord,
        terms: Terms,
        host: Home | None,
        refusal: Callable[[], Refusal],
        *,
        scope: Scope,
        receive: Receive,
        send: Send,
        stop: Stop | None,
        on_stop: Callable[[object], object] | None,
        subprotocols: tuple[str, ...],
        refuses_by: Literal["status", "close"],
        is_accepted: bool,
    ) -> None:
        self._stop = stop
        self._on_stop = on_stop
        self._socket_outlet = outlet
        offered = scope.get("subprotocols") or ()
        self._subprotocol = next((each for each in offered if each in subprotocols), None)
        self._refuses_by = refuses_by
        self._can_be_denied = can_be_denied(scope)
        self._state = _State.OPEN if is_accepted else _State.NEW
        # The answer to a refused client: the status and headers, and the body so far.
        self._denial: tuple[Message, bytearray] | None = None
        super().__init__(
            stream,
            outlet,
            last_word,
            terms,
            host,
            refusal,
            is_head=False,
            receive=receive,
            send=send,
        )

    def _connect(self, receive: Receive, send: Send) -> SocketConnection:
        # Nothing in it refers to this exchange: Exchange.run() says why there must be no cycle.
        tell = partial(self._outlet.cancel, grace=self._terms.grace)
        self._socket = SocketConnection(
            receive,
            send,
            send_timeout=self._terms.send_timeout,
            on_lost=self.rest.begin,
            stop=self._stop,
            on_stop=tell if self._on_stop is None else self._on_stop,
            on_error=self._outlet.fail,
            is_accepted=self._state is _State.OPEN,
        )
        return self._socket

    async def _send_stream(self) -> None:
        error: BaseException | None = None
        await self._socket.wait_until_connected()
        try:
            await super()._send_stream()
        except (Exception, StreamCancelled) as exc:
            error = exc
        # Not in the handler: an exception that a scope raises would have the error as its context.
        if error is None:
            return
        try:
            try:
                if await self._has_told(error):
                    return
            except BaseException as exc:
                # The close may fail as well, or take too long.
                error = exc if is_cancellation(error) else both(error, exc)
            assert error is not None
            raise error
        finally:
            # The traceback of an error includes this frame.
            del error, self

    async def _has_told(self, error: BaseException) -> bool:
        """
        Tell the client that the stream is over, where no last word does.

        :return: whether the client was told everything: the code is enough for a stop

        """
        is_stop = isinstance(error, StreamCancelled) and self._stream.ended
        is_told = is_stop and self._stream.outcome.kind == "cancelled"
        if self._state is _State.NEW and is_told:
            await self._send_start(PLAIN)
        # Not if that is what has failed.
        if (self._state is _State.OPEN or is_told) and not self._socket.is_ending:
            await self._end(has_failed=not is_told)
        return is_told

    async def _send_start(self, head: Head) -> None:
        own = raw(head.headers)
        headers = merged(self._terms.headers, own)
        status = head.status if head.decided_by == "head" else self._terms.status
        self._outlet.begin(status)
        if self._state is not _State.NEW:
            return
        if status < REFUSED or self._refuses_by == "close":
            await self._accept(headers)
        else:
            self._state = _State.REFUSED
            has_type = any(name == b"content-type" for name, _ in headers)
            headers = headers if has_type or not self._outlet.has_body else [_TEXT, *headers]
            self._denial = start(status, headers), bytearray()

    async def _accept(self, headers: RawHeaders) -> None:
        self._state = _State.OPEN
        await self._socket.send(accept(self._subprotocol, headers))

    async def _send_items(self) -> None:
        socket = self._socket
        try:
            async for item in self._stream:
                if socket.is_lost:
                    return
                if self._state is _State.NEW:
                    # For the last word of ``final``, if the stream was stopped before it began.
                    await self._send_start(PLAIN)
                if self._denial is None:
                    await socket.send(frame(item))
                else:
                    self._add(item, self._denial[1])
                if socket.is_lost:
                    return
        finally:
            # The traceback of an error of the source includes this frame.
            del socket, self

    def _add(self, item: str | bytes, content: bytearray) -> None:
        content += encode(item)
        if len(content) > _LONGEST:
            raise RuntimeError(
                "the body of an answer that refuses a WebSocket is sent in one piece, and is over "
                "1 MiB: yield less after such a Head"
            )

    async def _end(self, content: bytes = b"", *, has_failed: bool = False) -> None:
        if self._denial is not None and self._can_be_denied:
            first, found = self._denial
            headers = [each for each in first["headers"] if each[0] != b"content-length"]
            first["headers"] = [*headers, (b"content-length", str(len(found)).encode())]
            # Nothing waits between these messages.
            await self._socket.stop_reading()
            await self._socket.send(denial(first))
            await self._socket.end(denial(body(bytes(found), more_body=False)))
            # If a call returns before the connection has ended, uvicorn believes that it has sent
            # nothing.
            await checkpoint()
        else:
            await self._socket.end(close(*self._closing(has_failed)))

    def _closing(self, has_failed: bool) -> tuple[int, str]:
        outlet = self._socket_outlet
        if not self._stream.ended:
            return FAILED, "failed"
        outcome = self._stream.outcome
        is_complete = outcome.kind == "completed"
        # The last word may have been that of a failed on_end.
        has_failed = has_failed or (is_complete and self._last_word.told is not None)
        if outlet.closing is not None and is_complete and not has_failed:
            return outlet.closing
        return closing_of(outcome, is_refused=outlet.is_refused, has_failed=has_failed)

    async def _send_refusal(self) -> None:
        await self._socket.connect()
        if self._state is _State.NEW and self._refuses_by == "close":
            await self._accept(self._terms.headers)
        elif self._state is _State.NEW:
            self._state = _State.REFUSED
            first, content = self._refusal().answer(is_head=False)
            self._denial = first, bytearray(content)
        await self._end()

    async def _hang_up(self) -> None:
        await self._connection.raw_send(close(DONE, ""))

    async def _end_for_nobody(self) -> None:
        """Send nothing: a closed socket takes nothing, and nobody waits for its end."""
