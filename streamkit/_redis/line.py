"""
One connection, and what the parts do over it: each is subscribed, and has a task.

Subscribed first, used then: what is published in between is not lost. A part that goes ends by
itself, for a command that is cancelled costs coredis a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from .server import Server


class Use(Protocol):
    """What a part does over one connection."""

    #: What to subscribe to.
    channels: tuple[str, ...]

    def receive(self, data: object) -> None:
        """Take what was published on one of the channels."""
        ...

    async def run(self, connected: Callable[[], None]) -> None:
        """
        Use the connection until :meth:`end` is called, or until it fails.

        :param connected: to be called when the server is seen to do what is asked of it

        """
        ...

    def end(self) -> None:
        """Let :meth:`run` return when it comes to rest."""
        ...


class Part(Protocol):
    """What uses a link."""

    def use(self, server: Server) -> Use:
        """Return what is to be done over a new connection."""
        ...

    def given_up(self) -> None:
        """Note that there will be no other connection."""
        ...


class Line:
    """
    One connection.

    :param server: over a client that is connected
    :param pubsub: that of the client, which is entered
    :param tasks: for what is done
    :param connected: called with a part when the server is seen to do what that asks of it

    """

    def __init__(
        self, server: Server, pubsub: Any, tasks: TaskGroup, connected: Callable[[Part], None]
    ) -> None:
        self._server = server
        self._pubsub = pubsub
        self._tasks = tasks
        self._connected = connected
        self._uses: dict[Part, Use] = {}
        self._ended: dict[Part, anyio.Event] = {}
        self._channels: dict[str, Use] = {}

    def parts(self) -> list[Part]:
        """Return the parts that use it."""
        return list(self._uses)

    async def add(self, part: Part) -> None:
        """Subscribe, and let a part begin."""
        use = part.use(self._server)
        # Known before: the first message may come with the subscription.
        self._channels.update(dict.fromkeys(use.channels, use))
        await self._server.subscribe(self._pubsub, use.channels)
        if not self._uses:
            self._tasks.start_soon(self._listen)
        self._uses[part], self._ended[part] = use, anyio.Event()
        self._tasks.start_soon(self._run, part)

    async def remove(self, part: Part) -> None:
        """Let a part end, and take its channels off."""
        self._uses[part].end()
        await self._ended[part].wait()
        use = self._uses.pop(part)
        del self._ended[part]
        await self._pubsub.unsubscribe(*use.channels)
        for channel in use.channels:
            del self._channels[channel]

    async def wait_ended(self, part: Part) -> None:
        """Let a part end, and wait until it has."""
        if part in self._uses:
            self._uses[part].end()
            await self._ended[part].wait()

    async def _run(self, part: Part) -> None:
        try:
            await self._uses[part].run(partial(self._connected, part))
        finally:
            self._ended[part].set()

    async def _listen(self) -> None:
        async for message in self._pubsub:
            use = self._channels.get(message["channel"].decode("utf-8", "replace"))
            if use is not None:
                use.receive(message["data"])
        raise ConnectionResetError("the subscription has ended")
