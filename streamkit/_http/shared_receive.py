"""
``SharedReceive``: one ``receive`` for the source that reads the request, and for the response.

A response waits in ``receive`` to learn that its client has gone, and ``receive`` gives each
message to one caller. So the response looks at the next message and leaves it there, and looks
again when it was taken. Only one of the two is in ``receive`` at a time.
"""

from __future__ import annotations

import anyio

from .messages import Message, Receive

_GONE: Message = {"type": "http.disconnect"}


class SharedReceive:
    """
    A ``receive`` for a source that reads the request that is being answered.

    Give it to the request that the source reads, and to the response as ``receive``, or call a
    plain ASGI response with it instead of its ``receive``::

        body = SharedReceive(request.receive)
        return EventStream(source(Request(request.scope, body)), receive=body)

    Every message goes to the source, in order; the response only looks at the next one. Both are
    told when the client has gone. While a message waits to be read, the response does not see the
    messages after it, and learns from ``send`` that the client has gone.

    Any number of tasks of one event loop may call it. A cancelled call loses no message.

    :param receive: ``receive`` of ASGI

    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._lock = anyio.Lock()
        self._next: Message | None = None
        self._taken = anyio.Event()
        self._is_gone = False

    async def __call__(self) -> Message:
        """
        Return the next message, as ``receive`` of ASGI does.

        Waits for it, and may be cancelled. When the client has gone, each call says so.
        """
        async with self._lock:
            message = await self._look()
            if not self._is_gone:
                self._next = None
                self._taken.set()
            return message

    async def wait_for_disconnect(self) -> None:
        """Wait until the client has gone, and leave every message to the callers of this object."""
        while True:
            async with self._lock:
                await self._look()
                taken = self._taken
            if self._is_gone:
                return
            await taken.wait()

    async def _look(self) -> Message:
        """Return the next message, which stays the next one."""
        if self._is_gone:
            return _GONE
        if self._next is None:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_gone = True
                return message
            self._next, self._taken = message, anyio.Event()
        return self._next
