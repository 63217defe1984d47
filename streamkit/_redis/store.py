"""
The commands that are sent to the server: each method is a few round trips, for many keys.

Stored values live for a limited time, and need no clean-up. The same commands work on one
server and in a cluster; the differences are in ``server``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from coredis import PureToken
from coredis.exceptions import AuthorizationError, ResponseError

from .lease import LEASE, Lease
from .line import is_refusal
from .server import Server
from .wire import Answer, Cancellation, Names, Reply, Settlement, Stored, announcement

# The scripts use only commands that must be allowed anyway, and run even when memory is full.
_KEEP = """#!lua flags=allow-oom
local holder = redis.call("MGET", KEYS[1])[1]
if holder and holder ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1
"""
_REMOVE = """#!lua flags=allow-oom
if redis.call("MGET", KEYS[1])[1] ~= ARGV[1] then return 0 end
return redis.call("DEL", KEYS[1])
"""


class Store:
    """
    The stored values of the server, and its channels, over one connection.

    Every method raises what coredis raises if the connection fails; the commands may have been
    carried out by then, and may be sent again.

    :param milliseconds: how long the server remembers what it stores

    """

    def __init__(self, server: Server, names: Names, milliseconds: int) -> None:
        self._server = server
        self._names = names
        self._milliseconds = milliseconds

    async def check(self) -> None:
        """
        Do everything once that will have to be done later, to know at once what is refused.

        :raises coredis.exceptions.ResponseError: if something is refused

        """
        with self._server.explained():
            await self._try_all()

    async def _try_all(self) -> None:
        probe, own_channel = self._names.probe, self._names.own_channel
        async with self._server.pipeline() as pipeline:
            written = pipeline.set(probe, b"", px=1)
            published = self._server.publish(pipeline, own_channel, b"")
        for done, what in (written, f"SET {probe}"), (published, f"PUBLISH {own_channel}"):
            try:
                await done
            except AuthorizationError as exc:
                # The server does not say which key or channel it was.
                raise AuthorizationError(f"{exc}: {what}") from exc
        # Two keys: a node of a cluster takes them only if they are in one slot.
        await self._server.read([self._names.stored(""), probe.encode()])
        await self.processes()

    async def processes(self) -> set[str]:
        """Return the present processes: the channels on which they receive answers."""
        found = await self._server.channels(self._names.all_processes, self._names.own_channel)
        return {channel for channel in found if self._names.is_for_answers(channel)}

    async def find(self, keys: list[str]) -> dict[str, Stored]:
        """Return the cancellations of those keys that have one."""
        # MGET also skips values that are not strings.
        stored = await self._server.read([self._names.stored(key) for key in keys])
        found = {
            key: cancellation
            for key, data in zip(keys, stored, strict=True)
            if (cancellation := Cancellation.parse(key, data)) is not None
        }
        names = [self._names.settled(each.id).encode() for each in found.values()]
        marks = await self._server.read(names) if names else ()
        return {
            key: Stored(cancellation, mark is not None)
            for (key, cancellation), mark in zip(found.items(), marks, strict=True)
        }

    async def add(self, cancellations: Iterable[Cancellation]) -> list[bool]:
        """
        Store cancellations where nothing is stored.

        :return: for each, whether nothing was stored

        """
        async with self._server.pipeline() as pipeline:
            stored = [self._set(pipeline, each, condition=PureToken.NX) for each in cancellations]
        return [bool(await is_first) for is_first in stored]

    async def replace(self, cancellations: Iterable[Cancellation]) -> None:
        """Store cancellations, whatever is stored."""
        async with self._server.pipeline() as pipeline:
            stored = [self._set(pipeline, each) for each in cancellations]
        for each in stored:
            await each

    async def publish(self, messages: Iterable[tuple[Cancellation, list[str]]]) -> None:
        """Publish cancellations, each with the numbers of requests to say when it is done."""
        async with self._server.pipeline() as pipeline:
            published = [
                self._server.publish(pipeline, self._names.channel, self._announcement(*message))
                for message in messages
            ]
        for each in published:
            await each

    def _announcement(self, cancellation: Cancellation, numbers: list[str]) -> str:
        requests = [(self._names.own_channel, number) for number in numbers]
        return announcement(cancellation.key, cancellation.content, requests)

    async def write(self, chores: Iterable[Settlement | Reply]) -> None:
        """Set marks, and publish answers."""
        async with self._server.pipeline() as pipeline:
            written = [self._write(pipeline, chore) for chore in chores]
        for each in written:
            await each

    async def keep(self, leases: list[Lease]) -> list[bool | ResponseError]:
        """
        Set leases, or renew them.

        :return: for each, whether it is ours, or the error if the server refuses

        """
        milliseconds = round(LEASE * 1000)
        async with self._server.pipeline() as pipeline:
            kept = [
                pipeline.eval(_KEEP, [self._names.lease(lease.key)], [lease.id, milliseconds])
                for lease in leases
            ]
        return [await _answer(each) for each in kept]

    async def remove(self, leases: list[Lease]) -> None:
        """Remove the leases that are ours."""
        async with self._server.pipeline() as pipeline:
            removed = [
                pipeline.eval(_REMOVE, [self._names.lease(lease.key)], [lease.id])
                for lease in leases
            ]
        for each in removed:
            await _answer(each)

    def _write(self, to: Any, chore: Settlement | Reply) -> Awaitable[object]:
        written: Awaitable[object]
        if isinstance(chore, Settlement):
            name = self._names.settled(chore.cancellation_id)
            written = to.set(name, b"", px=self._milliseconds)
        else:
            answer = Answer(chore.request, self._names.own_channel, chore.holds)
            written = self._server.publish(to, chore.channel, answer.content)
        return written

    def _set(self, to: Any, cancellation: Cancellation, **options: Any) -> Awaitable[bool | None]:
        name = self._names.stored(cancellation.key)
        stored: Awaitable[bool | None] = to.set(
            name, cancellation.content, px=self._milliseconds, **options
        )
        return stored


async def _answer(asked: Awaitable[Any]) -> bool | ResponseError:
    """Return the answer of a script, or why the server does not run it."""
    try:
        return bool(await asked)
    except ResponseError as exc:
        if not is_refusal(exc):
            raise
        return exc
