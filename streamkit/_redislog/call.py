"""
Calls to the server, and the lanes in which they wait.

A call is made by a task that may be cancelled, and sent by one that is not: cancelling a command
costs coredis a connection. So the caller waits for an event, and may leave at any time. Calls that
are made during a round trip gather in the lane, and go with the next one.

Writes and reads have a lane each, so that nothing small and urgent waits behind pages of entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from .._redis.server import Command
from .names import Wire
from .scripts import Script

# The most calls in one round trip.
_MOST_CALLS = 500
# Seconds until a refused call is tried again.
_RETRY_AFTER = 0.2


class Call:
    """
    One run of a script.

    :param script: the script
    :param keys: its keys
    :param arguments: its arguments
    :param channels: where it publishes: these and the publishing command are its last arguments
    :param size: its size in its lane, or 0 if it is small
    :param on_reply: called with the answer, in the task that sends

    """

    __slots__ = (
        "arguments",
        "channels",
        "done",
        "error",
        "expires_at",
        "keys",
        "on_reply",
        "problem",
        "reply",
        "script",
        "sent",
        "size",
        "whole",
    )

    def __init__(
        self,
        script: Script,
        keys: tuple[str, ...],
        arguments: tuple[str | bytes | int, ...],
        *,
        channels: tuple[str, ...] = (),
        size: int = 0,
        on_reply: Callable[[Any], None] | None = None,
    ) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.channels = channels
        self.size = size
        self.on_reply = on_reply
        #: Set when there is an answer or an error, or when nobody waits for it.
        self.done: anyio.Event = anyio.Event()
        self.reply: Any = None
        self.error: Exception | None = None
        self.expires_at: float = 0.0
        #: How often it was sent.
        self.sent: int = 0
        #: The server's reason, if it has refused.
        self.problem: object = None
        #: Whether to send the source of the script, because the server does not know it.
        self.whole: bool = False

    def command(self, wire: Wire, share: int) -> Command:
        """
        Return the command to send. This counts as sending it.

        :param share: the most bytes in the answer

        """
        self.sent += 1
        script = self.script
        name, what = (b"EVAL", script.source) if self.whole else (b"EVALSHA", script.sha)
        arguments = (what, len(self.keys), *self.keys, *self.arguments)
        if self.channels:
            arguments += (*map(wire.channel, self.channels), wire.publish)
        return Command(self.keys[0], name, arguments)

    def settle(self, reply: Any) -> None:
        """Give the answer to the caller that waits for it."""
        self.reply = reply
        if not self.done.is_set():
            self.done.set()
            if self.on_reply is not None:
                self.on_reply(reply)

    def leave(self) -> bool:
        """Note that one caller has stopped waiting, and return whether nobody waits."""
        self.done.set()
        return True

    def fail(self, error: Exception) -> None:
        """Tell the caller that there will be no answer."""
        self.error = error
        self.done.set()


class Lane:
    """
    Calls that wait to be sent, in their order. Small ones go first.

    :param most: the most that the sizes of the calls in one round trip may add up to

    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._small: dict[Call, None] = {}
        self._large: dict[Call, None] = {}
        #: The calls to try again later, and when.
        self._later: dict[Call, float] = {}
        self._woken = anyio.Event()

    def begin(self) -> None:
        """Begin in an event loop, which may be a new one."""
        self._woken = anyio.Event()

    def __len__(self) -> int:
        return len(self._small) + len(self._large) + len(self._later)

    def add(self, call: Call) -> None:
        """Add a call."""
        (self._large if call.size else self._small)[call] = None
        self._woken.set()

    def wake(self) -> None:
        """Wake the task that waits for calls."""
        self._woken.set()

    def discard(self, call: Call) -> None:
        """Drop a call, if it was not sent."""
        self._small.pop(call, None)
        self._large.pop(call, None)
        self._later.pop(call, None)

    def take(self) -> list[Call]:
        """Return the calls that go in the next round trip."""
        if self._later:
            now = anyio.current_time()
            for call in [call for call, due in self._later.items() if due <= now]:
                del self._later[call]
                self.add(call)
        calls: list[Call] = []
        size = 0
        for waiting in (self._small, self._large):
            for call in waiting:
                if len(calls) >= _MOST_CALLS or (size and size + call.size > self._most):
                    break
                calls.append(call)
                size += call.size
        for call in calls:
            self.discard(call)
        return calls

    def put_back(self, calls: list[Call]) -> None:
        """Put back calls whose answers have not come, ahead of all others."""
        small, large = dict(self._small), dict(self._large)
        self._small.clear()
        self._large.clear()
        for call in calls:
            if not call.done.is_set():
                self.add(call)
        self._small.update(small)
        self._large.update(large)

    def retry(self, call: Call, problem: object) -> None:
        """Keep a call that the server has refused, and try it again a little later."""
        call.problem = problem
        self._later[call] = anyio.current_time() + _RETRY_AFTER
        self._woken.set()

    async def wait(self) -> None:
        """Wait until there may be something to take, or for a wake-up."""
        due = min(self._later.values(), default=float("inf"))
        with anyio.CancelScope(deadline=due):
            await self._woken.wait()
        self._woken = anyio.Event()

    def expired(self, now: float) -> list[Call]:
        """Remove the calls that have waited for too long, and return them."""
        waiting = [*self._small, *self._large, *self._later]
        expired = [call for call in waiting if call.expires_at <= now]
        for call in expired:
            self.discard(call)
        return expired
