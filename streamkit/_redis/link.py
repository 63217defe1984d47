"""
The link to the server: connect, subscribe, and connect again when that fails.

There is one connection that is subscribed and one for commands. When either fails both are made
anew, after a pause that grows with each attempt and varies, so that not all processes come at once
when a server is back. An outage is not an error: it is logged once, and again when it is over. A
server that refuses what it is asked is as good as away, but that is logged as what it is.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from coredis import Redis
from coredis.exceptions import RedisError, ResponseError
from coredis.retry import NoRetryPolicy

from .._core.exceptions import first_leaf, without
from .session import ANSWER_WITHIN, Session
from .store import Client

_logger = logging.getLogger("streamkit")

_SCHEMES = ("redis://", "rediss://", "unix://")

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

#: Makes a client, which connects when it is entered.
Connect: TypeAlias = Callable[[], Client]


def connector(url: str, patience: float, options: dict[str, Any]) -> Connect:
    """
    Return what makes clients.

    :param patience: seconds for a connection to be made
    :param options: further arguments of ``coredis.Redis.from_url()``, which win
    :raises ValueError: if ``url`` is of another kind

    """
    if not url.startswith(_SCHEMES):
        # Not the whole of it, which may hold a password.
        raise ValueError(
            f"url must begin with one of {', '.join(_SCHEMES)}, got {url.partition(':')[0]!r}: "
            "write 'redis://localhost:6379/0', for instance"
        )
    return partial(
        Redis.from_url,
        url,
        **{
            "connect_timeout": patience,
            # Also for the PING of an idle subscription: a server that hangs is away.
            "stream_timeout": ANSWER_WITHIN,
            "retry_policy": NoRetryPolicy(),
            **options,
        },
    )


class Link:
    """
    Keeps the connection to the server, in a task that runs :meth:`keep`.

    :param connect: makes a client
    :param channels: what to subscribe to
    :param patience: seconds for a connection to be made

    """

    def __init__(self, connect: Connect, channels: list[str], patience: float) -> None:
        self._connect = connect
        self._channels = channels
        self._patience = patience
        #: Whether the server is there, and answers.
        self.connected = False
        self._delay = _FIRST_DELAY
        # What was said of this outage.
        self._warned: set[str] = set()
        self._tried = anyio.Event()
        self._leaving = anyio.Event()
        self._disconnected = anyio.Event()

    async def keep(self, open_session: Callable[[Client], Session]) -> None:
        """
        Connect, again and again, until :meth:`leave` is called.

        :param open_session: returns what is to be done over a client that has connected
        :raises BaseException: what is no error of a connection

        """
        try:
            while not self._leaving.is_set():
                await self._attempt(open_session)
                self._tried.set()
                with anyio.move_on_after(self._delay * random.uniform(0.5, 1)):
                    await self._leaving.wait()
                self._delay = min(2 * self._delay, _LAST_DELAY)
        finally:
            self._disconnected.set()

    async def wait_tried(self) -> None:
        """Wait until the first attempt to connect is over, whether it has succeeded or failed."""
        await self._tried.wait()

    async def leave(self) -> None:
        """Disconnect, and wait until that is done. Waits for nothing while the server is away."""
        # Not cancelled: coredis would lose its connections in the wrong order.
        self._leaving.set()
        if self.connected:
            await self._disconnected.wait()

    async def _attempt(self, open_session: Callable[[Client], Session]) -> None:
        """Hold a session until the connection fails, or is left."""
        try:
            await self._hold_session(open_session)
        except BaseException as exc:
            rest = without(exc, _is_connection_error)
            if rest is not None:
                raise rest  # noqa: B904  it may be the same
            # Not a word if it was this task that was cancelled: coredis may drop that.
            await checkpoint()
            self._warn(exc)
        finally:
            self.connected = False

    async def _hold_session(self, open_session: Callable[[Client], Session]) -> None:
        """Connect, and pass cancellations on until the connection fails."""
        with anyio.fail_after(self._patience) as patience:
            async with (
                self._connect() as client,
                client.pubsub(
                    channels=self._channels,
                    ignore_subscribe_messages=True,
                    retry_policy=NoRetryPolicy(),
                    max_idle_seconds=self._patience,
                ) as messages,
                anyio.create_task_group() as tasks,
            ):
                # Subscribed first, looked up then: what is cancelled in between comes twice.
                patience.deadline = math.inf
                session = open_session(client)
                tasks.start_soon(session.send, self._is_connected)
                tasks.start_soon(session.listen, messages)
                await self._leaving.wait()
                tasks.cancel_scope.cancel()

    def _is_connected(self) -> None:
        if self._warned:
            _logger.warning("Redis is back")
        self._delay = _FIRST_DELAY
        self._warned.clear()
        self.connected = True
        self._tried.set()

    def _warn(self, exc: BaseException) -> None:
        leaf = first_leaf(exc)
        # To wait does not help against a wrong password, a missing right, or a full memory.
        refused = isinstance(leaf, ResponseError)
        problem = "Redis refuses what it is asked" if refused else "Redis is away"
        if problem not in self._warned:
            _logger.warning(
                "%s (%s): until that is over, a cancellation reaches nobody but this process",
                problem,
                f"{type(leaf).__name__}: {leaf}"[:200],
            )
        self._warned.add(problem)


def _is_connection_error(exc: BaseException) -> bool:
    return isinstance(exc, _CONNECTION_ERRORS)
