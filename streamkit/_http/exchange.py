"""
One request and its answer: the stream on one side, ``receive`` and ``send`` of ASGI on the other.

The task that answers enters the stream, and sends what comes out of it. A second one waits for the
client to disconnect. Whoever finds first that the client has gone (the second task, an error from
``send``, or its limit of time) cancels the scope in which everything is sent; what the stream still
says after that is consumed and dropped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

import anyio
from anyio.lowlevel import checkpoint

from .._combinators.status import StatusStream
from .._core.exceptions import (
    StreamCancelled,
    bare,
    both,
    cancelled_only,
    error_in,
    is_stream_cancelled,
    without,
)
from .._core.metadata import Head
from .headers import RawHeaders, merged, raw
from .host import Home, Shutdown
from .messages import Message, Receive, Send, body, start
from .outlet import Outlet, encode

_logger = logging.getLogger("streamkit")

# What servers and middleware raise from send() when the client has gone.
_GONE = (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError)

# Seconds that a message has at least, where the time for it is not the user's to say.
_SHORT = 1.0

# The status of an answer for which nothing else is known, and of which the body follows at once.
_PLAIN = Head(decided_by="end")


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The reason that a source is told when the client of its response has gone."""


class ResponseCancelled(Exception):
    """
    Raised by a response whose source was cancelled, and which has no last word to say so.

    It stands in for :exc:`~streamkit.StreamCancelled`, which no server expects, and no exception
    handler of a framework catches. It is not raised when the client has gone.

    :param reason: why the stream was cancelled

    """

    def __init__(self, reason: object = None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the source was cancelled (reason: {self.reason!r}) and the client was not told: give "
            "the response a final=..., or catch StreamCancelled in the source"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a response was asked to do."""

    headers: RawHeaders
    on_disconnect: Literal["cancel", "drain", "close"]
    grace: float
    drain_timeout: float
    send_timeout: float | None
    #: Where no :class:`Head` says another.
    status: int = 200
    #: Whether a failure is logged of which the client was told, so that it is raised nowhere.
    logs_failures: bool = True
    #: To be called and awaited when the stream is closed, if nothing is raised.
    background: Callable[[], Awaitable[object]] | None = None


class Exchange:
    """
    Answers one request with one stream.

    :param stream: the stream, which nobody has entered
    :param outlet: its stage
    :param terms: what to do
    :param host: who knows when the program ends, if anybody does
    :param is_head: whether the request asks for the headers alone
    :param receive: of ASGI
    :param send: of ASGI

    """

    def __init__(
        self,
        stream: StatusStream[Any],
        outlet: Outlet,
        terms: Terms,
        host: Home | None,
        *,
        is_head: bool,
        receive: Receive,
        send: Send,
    ) -> None:
        #: Set when nothing more is to be done for the request itself.
        self.let_go: anyio.Event = anyio.Event()
        self._stream = stream
        self._outlet = outlet
        self._terms = terms
        self._host = host
        self._is_head = is_head
        self._receive = receive
        self._send = send
        self._send_timeout = terms.send_timeout
        self._is_sending = False
        self._has_started = False
        self._is_complete = False
        self._client_gone = False
        self._too_slow = False
        # Everything is sent in here.
        self._while_connected = anyio.CancelScope()
        self._watching = anyio.CancelScope()

    async def run(self) -> None:
        """
        Answer, and return when the stream is closed.

        :raises BaseException: what the stream raises, bare
        :raises ResponseCancelled: if that was a cancellation, and a client is there to be told

        """
        error: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, name=f"watcher of {self._stream!r}")
                try:
                    await self._answer()
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as exc:
                    # Not the task group's business: it would come back in a group.
                    error = exc
                self._watching.cancel()
        except BaseException as interrupted:
            # A cancellation, or what receive() raised, which has cancelled the answer.
            error = both(error_in(error), bare(interrupted))
        if error is not None:
            error = self._for_the_server(error)
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback includes this frame, and so on further in. Where a server ends the
                # connection when nothing refers to send() any more, as granian does, a cycle would
                # keep it open.
                del error, self

    async def conclude(self) -> None:
        """
        Do what is left to do in the task of the request.

        :raises TimeoutError: if the client was given up for not taking a message in time

        """
        if self._too_slow:
            raise TimeoutError(
                f"the client did not take a message within {self._send_timeout} seconds"
            )
        if self._client_gone and not self._has_started:
            # Not for the client. What stands between would take no answer at all for an error:
            # Starlette's BaseHTTPMiddleware does.
            with anyio.move_on_after(_SHORT), suppress(Exception):
                await self._send(start(499, []))
                await self._send(body(b"", more_body=False))
        if not self.let_go.is_set():
            await self._run_background()

    async def _run_background(self) -> None:
        if self._terms.background is not None:
            await self._terms.background()

    def _for_the_server(self, error: BaseException) -> BaseException | None:
        """Return what to raise for an error: servers only expect an :exc:`Exception`."""
        stop = cancelled_only(error)
        if stop is None:
            rest = without(error, is_stream_cancelled)
            assert rest is not None
            return rest if rest is error else bare(rest)
        if self._client_gone:
            # It went after the end of the stream, and is not there to be told.
            return None
        cancelled = ResponseCancelled(stop.reason)
        cancelled.__cause__ = error
        return cancelled

    # The client

    async def _watch(self) -> None:
        with self._watching:
            try:
                while (await self._receive())["type"] != "http.disconnect":
                    # The rest of a body that nobody has read.
                    await checkpoint()
            except _GONE:
                pass
            self._lose_client()

    def _lose_client(self) -> None:
        # Servers say so after the last message, too.
        if not (self._client_gone or self._is_complete):
            self._client_gone = True
            if self._terms.on_disconnect == "cancel":
                self._outlet.cancel(Disconnected(), self._terms.grace)
            self._while_connected.cancel()

    def _shut_down(self, reason: object, grace: float) -> None:
        self._outlet.cancel(reason, min(grace, self._terms.grace))
        # The time to clean up stands still while the client is waited for, so that is bounded.
        limit = max(grace, _SHORT)
        if self._send_timeout is None or self._send_timeout > limit:
            self._send_timeout = limit
            if self._is_sending:
                self._while_connected.deadline = anyio.current_time() + limit

    # The answer

    async def _answer(self) -> None:
        attended = nullcontext() if self._host is None else self._host.attended(self._shut_down)
        try:
            with attended:
                async with self._stream:
                    with self._while_connected:
                        if self._is_head:
                            await self._send_start(_PLAIN)
                            await self._transmit(body(b"", more_body=False))
                        else:
                            await self._send_stream()
                    if self._while_connected.cancelled_caught:
                        self._too_slow = not self._client_gone
                        self._lose_client()
                        if not self._is_head:
                            await self._go_on_alone()
                self._log_failure()
                if self.let_go.is_set():
                    # Nobody else is there to do it: the request may have ended.
                    await self._run_background()
        finally:
            del attended, self

    def _log_failure(self) -> None:
        outcome = self._stream.outcome
        # Also that of a source which was told to stop, and failed over it.
        if self._terms.logs_failures and outcome.error is not None:
            told = "its client has gone" if self._client_gone else "told its client so"
            _logger.error("%r failed, and %s", self._stream, told, exc_info=outcome.error)

    async def _send_stream(self) -> None:
        stopped: StreamCancelled | None = None
        try:
            await self._send_start(await self._stream.head())
        except StreamCancelled as stop:
            # No failure, so what ``final`` says of it is an answer, if it says something.
            stopped = stop
        send = self._send
        try:
            async for item in self._stream:
                if not self._has_started:
                    await self._send_start(_PLAIN)
                # Again, for the items of ``final`` do not pass the outlet.
                content = item if type(item) is bytes else encode(item)
                message = {"type": "http.response.body", "body": content, "more_body": True}
                if self._client_gone or self._send_timeout is not None:
                    await self._transmit(message)
                    continue
                # The same, for nearly every item.
                self._is_sending = True
                try:
                    await send(message)
                except _GONE:
                    self._lose_client()
                self._is_sending = False
                if self._send_timeout is not None:
                    # The program is ending, and this was sent in time.
                    self._while_connected.deadline = math.inf
            if stopped is not None and not self._has_started:
                if not isinstance(stopped.reason, Shutdown):
                    raise stopped
                await self._transmit(start(503, [(b"content-length", b"0")]))
            await self._transmit(body(b"", more_body=False))
        finally:
            del stopped, self

    async def _send_start(self, head: Head) -> None:
        status = head.status if head.decided_by == "head" else self._terms.status
        await self._transmit(start(status, merged(self._terms.headers, raw(head.headers))))
        if head.decided_by in ("head", "timeout"):
            # The first item may take a while. granian keeps the status until there is a body.
            await self._transmit(body(b"", more_body=True))

    async def _transmit(self, message: Message) -> None:
        """Send something, unless the client has gone. Ends at the latest when it goes."""
        if not self._client_gone:
            self._has_started = self._is_sending = True
            if self._send_timeout is not None:
                self._while_connected.deadline = anyio.current_time() + self._send_timeout
            try:
                await self._send(message)
            except _GONE:
                self._lose_client()
            self._is_sending = False
            self._is_complete = message.get("more_body") is False
            if self._send_timeout is not None:
                self._while_connected.deadline = math.inf

    async def _go_on_alone(self) -> None:
        """Consume what comes after the client has gone, and drop it."""
        if self._terms.on_disconnect == "close":
            return
        # Whatever it was told, nobody is left to hear of it.
        with suppress(StreamCancelled):
            if self._terms.on_disconnect == "drain":
                self.let_go.set()
                with anyio.move_on_after(self._terms.drain_timeout) as limit:
                    await self._drop()
                if not limit.cancelled_caught:
                    return
                self._outlet.cancel(Disconnected(), self._terms.grace)
            await self._drop()

    async def _drop(self) -> None:
        async for _ in self._stream:
            pass
