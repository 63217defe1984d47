"""
The link to the server: connect, subscribe, and reconnect when the connection fails.

There is one connection that is subscribed and one for commands, shared by all parts that use the
link, such as a registry. When either fails, both are made anew, after a pause that grows with each
attempt and varies, so that not all processes come at once when a server is back. Each attempt has a
new client, which asks anew where the server is. An outage is not an error: it is logged once, and
again when it is over. A server that refuses a request is as good as away, but the log says that it
refuses.

Without parts, nothing is connected.
"""

from __future__ import annotations

import logging
import math
import random
from contextlib import AsyncExitStack

import anyio
from anyio.lowlevel import checkpoint
from coredis.exceptions import RedisClusterError, RedisError, ResponseError

from .._core.exceptions import first_leaf, without
from .clients import Connect
from .line import Line, Part
from .server import Server

_logger = logging.getLogger("streamkit")

# coredis lets some of anyio's errors through, when it closes a connection that has failed.
_CONNECTION_ERRORS = (
    RedisError,
    OSError,
    TimeoutError,
    anyio.EndOfStream,
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
)
# Seconds before another attempt to connect.
_FIRST_DELAY, _LAST_DELAY = 0.05, 2.0


class _State:
    """What the link knows of a part."""

    def __init__(self) -> None:
        #: Set after an attempt to connect for it, whether that succeeded or failed.
        self.tried = anyio.Event()
        self.connected = False
        #: Whether the server refuses its requests, which was logged.
        self.refused = False


class Link:
    """
    Keeps the connection to the server, in a task that runs :meth:`keep`.

    :param connect: makes a client
    :param patience: seconds in which a connection must be made

    """

    def __init__(self, connect: Connect, patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._parts: dict[Part, _State] = {}
        # How many connections there were over which the server has done something.
        self._connections = 0
        self._delay = _FIRST_DELAY
        # The present connection, and whether nothing was done over it yet.
        self._line: Line | None = None
        self._is_new = False
        # What was logged about this outage.
        self._warned: set[str] = set()
        self._leaving = False
        self._disconnected = anyio.Event()
        # Set when a part comes or goes, and when the link is left.
        self._changed = anyio.Event()

    @property
    def connected(self) -> bool:
        """Whether the server is there, and does what all parts ask."""
        return bool(self._parts) and all(state.connected for state in self._parts.values())

    @property
    def reconnects(self) -> int:
        """How often the connection was made anew."""
        return max(0, self._connections - 1)

    def serves(self, part: Part) -> bool:
        """Tell whether the server is there, and does what a part asks."""
        state = self._parts.get(part)
        return state is not None and state.connected

    async def join(self, part: Part) -> None:
        """
        Let a part use the link. Waits for the first attempt, whether it succeeds or fails.

        If this is cancelled, the part has joined: :meth:`drop` it.
        """
        state = self._parts[part] = _State()
        self._change()
        await state.tried.wait()

    async def part(self, part: Part) -> None:
        """
        Let a part go, and wait until it has ended.

        If this is cancelled, the part is gone all the same, and ends soon after.
        """
        self.drop(part)
        if self._line is not None:
            await self._line.end(part)

    def drop(self, part: Part) -> None:
        """Let a part go. It ends soon after."""
        self._parts.pop(part, None)
        self._change()

    async def keep(self) -> None:
        """
        Connect, again and again, until :meth:`leave` is called.

        :raises BaseException: if it is not an error of the connection

        """
        try:
            while not self._leaving:
                if self._parts:
                    await self._attempt()
                    await self._rest()
                else:
                    await self._next_change()
        finally:
            self._disconnected.set()
            for part in self._parts:
                part.given_up()

    async def leave(self) -> None:
        """Disconnect, and wait until that is done. Does not wait while the server is away."""
        self._leaving = True
        self._change()
        # Nothing is cancelled for that: coredis would lose its connections in the wrong order.
        if self._line is not None and not self._is_new:
            await self._disconnected.wait()

    def _change(self) -> None:
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()

    async def _rest(self) -> None:
        """Wait before the next attempt, unless the link is left meanwhile."""
        with anyio.move_on_after(self._delay * random.uniform(0.5, 1)):
            while not self._leaving:
                await self._next_change()
        self._delay = min(2 * self._delay, _LAST_DELAY)

    async def _attempt(self) -> None:
        """Use a connection until it fails, or the link is left."""
        try:
            await self._hold_connection()
        except BaseException as exc:
            rest = without(exc, _is_connection_error)
            if rest is not None:
                raise rest  # noqa: B904  it may be the same error
            # Nothing is logged if this task was cancelled: coredis may drop the cancellation.
            await checkpoint()
            self._is_lost(exc)
            for state in self._parts.values():
                state.tried.set()
        finally:
            self._line = None
            for state in self._parts.values():
                state.connected = False

    async def _hold_connection(self) -> None:
        """Connect, and let all parts use the connection until it fails."""
        with anyio.fail_after(self._patience) as patience:
            async with AsyncExitStack() as stack:
                server = Server(await stack.enter_async_context(self._connect()))
                # From here on, each part has its own bound.
                patience.deadline = math.inf
                tasks = anyio.create_task_group()
                line = Line(server, tasks, self, self._patience)
                stack.callback(line.close)
                await stack.enter_async_context(tasks)
                self._line, self._is_new = line, True
                while not self._leaving and self._parts:
                    if (part := self._newcomer(line)) is not None:
                        line.add(part)
                    elif (part := self._gone(line)) is not None:
                        await line.remove(part)
                    else:
                        await self._next_change()
                tasks.cancel_scope.cancel()

    def _newcomer(self, line: Line) -> Part | None:
        users = line.parts()
        return next((part for part in self._parts if part not in users), None)

    def _gone(self, line: Line) -> Part | None:
        return next((part for part in line.parts() if part not in self._parts), None)

    def is_connected(self, part: Part) -> None:
        """Note that the server does what a part asks."""
        if (state := self._parts.get(part)) is None or state.connected:
            return
        state.connected = True
        state.tried.set()
        self._connections += self._is_new
        self._is_new = False
        if self._warned or state.refused:
            _logger.warning("Redis is back")
        state.refused = False
        self._warned.clear()
        self._delay = _FIRST_DELAY

    def is_refused(self, part: Part, error: ResponseError) -> None:
        """Note that the server refuses what a part asks."""
        if (state := self._parts.get(part)) is None:
            return
        state.connected = False
        state.tried.set()
        if not state.refused:
            _warn(_REFUSES, error)
        state.refused = True

    def _is_lost(self, error: BaseException) -> None:
        leaf = first_leaf(error)
        # Waiting does not help against a wrong password. It does help while a slot is on its way
        # to another node.
        is_answer = isinstance(leaf, ResponseError) and not isinstance(leaf, RedisClusterError)
        problem = _REFUSES if is_answer else _AWAY
        if problem not in self._warned:
            _warn(problem, leaf)
        self._warned.add(problem)


_AWAY, _REFUSES = "Redis is away", "Redis refuses what it is asked"


def _warn(problem: str, error: BaseException) -> None:
    _logger.warning(
        "%s (%s): until that is over, nothing reaches other processes or comes from them",
        problem,
        f"{type(error).__name__}: {str(error) or 'no answer'}"[:200],
    )


def _is_connection_error(exc: BaseException) -> bool:
    return isinstance(exc, _CONNECTION_ERRORS)
