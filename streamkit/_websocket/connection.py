"""
The client of one socket, which is read continuously.

Nothing that it says is kept, so nothing can pile up, and neither a stop nor its going has to wait
for a reader. Any message that is not a stop is dropped.

The reading ends before the last message: granian does not close a socket while somebody waits in
``receive()``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from .._http.connection import GONE, SHORT, Connection
from .._http.messages import Message, Receive, Send
from .._signals.shutdown import Shutdown
from .closing import RESTART
from .messages import DISCONNECT, RECEIVE
from .stops import Stop, asked_by


class SocketConnection(Connection):
    """
    The connection to the client of a socket.

    :param receive: of ASGI
    :param send: of ASGI
    :param send_timeout: as for :class:`Connection`
    :param on_lost: as for :class:`Connection`; may be given the reason
    :param stop: tells a stop from other messages, or ``None``
    :param on_stop: called with the reason when the client asks for one
    :param on_error: called with what ``stop`` has raised
    :param is_accepted: whether the handshake is over

    """

    __slots__ = ("_begin", "_connected", "_on_error", "_on_stop", "_quiet", "_reading", "_stop")

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        send_timeout: float | None,
        on_lost: Callable[..., bool],
        stop: Stop | None,
        on_stop: Callable[[object], object],
        on_error: Callable[[BaseException], object],
        is_accepted: bool,
    ) -> None:
        super().__init__(receive, send, send_timeout=send_timeout, on_lost=on_lost)
        self.has_started = is_accepted
        # Set when the message that asks for a socket was read.
        self._connected: anyio.Event | None = None if is_accepted else anyio.Event()
        self._begin = on_lost
        self._stop = stop
        self._on_stop = on_stop
        self._on_error = on_error
        # The scope in which the client is read, while it is, and the event set when reading has
        # stopped.
        self._reading: anyio.CancelScope | None = None
        self._quiet: anyio.Event | None = None

    async def wait_until_connected(self) -> None:
        """Wait until the reading task has read the message that asks for a socket."""
        if self._connected is not None:
            await self._connected.wait()
            self._connected = None

    async def connect(self) -> None:
        """Read that message, where nothing else reads."""
        if self._connected is not None:
            self._connected = None
            with suppress(*GONE):
                await self._receive()

    async def stop_reading(self) -> None:
        """Make the reading task leave ``receive()``. Takes no time if it is not there."""
        if self._reading is None:
            return
        self._quiet = anyio.Event()
        self._reading.cancel()
        # Bounded, because a server may not let go.
        with anyio.move_on_after(SHORT):
            await self._quiet.wait()

    async def end(self, message: Message) -> None:
        if not self.is_lost:
            # From now on nobody watches whether it goes: if it does, the server ends what is being
            # sent.
            self.is_ending = True
            await self.stop_reading()
            if self.is_gone:
                # It went just before. uvicorn takes nothing after it has told that.
                return
        await super().end(message)

    def _hear(self) -> Awaitable[None]:
        return self._read()

    async def _read(self) -> None:
        scope = self._reading = anyio.CancelScope()
        try:
            with scope:
                await self._read_until_disconnect()
        finally:
            self._reading = None
            if self._connected is not None:
                self._connected.set()
            if self._quiet is not None:
                self._quiet.set()
        if scope.cancelled_caught:
            # It was not the client that has ended this.
            await anyio.sleep_forever()

    async def _read_until_disconnect(self) -> None:
        while (message := await self._receive())["type"] != DISCONNECT:
            if self._connected is not None:
                self._connected.set()
            if message["type"] == RECEIVE and self._stop is not None:
                text = message.get("text")
                self._look_for_stop(self._stop, message["bytes"] if text is None else text)
            # A client may send messages so fast that ``receive()`` never blocks.
            await checkpoint()
        if message.get("code") == RESTART:
            # It was not the client: when uvicorn ends, it closes its sockets before anything else.
            self._on_lost = partial(self._begin, Shutdown())

    def _look_for_stop(self, stop: Stop, message: str | bytes) -> None:
        try:
            is_asked, reason = asked_by(stop, message)
        except Exception as exc:
            self._stop = None
            self._on_error(exc)
        else:
            if is_asked:
                self._on_stop(reason)
