"""
The parts that are subscribed to each channel, over one connection.

Several parts may be subscribed to the same channel. In a cluster, there is a connection for each
node that has a channel of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup

from .server import Server
from .subscription import Subscription

#: Takes a published message: the channel and the data.
Receive: TypeAlias = Callable[[str, object], None]


class Channels:
    """
    The channels of one connection.

    :param server: for a connected client
    :param tasks: the task group in which messages are received
    :param patience: seconds after which a silent server is asked whether it is there

    """

    def __init__(self, server: Server, tasks: TaskGroup, patience: float) -> None:
        self._server = server
        self._tasks = tasks
        self._patience = patience
        self._listeners: dict[str, dict[Receive, None]] = {}
        # In a cluster, one for each node.
        self._subscriptions: dict[Hashable, Subscription] = {}
        self._subscribed: dict[str, Subscription] = {}
        self._opening = anyio.Lock()

    def __bool__(self) -> bool:
        """Tell whether there was anything to subscribe to."""
        return bool(self._subscriptions)

    def close(self) -> None:
        """Give back the subscribed connections. To be called when all tasks have ended."""
        for subscription in self._subscriptions.values():
            subscription.close()

    async def subscribe(self, channels: Iterable[str], receive: Receive) -> None:
        """
        Subscribe to channels. Once this returns, no published message is missed.

        :raises coredis.exceptions.ResponseError: if the server refuses it

        """
        groups: dict[Subscription, list[str]] = {}
        for channel in channels:
            # Noted before: the first message may come with the subscription.
            self._listeners.setdefault(channel, {})[receive] = None
            groups.setdefault(await self._subscription_for(channel), []).append(channel)
        for subscription, names in groups.items():
            await subscription.subscribe(names)
            self._subscribed.update(dict.fromkeys(names, subscription))

    async def unsubscribe(self, channels: Iterable[str], receive: Receive) -> None:
        """Stop listening to channels, and unsubscribe if nobody else listens to them."""
        groups: dict[Subscription, list[str]] = {}
        for channel in channels:
            listeners = self._listeners[channel]
            del listeners[receive]
            if not listeners:
                del self._listeners[channel]
                if (subscription := self._subscribed.pop(channel, None)) is not None:
                    groups.setdefault(subscription, []).append(channel)
        for subscription, names in groups.items():
            await subscription.unsubscribe(names)

    async def _subscription_for(self, channel: str) -> Subscription:
        async with self._opening:
            node = self._server.place_of(channel)
            place = node and (node.host, node.port)
            if place not in self._subscriptions:
                subscription = await self._server.open_subscription(node)
                self._subscriptions[place] = subscription
                self._tasks.start_soon(subscription.listen, self._receive)
                self._tasks.start_soon(subscription.keep_alive, self._patience)
            return self._subscriptions[place]

    def _receive(self, channel: str, data: object) -> None:
        # A copy: a listener that is called may stop listening.
        for receive in tuple(self._listeners.get(channel, ())):
            receive(channel, data)
