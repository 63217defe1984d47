"""
``Redis``: the connection to a server, shared by all its users in a process.

A user joins it while its own block is open. The block of the connection is entered in one place, a
lifespan for instance, so that its task belongs to an owner that outlives the users.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, current_token

from .._core.exceptions import bare
from .._core.process import check_process
from .clients import Connect, by_factory, by_url
from .link import Link
from .quiet import Quiet

_PATIENCE = 2.0


class Home:
    """A connection, as its users see it."""

    def __init__(self, connect: Connect, patience: float) -> None:
        self._link = Link(connect, patience)
        #: Seconds to make a connection, to look up a key, and to end.
        self.patience = patience
        # The process and the event loop in which it was entered.
        self._process: int | None = None
        self._loop: EventLoopToken | None = None
        self._tasks: TaskGroup

    def start(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a function in a task, which is cancelled if it has not ended when the block ends."""
        self._tasks.start_soon(function)

    def link(self) -> Link:
        """
        Return the link, for a part to join.

        :raises RuntimeError: if the block is not open here

        """
        if self._process is not None:
            check_process(self, self._process)
        if self._loop is None:
            raise RuntimeError(
                f"{self!r} is not open: write 'async with redis, RedisCancelRegistry(redis) as "
                "runs:'"
            )
        if self._loop != current_token():
            raise RuntimeError(f"{self!r} was entered in another event loop: make one for each")
        return self._link


class Redis(Home):
    """
    A connection to Redis or Valkey, shared by everything of streamkit in this process that uses it.

    Give it to a :class:`RedisCancelRegistry` instead of an address: to share one connection, or to
    reach a cluster or a server that Sentinel watches. An async context manager: enter it before its
    users and leave it after them. It is connected while somebody uses it.

    ``connect`` makes a coredis client: a ``coredis.Redis`` or a ``coredis.RedisCluster`` that
    nobody has entered, or an async context manager that yields one. It is called for each attempt
    to connect, so that a cluster or Sentinel is asked each time where the server is.

    :param url: as for ``coredis.Redis.from_url()``, for instance ``"redis://localhost:6379/0"``
    :param connect: a function that returns a new client, in place of ``url``
    :param options: further arguments of ``coredis.Redis.from_url()``, such as ``ssl_context``
    :raises TypeError: if neither or both of them are given, or coredis does not know an option
    :raises ValueError: if ``url`` has another scheme, or cannot be read

    """

    def __init__(
        self,
        url: str | None = None,
        *,
        connect: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        **options: Any,
    ) -> None:
        make: Connect
        if connect is None:
            make = by_url(url, _PATIENCE, options)
        elif url is not None or options:
            raise TypeError(
                "connect makes the whole client: write Redis(connect=...) without an address and "
                "without options"
            )
        else:
            make = by_factory(connect)
        super().__init__(make, _PATIENCE)
        self._entered = False
        self._stack: AsyncExitStack

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__}, {state}>"

    @property
    def connected(self) -> bool:
        """Whether the server is there and does what it is asked. Without users: ``False``."""
        return self._link.connected

    async def __aenter__(self) -> Self:
        """
        Open the block. It connects as soon as somebody uses it. Does not wait.

        :raises RuntimeError: if it was entered before

        """
        if self._process is not None:
            check_process(self, self._process)
        if self._entered:
            raise RuntimeError(f"{self!r} is used once: make a new one")
        self._entered = True
        async with AsyncExitStack() as stack:
            quiet = Quiet()
            stack.enter_context(quiet.installed())
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            # Shielded: what is left to send when the block ends is also sent after a cancellation.
            scope = anyio.CancelScope(shield=True)
            stack.callback(scope.cancel)
            tasks.start_soon(self._keep, scope, quiet)
            self._tasks, self._stack = tasks, stack.pop_all()
        self._process, self._loop = os.getpid(), current_token()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect, within two seconds."""
        self._loop = None
        error: BaseException | None = None
        try:
            with anyio.move_on_after(self.patience, shield=True):
                await self._link.leave()
        finally:
            # The link is being ended, and a cancellation must not replace the error of the block.
            self._tasks.cancel_scope.shield = True
            try:
                # The group does not get the error of the block: it would come back in a group.
                await self._stack.aclose()
            except BaseExceptionGroup as group:
                # The error of its only task.
                error = bare(group)
        if error is not None:
            raise error

    async def _keep(self, scope: anyio.CancelScope, quiet: Quiet) -> None:
        quiet.begin()
        with scope:
            await self._link.keep()
