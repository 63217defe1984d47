"""
The commands that are sent to the server: each method is one or two round trips, for many keys.

What is stored lives for as long as ``remember`` says, and nothing has to be cleaned up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from coredis import PureToken, Redis

from .wire import Cancellation, Names, Reply, Request, Settlement, Stored, announcement

if TYPE_CHECKING:
    from coredis.patterns.pipeline import Pipeline

Client: TypeAlias = Redis[bytes]


class Store:
    """
    What the server has stored, and its channels, over one connection.

    Every method raises what coredis does if the connection fails; the commands may have been
    carried out by then, and may be sent again.

    :param milliseconds: how long the server remembers what it is told

    """

    def __init__(self, client: Client, names: Names, milliseconds: int) -> None:
        self._client = client
        self._names = names
        self._milliseconds = milliseconds

    async def find(self, keys: list[str]) -> dict[str, Stored]:
        """Return the cancellations of those keys that have one."""
        # MGET also passes over what is no string.
        stored = await self._client.mget([self._names.stored(key) for key in keys])
        found = {
            key: cancellation
            for key, data in zip(keys, stored, strict=True)
            if (cancellation := Cancellation.parse(key, data)) is not None
        }
        names = [self._names.settled(cancellation.id) for cancellation in found.values()]
        marks = await self._client.mget(names) if names else ()
        return {
            key: Stored(cancellation, mark is not None)
            for (key, cancellation), mark in zip(found.items(), marks, strict=True)
        }

    async def add(self, cancellations: Iterable[Cancellation]) -> list[bool]:
        """
        Store cancellations where nothing is stored.

        :return: for each, whether there was nothing

        """
        async with self._pipeline() as pipeline:
            stored = [self._set(pipeline, each, condition=PureToken.NX) for each in cancellations]
        return [bool(await is_first) for is_first in stored]

    async def replace(self, cancellations: Iterable[Cancellation]) -> None:
        """Store cancellations, whatever is stored."""
        async with self._pipeline() as pipeline:
            stored = [self._set(pipeline, each) for each in cancellations]
        for each in stored:
            await each

    async def publish(self, messages: Iterable[tuple[Cancellation, list[Request]]]) -> list[int]:
        """
        Publish cancellations, each with requests to say when it is done.

        :return: for each, how many processes have received it

        """
        async with self._pipeline() as pipeline:
            published = [
                pipeline.publish(
                    self._names.channel,
                    announcement(cancellation.key, cancellation.content, requests),
                )
                for cancellation, requests in messages
            ]
        return [await receivers for receivers in published]

    async def write(self, chores: Iterable[Settlement | Reply]) -> None:
        """Set marks, and publish answers."""
        async with self._pipeline() as pipeline:
            written = [self._write(pipeline, chore) for chore in chores]
        for each in written:
            await each

    def _write(self, to: Any, chore: Settlement | Reply) -> Awaitable[object]:
        written: Awaitable[object]
        if isinstance(chore, Settlement):
            name = self._names.settled(chore.cancellation_id)
            written = to.set(name, b"", px=self._milliseconds)
        else:
            written = to.publish(chore.channel, chore.answer.content)
        return written

    def _pipeline(self) -> Pipeline[bytes]:
        # Errors come out where the commands are awaited: what the pipeline raises itself is told
        # with all arguments first, and a reason is nothing for a log.
        return self._client.pipeline(transaction=False, raise_on_error=False)

    def _set(self, to: Any, cancellation: Cancellation, **options: Any) -> Awaitable[bool | None]:
        name = self._names.stored(cancellation.key)
        stored: Awaitable[bool | None] = to.set(
            name, cancellation.content, px=self._milliseconds, **options
        )
        return stored
