"""
One connection, and what the parts do over it: each is subscribed, and has a task.

A part is subscribed before it is used: nothing published in between is lost. If the server refuses
a request of one part, the others go on, and that part asks again, over the same connection. A part
that goes ends by itself, and is not cancelled: a cancelled command costs coredis a connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from coredis.exceptions import ReadOnlyError, RedisClusterError, ResponseError

from .channels import Channels
from .server import ANSWER_WITHIN, Server

# Seconds before a part asks again.
_FIRST_DELAY, _LAST_DELAY = 0.05, 2.0


class Use(Protocol):
    """What a part does over one connection."""

    #: What to subscribe to.
    channels: tuple[str, ...]

    async def check(self) -> None:
        """
        See whether the server will do what it is asked, before anything is subscribed.

        :raises coredis.exceptions.ResponseError: if it refuses something

        """
        ...

    def receive(self, data: object) -> None:
        """Take what was published on one of the channels."""
        ...

    async def run(self, connected: Callable[[], None]) -> None:
        """
        Use the connection until :meth:`end` is called, or until it fails.

        :param connected: called when the server has done what it was asked

        """
        ...

    def end(self) -> None:
        """Let :meth:`run` return when its present work is done."""
        ...


class Part(Protocol):
    """A user of a link."""

    def use(self, server: Server, channels: Channels) -> Use:
        """
        Return the work to do over a new connection.

        :param channels: for channels to subscribe to while it is used

        """
        ...

    def given_up(self) -> None:
        """Note that there will be no further connection."""
        ...


class Watcher(Protocol):
    """An observer of how the parts fare."""

    def is_connected(self, part: Part) -> None:
        """Note that the server does what a part asks."""
        ...

    def is_refused(self, part: Part, error: ResponseError) -> None:
        """Note that the server refuses what a part asks."""
        ...


class _Task:
    """A part at work."""

    def __init__(self, use: Use) -> None:
        self.use = use
        #: The channels that it has begun to subscribe to, and whether it is subscribed.
        self.channels: tuple[str, ...] = ()
        self.is_subscribed = False
        #: Set when it should end, and when it has ended.
        self.ending = anyio.Event()
        self.ended = anyio.Event()

    def receive(self, channel: str, data: object) -> None:
        self.use.receive(data)


class Line:
    """
    One connection.

    :param server: for a connected client
    :param tasks: the task group for the parts
    :param watcher: is told how the parts fare
    :param patience: seconds in which the server must answer at the very beginning

    """

    def __init__(self, server: Server, tasks: TaskGroup, watcher: Watcher, patience: float) -> None:
        self._server = server
        self._tasks = tasks
        self._watcher = watcher
        self._patience = patience
        self._at_work: dict[Part, _Task] = {}
        self._channels = Channels(server, tasks, patience)

    def close(self) -> None:
        """Give back the subscribed connections. To be called when all tasks have ended."""
        self._channels.close()

    def parts(self) -> list[Part]:
        """Return the parts that use this connection."""
        return list(self._at_work)

    def add(self, part: Part) -> None:
        """Let a part begin."""
        self._at_work[part] = task = _Task(part.use(self._server, self._channels))
        self._tasks.start_soon(self._work, part, task)

    async def end(self, part: Part) -> None:
        """Let a part end, and wait until it has."""
        if (task := self._at_work.get(part)) is not None:
            task.ending.set()
            task.use.end()
            await task.ended.wait()

    async def remove(self, part: Part) -> None:
        """Let a part end, and unsubscribe its channels."""
        await self.end(part)
        task = self._at_work.pop(part)
        await self._channels.unsubscribe(task.channels, task.receive)

    async def _work(self, part: Part, task: _Task) -> None:
        delay = _FIRST_DELAY
        try:
            while not task.ending.is_set():
                try:
                    await self._begin(task)
                    delay = _FIRST_DELAY
                    await task.use.run(partial(self._watcher.is_connected, part))
                except ResponseError as exc:
                    if not is_refusal(exc):
                        raise
                    self._watcher.is_refused(part, exc)
                    task.use = part.use(self._server, self._channels)
                with anyio.move_on_after(delay * random.uniform(0.5, 1)):
                    await task.ending.wait()
                delay = min(2 * delay, _LAST_DELAY)
        finally:
            task.ended.set()

    async def _begin(self, task: _Task) -> None:
        """See whether everything is allowed, and subscribe, unless that was done."""
        use = task.use
        # A connection that nobody uses yet is given up sooner.
        limit = ANSWER_WITHIN if self._channels else self._patience
        with anyio.fail_after(limit):
            await use.check()
            if not task.is_subscribed:
                task.channels = use.channels
                await self._channels.subscribe(use.channels, task.receive)
                task.is_subscribed = True


def is_refusal(error: BaseException) -> bool:
    """
    Tell whether a server refuses a request, for want of a right or of memory, for instance.

    It is not a refusal if another server should be asked: this one is a replica, or has lost a
    slot.
    """
    return isinstance(error, ResponseError) and not isinstance(
        error, ReadOnlyError | RedisClusterError
    )
