"""
A subscribed connection, on top of coredis connections but without its ``PubSub``.

``PubSub`` does not distinguish a refused subscription from a slow server, and in a cluster it
leaves connections to the garbage collector, which trio logs as errors.

Subscribing has no answer of its own, only messages among others. So a ``PING`` follows: if the
subscription is refused, the refusal is the first answer, and comes instead of that to the ``PING``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any, Never

import anyio
from coredis.commands.constants import CommandName
from coredis.connection import BaseConnection
from coredis.exceptions import ResponseError

# Seconds in which the server must answer.
_ANSWER_WITHIN = 5.0
# Seconds in which stray answers come: they follow the one before.
_STRAY_WITHIN = 0.2


class Subscription:
    """
    A subscribed connection.

    :param connection: a connection that nobody else uses
    :param release: called with the connection at the end
    :param sharded: whether the channels are those of a cluster

    """

    def __init__(
        self, connection: BaseConnection, release: Callable[[Any], object], *, sharded: bool
    ) -> None:
        self._connection = connection
        self._release = release
        self._is_sharded = sharded
        self._subscribe = CommandName.SSUBSCRIBE if sharded else CommandName.SUBSCRIBE
        self._unsubscribe = CommandName.SUNSUBSCRIBE if sharded else CommandName.UNSUBSCRIBE
        # One request at a time, so that each gets its own answer.
        self._turn = anyio.Lock()
        # How many unsubscriptions the server has yet to confirm.
        self._unconfirmed: Counter[bytes] = Counter()
        self._has_heard = False

    def close(self) -> None:
        """Give the connection back, so that nobody else uses it."""
        self._connection.invalidate()
        self._release(self._connection)

    async def subscribe(self, channels: Iterable[str]) -> None:
        """
        Subscribe to channels.

        :raises ResponseError: if the server refuses it

        """
        names = [channel.encode() for channel in channels]
        async with self._turn:
            self._send(self._subscribe, names)
            try:
                await self._ping()
            except ResponseError:
                await self._drop_answers()
                raise

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Unsubscribe from channels."""
        names = [channel.encode() for channel in channels]
        async with self._turn:
            self._unconfirmed.update(names)
            self._send(self._unsubscribe, names)
            await self._ping()

    async def listen(self, receive: Callable[[str, object], None]) -> Never:
        """
        Pass messages on, each with its channel, until the connection fails.

        :raises coredis.exceptions.ConnectionError: when it fails
        :raises ConnectionResetError: if the server ends a subscription, as when a slot has moved

        """
        async with aclosing(self._connection.push_messages) as messages:
            async for message in messages:
                self._has_heard = True
                match message:
                    case [b"message" | b"smessage", bytes(channel), data]:
                        receive(channel.decode("utf-8", "replace"), data)
                    case [b"unsubscribe" | b"sunsubscribe", bytes(channel), _]:
                        if not self._unconfirmed[channel]:
                            break
                        self._unconfirmed[channel] -= 1
                        if not self._unconfirmed[channel]:
                            del self._unconfirmed[channel]
                    case _:
                        pass
        raise ConnectionResetError("the subscription has ended")

    async def keep_alive(self, every: float) -> Never:
        """
        Ask whether the server is there, whenever it has been silent for some time.

        :raises TimeoutError: if it does not answer

        """
        while True:
            self._has_heard = False
            await anyio.sleep(every)
            if not self._has_heard:
                async with self._turn:
                    await self._ping()

    def _send(self, command: CommandName, names: list[bytes]) -> None:
        # In a cluster, a command takes channels of one slot only.
        for some in [[name] for name in names] if self._is_sharded else [names]:
            self._connection.send_command(command, *some)

    async def _drop_answers(self) -> None:
        """Take the answers that nobody waits for: another answer came instead."""
        # There is none if the PING itself was refused.
        async with aclosing(self._connection.streamed_messages) as answers:
            while True:
                with anyio.move_on_after(_STRAY_WITHIN) as scope:
                    await anext(answers)
                if scope.cancelled_caught:
                    break

    async def _ping(self) -> None:
        with anyio.fail_after(_ANSWER_WITHIN):
            await self._connection.create_request(CommandName.PING)
