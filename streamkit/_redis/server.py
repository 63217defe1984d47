"""
What works differently on a single server and in a cluster.

In a cluster, messages must stay in one shard: a plain ``PUBLISH`` goes to every node. So
channels are sharded, as keys are, and the node that has their slot knows who is subscribed. The
rest is the same, if all names are in one slot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from coredis import Redis, RedisCluster
from coredis.commands.constants import CommandName
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import AskError, ClusterCrossSlotError, ResponseError
from coredis.typing import Key

from .subscription import Subscription

#: Seconds in which the server must answer, else the connection counts as lost.
ANSWER_WITHIN = 5.0

Client: TypeAlias = Redis[bytes] | RedisCluster[bytes]


@dataclass(frozen=True, slots=True)
class Command:
    """A command whose raw answer is taken, with the attributes that coredis reads."""

    #: One of its keys, which decides where it is sent.
    key: str
    name: bytes
    serialized_arguments: tuple[str | bytes | int, ...]
    decode: bool | None = False


class Server:
    """
    A server, or a cluster of them.

    :param client: a connected client
    :raises TypeError: if it is not a coredis client, or one that cannot be used

    """

    def __init__(self, client: object) -> None:
        self._client = checked(client)
        options: Any = self._client.connection_pool.connection_kwargs
        # A server that hangs is away: a PING must find that out, too.
        if options.get("stream_timeout") is None:
            options["stream_timeout"] = ANSWER_WITHIN
        self.database: int = int(options.get("db") or 0)
        self.is_cluster: bool = isinstance(self._client, RedisCluster)

    def pipeline(self) -> AbstractAsyncContextManager[Any]:
        """Return a pipeline for several commands. Each raises its error where it is awaited."""
        # The pipeline's own error would show all arguments, and a reason must not be logged.
        return self._client.pipeline(transaction=False, raise_on_error=False)

    async def send(self, commands: Sequence[Command]) -> list[object]:
        """
        Send commands, one after another, and return their answers, where an error is an answer,
        too.

        A connection of the pool is held only to send, and not until the answers have come. So what
        others send meanwhile goes over the same connection.
        """
        answers: list[object] = [None] * len(commands)
        groups: dict[TCPLocation | None, list[int]] = {}
        if self.is_cluster:
            for number, command in enumerate(commands):
                groups.setdefault(self.place_of(command.key), []).append(number)
        else:
            groups[None] = list(range(len(commands)))
        pool: Any = self._client.connection_pool
        sent: list[tuple[list[int], Awaitable[list[object]]]] = []
        for place, numbers in groups.items():
            async with pool.acquire(place) if place else pool.acquire() as connection:
                batch = connection.create_request_batch([commands[number] for number in numbers])
            sent.append((numbers, batch))
        for numbers, batch in sent:
            for number, answer in zip(numbers, await batch, strict=True):
                answers[number] = answer
        return answers

    def publish(self, to: Any, channel: str, content: str | bytes) -> Awaitable[object]:
        """Publish a message, with a pipeline."""
        publish = to.spublish if self.is_cluster else to.publish
        published: Awaitable[object] = publish(channel, content)
        return published

    async def read(self, names: list[bytes]) -> tuple[bytes | None, ...]:
        """Return what is stored under some names."""
        return await self._client.mget(names)

    @contextmanager
    def explained(self) -> Generator[None, None, None]:
        """
        Say what to write if a client for one server is connected to a cluster.

        :raises ResponseError: if so

        """
        try:
            yield
        except (AskError, ClusterCrossSlotError) as exc:
            if self.is_cluster:
                raise
            raise ResponseError(
                "this is a node of a cluster: write Redis(connect=lambda: "
                "coredis.RedisCluster(host, port))"
            ) from exc

    async def channels(self, pattern: str, like: str) -> set[str]:
        """
        Return the names of the channels that match a pattern and have subscribers.

        :param like: one of them, which decides where to look

        """
        command = (
            CommandName.PUBSUB_SHARDCHANNELS if self.is_cluster else CommandName.PUBSUB_CHANNELS
        )
        async with self._connection(like) as connection:
            found: Any = await connection.create_request(command, pattern, decode=False)
        return {name.decode("utf-8", "replace") for name in found}

    def place_of(self, channel: str) -> TCPLocation | None:
        """Return the node of a cluster that has the slot of a name."""
        if not isinstance(self._client, RedisCluster):
            return None
        layout = self._client.connection_pool.cluster_layout
        return layout.node_for_slot(Key(channel).slot)

    async def open_subscription(self, place: TCPLocation | None) -> Subscription:
        """Return a new connection to a place, to subscribe with. The caller closes it."""
        pool: Any = self._client.connection_pool
        connection = await (pool.get_connection(place) if place else pool.get_connection())
        return Subscription(connection, pool.release, sharded=self.is_cluster)

    def _connection(self, name: str) -> AbstractAsyncContextManager[BaseConnection]:
        """Return a connection to the server that has a name."""
        pool: Any = self._client.connection_pool
        place = self.place_of(name)
        connection: AbstractAsyncContextManager[BaseConnection] = (
            pool.acquire(place) if place else pool.acquire()
        )
        return connection


def checked(client: Any) -> Client:
    """
    Check that a client can be used.

    :raises TypeError: if it is not a coredis client, or does not answer as it must

    """
    if not isinstance(client, Redis | RedisCluster):
        raise TypeError(
            f"connect must make a coredis client, got {type(client).__qualname__}: write "
            "Redis(connect=lambda: coredis.Redis(host, port)), or coredis.RedisCluster(host, port)"
        )
    if client.decode_responses or client.noreply:
        raise TypeError("the client must have neither decode_responses=True nor noreply=True")
    return cast("Client", client)
