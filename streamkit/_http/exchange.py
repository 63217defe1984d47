"""
One request and its answer: the stream on one side, the connection to the client on the other.

The task of the request enters the stream, and waits for the client to go. Beside the stream, a
second task sends what comes out of it, and if messages have a time limit, a third one watches the
clock. When the client has gone, the sending task ends, and the task of the request consumes the
rest of the stream and drops it. It does not wait for the other for that: servers may send in a
shield, where no cancellation gets in.

The task of the request could send as well. It has all the coroutines of the server and of the
framework below it, though, and each item would pass through all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio

from .._combinators.status import StatusStream
from .._core.backend import get_backend, new_scope
from .._core.exceptions import StreamCancelled, both, is_cancellation, shares_leaf
from .._core.metadata import Head
from .._signals.shutdown import Shutdown
from .connection import GONE, SHORT, Connection
from .failures import for_the_server, log_failure
from .headers import merged, raw
from .home import Home
from .last_word import LastWord
from .messages import Receive, Send, body, start
from .outlet import Outlet, encode
from .refusal import Refusal
from .rest import Rest
from .terms import Terms

_logger = logging.getLogger("streamkit")

# The status of an answer for which nothing else is known, and whose body follows at once.
PLAIN = Head(decided_by="end")

# The name of a task. Without that of the source, which would be a string for each open request.
_SENDER = "sender of a response"


class Exchange:
    """
    Answers one request with one stream. A guest of its host.

    :param stream: the stream, which nobody has entered
    :param outlet: its stage
    :param last_word: its ``final``
    :param terms: what to do
    :param host: knows when the program ends, if there is one
    :param refusal: returns the answer if the stream does not start
    :param is_head: whether the request asks only for the headers
    :param receive: of ASGI
    :param send: of ASGI

    """

    # There is one for each open request.
    __slots__ = (
        "_connection",
        "_failure",
        "_has_all",
        "_has_begun",
        "_has_clock",
        "_has_sent",
        "_hearing",
        "_hearing_error",
        "_host",
        "_is_head",
        "_is_open",
        "_last_word",
        "_outlet",
        "_refusal",
        "_stream",
        "_terms",
        "rest",
    )

    def __init__(
        self,
        stream: StatusStream[Any],
        outlet: Outlet,
        last_word: LastWord,
        terms: Terms,
        host: Home | None,
        refusal: Callable[[], Refusal],
        *,
        is_head: bool,
        receive: Receive,
        send: Send,
    ) -> None:
        #: What becomes of the stream if the client goes.
        self.rest: Rest = Rest(stream, outlet, last_word, terms, host)
        self._stream = stream
        self._outlet = outlet
        self._last_word = last_word
        self._terms = terms
        self._host = host
        self._refusal = refusal
        self._is_head = is_head
        self._connection = self._connect(receive, send)
        # Whether something is being sent, or will be.
        self._is_open = False
        self._has_clock = False
        # Whether all items have been sent.
        self._has_all = False
        # Whether the sending task has begun. It never does if it is stopped before.
        self._has_begun = False
        # Whether it came to its end.
        self._has_sent = False
        #: What it raised.
        self._failure: BaseException | None = None
        #: What receive() raised.
        self._hearing_error: BaseException | None = None
        # The client is heard in here.
        self._hearing = new_scope()

    def _connect(self, receive: Receive, send: Send) -> Connection:
        """Return the connection to the client."""
        return Connection(
            receive, send, send_timeout=self._terms.send_timeout, on_lost=self.rest.begin
        )

    async def run(self) -> None:
        """
        Answer, and return when the stream is closed.

        :raises BaseException: what the stream raises, bare
        :raises ResponseCancelled: if that was a cancellation, and there is a client to tell

        """
        error: BaseException | None = None
        try:
            await self._answer()
        except BaseException as exc:
            # The sending task may have been stuck in send() until now. Or it has failed in the
            # moment in which the request was cancelled.
            error = both(self._take_failure(), exc)
        if error is not None:
            # The client is not watched while the block of the stream is being left.
            await self._connection.look()
        outcome = self._stream.outcome if self._stream.ended else None
        if self._host is not None:
            self._host.leave(self, outcome)
        # This includes the error of a source that was told to stop, and then failed.
        failure = None if outcome is None else outcome.error
        if failure is not None and not shares_leaf(failure, error):
            log_failure(self._stream, self._terms, failure, gone=self._connection.is_lost)
        try:
            self._raise(error)
        finally:
            # The traceback of an error includes this frame, and the same holds further in. If a
            # server ends the connection when nothing refers to send() any longer, as granian does,
            # a cycle would keep it open.
            del error, outcome, failure, self

    async def refuse(self, reason: object) -> None:
        """
        Close the stream before it starts, and send the refusal.

        :param reason: the reason in the outcome
        :raises BaseException: what ``on_end`` or ``send`` raised
        :raises ResponseCancelled: if that was a cancellation of a stream

        """
        error: BaseException | None = None
        self._outlet.cancel(reason, 0.0)
        try:
            async with self._stream:
                pass
        except BaseException as exc:
            error = exc
        try:
            with anyio.move_on_after(self._connection.send_timeout or SHORT):
                await self._send_refusal()
        except BaseException as exc:
            error = both(error, exc)
        try:
            self._raise(error)
        finally:
            del error, self

    async def conclude(self) -> None:
        """Do the rest of the work in the task of the request."""
        connection = self._connection
        if connection.is_too_slow:
            _logger.warning(
                "%r was cut off: its client did not take a message within %s seconds",
                self._stream,
                connection.send_timeout,
            )
        elif connection.is_lost and not connection.has_started:
            # For middleware, not for the client: Starlette's BaseHTTPMiddleware takes a missing
            # answer for an error.
            with anyio.move_on_after(SHORT), suppress(Exception):
                await self._hang_up()
        elif connection.is_lost:
            await self._end_for_nobody()
        if not self.rest.has_let_go:
            await self.run_background()

    async def _hang_up(self) -> None:
        """Send an answer that reaches nobody."""
        await self._connection.raw_send(start(499, []))
        await self._connection.raw_send(body(b"", more_body=False))

    async def _end_for_nobody(self) -> None:
        """
        Send the last message after the client has gone.

        Middleware that measures, such as FastAPI's, counts an answer without it as failed. Not done
        if a client may still be there, because a cut answer would look complete to it.
        """
        connection = self._connection
        if self.rest.has_let_go:
            # Some moments ago, send() may have been the first to know.
            await connection.wait_until_quiet()
        else:
            await connection.look()
        if connection.is_gone and not connection.is_sending:
            backend = get_backend()
            limit = backend.make_scope(deadline=backend.now() + SHORT)
            with limit, suppress(Exception):
                await connection.raw_send(body(b"", more_body=False))

    async def run_background(self) -> None:
        """Run what the user has given for the time when the source is closed."""
        if self._terms.background is not None:
            await self._terms.background()

    def _raise(self, error: BaseException | None) -> None:
        if error is not None:
            error = for_the_server(error, self._stream, gone=self._connection.is_lost)
        try:
            if error is not None:
                raise error
        finally:
            del error, self

    # The host

    @property
    def finish(self) -> float | None:
        return self._terms.finish

    @property
    def is_sending(self) -> bool:
        return self._connection.is_sending

    @property
    def is_drained(self) -> bool:
        return self.rest.is_drained

    def shut_down(self, reason: object, grace: float) -> None:
        if self._terms.tell is None:
            self._outlet.end_within(reason, min(grace, self._terms.grace))
        else:
            self._terms.tell()
        # The clock of the grace stands still while the source waits for the client, so that wait is
        # bounded.
        self._connection.hurry(max(grace, SHORT))
        self._watch_the_clock()

    # The client

    def _watch_the_clock(self) -> None:
        is_needed = self._connection.send_timeout is not None and not self._has_clock
        if is_needed and self._is_open:
            self._has_clock = True
            self._outlet.start_soon(self._cut_off, f"clock of {self._stream.source_name}")

    async def _cut_off(self) -> None:
        """Wait until the client does not take a message in time, and go on without it."""
        await self._connection.wait_until_too_slow()
        self._hearing.cancel()

    @property
    def _has_rest(self) -> bool:
        """Whether there is a stream without a client."""
        has_failed = self._failure is not None or self._hearing_error is not None
        return self._connection.is_lost and not (self._is_head or self._has_all or has_failed)

    @property
    def _waits_for_the_other(self) -> bool:
        """Whether the sending task will end, which may well take no time."""
        connection = self._connection
        is_stuck = self._has_rest and connection.is_sending
        return not is_stuck and (self._has_begun or not connection.is_stopped)

    # The answer

    async def _answer(self) -> None:
        connection = self._connection
        try:
            async with self._stream:
                self._is_open = True
                connection.scope = self._outlet.start_soon(self._send, _SENDER)
                self._watch_the_clock()
                try:
                    with self._hearing:
                        try:
                            await connection.wait_until_gone()
                        except anyio.get_cancelled_exc_class():
                            raise
                        except BaseException as exc:
                            # To be raised when nothing is sent any longer.
                            self._hearing_error = exc
                            connection.stop_sending()
                        if self._waits_for_the_other:
                            await anyio.sleep_forever()
                    if self._has_rest:
                        await self.rest.consume()
                    await connection.wait_until_sent()
                finally:
                    self._is_open = False
                self._raise_failure()
            if self.rest.has_let_go:
                # Nothing else can do it: the request may have ended.
                await self.run_background()
        finally:
            # The traceback of an error includes this frame.
            del connection, self

    async def _send(self) -> None:
        """Send the answer, in a task of its own, until its end or that of the client."""
        self._has_begun = True
        try:
            if self._is_head:
                asks = self._terms.asks_for_head
                await self._send_start(await self._stream.head() if asks else PLAIN)
                await self._end()
            else:
                await self._send_stream()
            self._has_sent = True
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:
            # To be raised in the task of the request. But if that was cancelled in this very moment
            # and has left the stream, this one has asked it too late, which is no failure.
            if self._is_open or not isinstance(exc, anyio.ClosedResourceError):
                self._failure = exc
        finally:
            self._is_open = False
            self._connection.done_sending()
            self._hearing.cancel()
            del self

    def _raise_failure(self) -> None:
        """Raise what has ended the answer, if it was not its end."""
        error, self._failure = self._failure, None
        if error is None:
            error, self._hearing_error = self._hearing_error, None
        if error is None and not (self._has_sent or self._connection.is_stopped):
            error = anyio.BrokenResourceError("the task that sends an answer was cancelled")
        try:
            if error is not None:
                raise error
        finally:
            # Its traceback includes this frame.
            del error, self

    def _take_failure(self) -> BaseException | None:
        """Return what the sending task has raised, if that is an error and was not raised yet."""
        failure, self._failure = self._failure, None
        return None if failure is None or is_cancellation(failure) else failure

    async def _send_stream(self) -> None:
        connection = self._connection
        stopped: StreamCancelled | None = None
        try:
            await self._send_start(await self._stream.head())
        except StreamCancelled as stop:
            # Not a failure, so the items of ``final`` are the answer, if there are any.
            stopped = stop
        except BaseException:
            # The traceback of an error of the source includes this frame.
            del stopped, connection, self
            raise
        if connection.is_lost:
            # A server that sends in a shield may say nothing of it, and another task has the rest.
            return
        try:
            try:
                if self._outlet.has_body:
                    await self._send_items()
                else:
                    await self._expect_no_item()
            except BaseException as exc:
                if exc is self._last_word.told:
                    log_failure(self._stream, self._terms, exc, gone=connection.is_lost)
                elif not (connection.is_lost and isinstance(exc, StreamCancelled)):
                    raise
            if connection.is_lost:
                return
            if stopped is not None and not connection.has_started:
                if not isinstance(stopped.reason, Shutdown):
                    raise stopped
                await self._send_refusal()
            else:
                await self._end()
        finally:
            del stopped, connection, self

    async def _send_items(self) -> None:
        connection, send = self._connection, self._connection.raw_send
        try:
            async for item in self._stream:
                if connection.is_lost:
                    return
                if not connection.has_started:
                    await self._send_start(PLAIN)
                    if connection.is_lost:
                        return
                # Encoded here, too, because the items of ``final`` do not pass the outlet.
                content = item if type(item) is bytes else encode(item)
                message = {"type": "http.response.body", "body": content, "more_body": True}
                if connection.send_timeout is None:
                    # Connection.send() inlined: nearly every item comes this way.
                    connection.is_sending = True
                    try:
                        await send(message)
                    except GONE:
                        connection.lose()
                    finally:
                        connection.is_sending = False
                else:
                    await connection.send(message)
                if connection.is_lost:
                    return
            self._has_all = True
        finally:
            # The traceback of an error of the source includes this frame.
            del connection, send, self

    async def _send_start(self, head: Head) -> None:
        status = head.status if head.decided_by == "head" else self._terms.status
        own = raw(head.headers)
        headers = merged(self._terms.headers, own)
        self._outlet.begin(status)
        if not self._outlet.has_body:
            headers = [header for header in headers if header[0] != b"content-type"]
            if head.decided_by == "item":
                # The status can still say that this is an error.
                return
        await self._connection.send(start(status, headers))
        if self._outlet.has_body and head.decided_by in ("head", "timeout") and not self._is_head:
            # The first item may take a while. granian holds back the status until there is a body.
            is_other = any(name == b"content-type" for name, _ in own)
            opening = b"" if is_other else self._outlet.opening(self._terms.opening)
            await self._connection.send(body(opening, more_body=True))

    async def _expect_no_item(self) -> None:
        """Wait for the end of a stream whose answer has no body."""
        has_item = False
        try:
            async for _ in self._stream:
                if has_item:
                    # Several were read ahead, and that is one error.
                    continue
                has_item = True
                self._outlet.fail(
                    RuntimeError(
                        "an item has no place in an answer with the status 204, 205 or 304, which "
                        "has no body: yield nothing after such a Head, or choose another status"
                    )
                )
            if has_item:
                # The source had ended by then, so the closing raises that error.
                await self._stream.aclose()
        finally:
            # The traceback of an error of the source includes this frame.
            del self

    async def _send_refusal(self) -> None:
        first, content = self._refusal().answer(is_head=self._is_head)
        await self._connection.send(first)
        await self._end(content)

    async def _end(self, content: bytes = b"") -> None:
        """Send the message that completes the answer."""
        await self._connection.end(body(content, more_body=False))
