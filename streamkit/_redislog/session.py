"""
What a log does over one connection, from its start until it fails.

One task sends writes and another sends reads, one round trip at a time: calls that come meanwhile
gather, and go with the next one. A third task keeps the subscriptions up to date. A fourth looks
from time to time at the runs that are followed here, because a message may be lost. None of them is
cancelled while a command is under way, unless the connection is lost.

Calls that have no answer when that happens are sent again over the next connection: each script
finds out whether it was run before.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
from coredis.exceptions import NoScriptError

from .._redis.channels import Channels
from .._redis.line import is_refusal
from .._redis.server import ANSWER_WITHIN, Server
from .._runs.errors import LogFull
from .call import Call, Lane
from .desk import Desk
from .names import RunNames, Wire
from .scripts import PROBE

# The most bytes of entries that are read in one round trip.
_MOST_READ = 256 * 1024


class Session:
    """
    One connection's work.

    :param server: the server, over a connected client
    :param channels: the channels of the same connection
    :param desk: the work of the log
    :param probe: the names of a run that does not exist
    :param reconcile: seconds between two looks

    """

    def __init__(
        self, server: Server, channels: Channels, desk: Desk, probe: RunNames, reconcile: float
    ) -> None:
        self._server = server
        self._channels = channels
        self._desk = desk
        self._probe = probe
        self._wire = Wire(server.database, in_cluster=server.is_cluster)
        self._reconcile = reconcile
        self._ending = anyio.Event()
        #: The channels to subscribe to at once: the one on which a run that does not exist would be
        #: told.
        self.channels: tuple[str, ...] = (self._wire.channel(probe.requests),)

    async def check(self) -> None:
        """Check that the server does what it will be asked: it may refuse to read or to write."""
        probe, wire = self._probe, self._wire
        keys = probe.meta, probe.entries, probe.early
        call = Call(PROBE, keys, (), channels=(probe.news, probe.requests))
        with anyio.fail_after(ANSWER_WITHIN):
            [answer] = await self._server.send([call.command(wire, 0)])
            if isinstance(answer, NoScriptError):
                call.whole = True
                [answer] = await self._server.send([call.command(wire, 0)])
            if isinstance(answer, Exception):
                with self._server.explained():
                    raise answer

    def receive(self, data: object) -> None:
        """Take a message on the channel of a run that does not exist: ignore it."""

    def end(self) -> None:
        """Let :meth:`run` return when it has nothing to send."""
        self._ending.set()
        self._desk.writes.wake()
        self._desk.reads.wake()
        self._desk.wants_changed.set()

    async def run(self, connected: Callable[[], None]) -> None:
        """
        Do the work, until :meth:`end` or until the connection fails.

        :param connected: called at once: the server has been checked

        """
        connected()
        self._desk.is_connected()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send, self._desk.writes)
                tasks.start_soon(self._send, self._desk.reads)
                tasks.start_soon(self._subscribe)
                tasks.start_soon(self._look)
        finally:
            self._desk.is_disconnected()

    async def _send(self, lane: Lane) -> None:
        """Send the calls of a lane, one round trip at a time."""
        while True:
            calls = lane.take()
            if calls:
                await self._round_trip(lane, calls)
            elif self._ending.is_set():
                return
            else:
                await lane.wait()

    async def _round_trip(self, lane: Lane, calls: list[Call]) -> None:
        share = _MOST_READ // max(1, sum(call.size for call in calls))
        unanswered = dict.fromkeys(calls)
        try:
            answers = await self._server.send([call.command(self._wire, share) for call in calls])
            lost: Exception | None = None
            for call, answer in zip(calls, answers, strict=True):
                if isinstance(answer, NoScriptError):
                    call.whole, call.sent = True, call.sent - 1
                elif isinstance(answer, Exception) and not is_refusal(answer):
                    lost = answer
                else:
                    del unanswered[call]
                    self._settle(lane, call, answer)
            if lost is not None:
                with self._server.explained():
                    raise lost
        finally:
            self._desk.put_back(list(unanswered), lane)

    def _settle(self, lane: Lane, call: Call, answer: object) -> None:
        if not isinstance(answer, Exception):
            call.settle(answer)
        elif call.script.needs_memory and str(answer).startswith("OOM"):
            call.fail(LogFull("Redis has no memory left: give it more, or keep less"))
        elif not call.done.is_set():
            # This is a problem of one run: the others go on.
            lane.retry(call, answer)

    async def _subscribe(self) -> None:
        """Subscribe to the channels that are wanted, and unsubscribe from the others."""
        desk = self._desk
        while not self._ending.is_set():
            desk.wants_changed = anyio.Event()
            if unwanted := desk.unwanted():
                await self._channels.unsubscribe(map(self._wire.channel, unwanted), self._hear)
            elif wanted := desk.wanted():
                await self._channels.subscribe(map(self._wire.channel, wanted), self._hear)
                desk.are_subscribed(wanted)
            else:
                await desk.wants_changed.wait()

    def _hear(self, channel: str, data: object) -> None:
        self._desk.receive(self._wire.name(channel), data)

    async def _look(self) -> None:
        """Look at the runs that are followed, from time to time."""
        desk = self._desk
        while not self._ending.is_set():
            with anyio.move_on_after(self._reconcile * random.uniform(0.8, 1)):
                await self._ending.wait()
            for followed in desk.followed.values():
                desk.submit(desk.look(followed), desk.reads)
