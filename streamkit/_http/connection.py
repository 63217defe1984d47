"""
The client of one request, at the other end of ``receive`` and ``send``.

Three things show that it has gone: ``receive``, an error from ``send``, and a message that it does
not take in time. From the last message on, it may go: there is nothing left to tell it. Some
servers report that it has gone while they send that message, and end the connection in there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from .messages import Message, Receive, Send
from .shared_receive import SharedReceive

_logger = logging.getLogger("streamkit")

# What servers and middleware raise from send() when the client has gone.
GONE = (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError)

# The fewest seconds for a message, unless the user sets them.
SHORT = 1.0

_has_warned = False


class Connection:
    """
    The connection to the client of a response.

    :param receive: of ASGI
    :param send: of ASGI
    :param send_timeout: seconds that a message may take, or ``None`` for any time
    :param on_lost: called once, when the client is found to have gone before the end. Returns
        whether that ends the task that sends, also while it waits for an item

    """

    __slots__ = (
        "_is_heard",
        "_nap",
        "_on_lost",
        "_receive",
        "_sent",
        "_since",
        "has_started",
        "is_ending",
        "is_gone",
        "is_lost",
        "is_sending",
        "is_too_slow",
        "raw_send",
        "scope",
        "send_timeout",
    )

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        send_timeout: float | None,
        on_lost: Callable[[], bool],
    ) -> None:
        #: That of the task that sends, once there is one. Cancelled when the client has gone, if
        #: necessary: what ends by itself costs less.
        self.scope: anyio.CancelScope | None = None
        #: ``send`` of ASGI, for code that does what :meth:`send` does.
        self.raw_send: Send = send
        self.send_timeout: float | None = send_timeout
        #: Whether something was sent.
        self.has_started: bool = False
        #: Whether a message is on its way.
        self.is_sending: bool = False
        #: Whether the last message was sent, or is on its way.
        self.is_ending: bool = False
        #: Whether the client went before that.
        self.is_lost: bool = False
        #: Whether ``receive`` has said that the client has gone, so that anything sent reaches
        #: nobody.
        self.is_gone: bool = False
        #: Whether it was cut off because it did not take a message in time.
        self.is_too_slow: bool = False
        self._receive = receive
        self._on_lost = on_lost
        # When the current message was sent, if there is a limit.
        self._since = math.inf
        self._nap: anyio.CancelScope | None = None
        self._is_heard = False
        # Set when nothing more is sent. Made when somebody waits for that.
        self._sent: anyio.Event | None = None

    async def send(self, message: Message) -> None:
        """Send something, unless the client has gone. Returns at the latest when it goes."""
        if self.is_lost:
            return
        self.has_started = self.is_sending = True
        if self.send_timeout is not None:
            self._since = anyio.current_time()
        try:
            await self.raw_send(message)
        except GONE:
            self.lose()
        finally:
            self.is_sending = False

    def done_sending(self) -> None:
        """Note that nothing more is sent."""
        self.is_sending = False
        if self._sent is not None:
            self._sent.set()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop_sending` was called."""
        return self.scope is not None and self.scope.cancel_called

    def stop_sending(self) -> None:
        """End the task that sends. A server may do that in a shield, and let it wait."""
        if self.scope is not None:
            self.scope.cancel()

    async def end(self, message: Message) -> None:
        """Send the last message. A client that goes from now on is not lost."""
        if not self.is_lost:
            self.is_ending = True
            await self.send(message)

    def lose(self) -> None:
        """Note that the client has gone, and end what is being sent."""
        if not (self.is_lost or self.is_ending):
            self.is_lost = True
            if self._on_lost() or self.is_sending:
                self.stop_sending()

    async def wait_until_gone(self) -> None:
        """Wait until the client has gone, and hear what it says until then."""
        self._is_heard = True
        # The usual way is here, and without suppress(): each open request would have one more
        # coroutine, and one more object.
        other_way = self._hear()
        try:
            if other_way is None:
                is_first = True
                while (message := await self._receive())["type"] != "http.disconnect":
                    if message.get("body"):
                        _warn_of_dropped_body()
                    # Most requests have a single message, and there the next call waits.
                    if not is_first:
                        await checkpoint()
                    is_first = False
            else:
                await other_way
            self.is_gone = True
        except GONE:
            self.is_gone = True
        finally:
            self._is_heard = False
        if self.is_ending:
            # A server may be busy closing the connection in send(): it gets the time for that.
            await anyio.sleep(SHORT if self.send_timeout is None else self.send_timeout)
            self.stop_sending()
        self.lose()

    def _hear(self) -> Awaitable[None] | None:
        """
        Return what waits until the client has gone, if this is more than to read and drop the rest
        of the request.
        """
        receive = self._receive
        return receive.wait_for_disconnect() if isinstance(receive, SharedReceive) else None

    async def wait_until_sent(self) -> None:
        """Wait until nothing is being sent any longer."""
        if self.is_sending:
            self._sent = self._sent or anyio.Event()
            await self._sent.wait()

    async def wait_until_quiet(self) -> None:
        """
        Wait a moment until nothing is being sent, and ``receive`` says that the client has gone.

        A server may be slow to leave ``send()``, or report it there first.
        """
        with anyio.move_on_after(SHORT), suppress(Exception):
            await self.wait_until_sent()
            if not (self.is_gone or self._is_heard):
                await self.wait_until_gone()

    async def look(self) -> None:
        """See whether the client has gone by now. Does not wait for that."""
        if self.is_gone or self._is_heard:
            return
        with anyio.CancelScope(shield=True) as scope, suppress(Exception):
            scope.cancel()
            await self.wait_until_gone()
        # Until the task is suspended again, the event loop holds the cancellation, and that holds
        # the frames that lead to send().
        await cancel_shielded_checkpoint()

    async def wait_until_too_slow(self) -> None:
        """
        Wait until a message takes too long.

        There is one clock for all messages: a timer for each of them would cost more.
        """
        while True:
            assert self.send_timeout is not None
            now = anyio.current_time()
            due = self.send_timeout + (min(self._since, now) if self.is_sending else now)
            if due <= now:
                break
            with anyio.CancelScope(deadline=due) as self._nap:
                await anyio.sleep_forever()
        self.is_too_slow = not (self.is_lost or self.is_gone)
        if self.is_ending:
            self.stop_sending()
        self.lose()

    def hurry(self, limit: float) -> None:
        """Let messages take no longer than this from now on, including the current one."""
        if self.send_timeout is None or self.send_timeout > limit:
            self.send_timeout = limit
            self._since = anyio.current_time()
            if self._nap is not None:
                self._nap.cancel()


def _warn_of_dropped_body() -> None:
    global _has_warned
    if not _has_warned:
        _has_warned = True
        _logger.warning(
            "a part of a request's body was dropped: a response waits in receive() for its client "
            "to go, while nobody has read the body. If the source reads the request, share it: "
            "body = SharedReceive(request.receive), and then "
            "EventStream(source(Request(request.scope, body)), receive=body); if nothing needs "
            "the body, read it first. (This is said once.)"
        )
