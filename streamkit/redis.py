"""
``RedisCancelRegistry``: cancel a run by its key in whichever process it is, through Redis or
Valkey. Needs the extra ``redis``.

A cancellation is both published and stored. Published, it reaches within milliseconds whoever holds
the key. Stored, it reaches who opens the key a moment later, and who was cut off when it was
published: a message that nobody receives is lost, a stored one is found on the next connection.

What is stored under a key is the id of the cancellation and its reason, until its time is up. An id
is over in a process once the last holder that was told of it has left: who opens the key there from
then on is not meant. It is then marked as settled on the server, so that a key that is used again
elsewhere is clean, too. A process that held the key all along, and was cut off, heeds a settled
one.

Each process has one connection that is subscribed and one for commands, however many keys it holds.
When either fails both are made anew, and all keys that are held are looked up.

The parts have a private module each. The ledger knows who holds which key and what is to be sent,
and never blocks. A session is what is done over one connection, with the commands of the store; the
link makes connections. The waiters are those who want to know when a cancellation is done. What is
written, and under which names, is in the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from ._core.arguments import seconds
from ._core.extras import without_extra
from ._redis.ledger import Ledger
from ._redis.waiter import Waiter, Waiters
from ._redis.wire import Names, check_text
from ._redis.work import Work
from ._signals.registry import CancelRegistry
from ._signals.token import CancelToken

try:
    from ._redis.link import Link, connector
    from ._redis.session import Session
    from ._redis.store import Client, Store
except ImportError as _error:
    raise without_extra("streamkit.redis", "redis", "coredis", _error) from _error

__all__ = ["MAX_KEY", "MAX_REASON", "Holder", "RedisCancelRegistry"]

#: Bytes of UTF-8 that a key and a reason may have.
MAX_KEY = 1024
MAX_REASON = 4096

# Seconds for a connection to be made, for a key to be looked up, and for the end.
_PATIENCE = 2.0


class RedisCancelRegistry:
    """
    The same as :class:`~streamkit.CancelRegistry`, across all processes that share a server.

    An async context manager: it is connected from the time when its block is entered until it is
    left, in tasks of its own. :meth:`open`, :meth:`cancel` and what else does not await may be
    called from any thread.

    While the server is away, streams go on, and a cancellation reaches the holders in its own
    process at once. It is kept, and sent when the server is back. This is tried again and again,
    with growing pauses of up to two seconds. One warning is logged for each outage, and
    :attr:`connected` tells. A server that refuses what it is asked, for want of a right or of
    memory, is as good as away; the warning says that, and why.

    Keys and reasons travel as JSON: nothing that comes from the server is run or unpickled. Still,
    whoever can write to the server can cancel any run.

    :param url: as for ``coredis.Redis.from_url()``, for instance ``"redis://localhost:6379/0"``
    :param prefix: what the names of keys and channels on the server begin with
    :param remember: seconds for which a cancellation is stored: for runs that open their key later,
        and for processes that are cut off meanwhile
    :param max_remembered: how many cancellations are kept while the server is away; beyond that,
        the oldest goes, unless somebody waits for it. While the server is there, each is sent.
    :param options: further arguments of ``coredis.Redis.from_url()``, such as ``ssl_context``
    :raises ValueError: if ``url`` is of another kind, or ``remember`` is not finite and positive

    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "streamkit",
        remember: float = 60.0,
        max_remembered: int = 10_000,
        **options: Any,
    ) -> None:
        seconds("remember", remember, positive=True)
        connect = connector(url, _PATIENCE, options)
        # Early cancellations are remembered by the server, where every process finds them.
        self._local = CancelRegistry(remember=0, max_remembered=max_remembered)
        self._milliseconds = max(1, round(remember * 1000))
        self._names = Names(prefix)
        self._work = Work()
        self._waiters = Waiters()
        self._ledger = Ledger(
            self._names.own_channel, self._local.cancel, self._work.announce, max_remembered
        )
        self._link = Link(connect, [self._names.channel, self._names.own_channel], _PATIENCE)
        self._entered = False
        self._tasks: TaskGroup | None = None
        self._stack: AsyncExitStack

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} with {len(self)} keys held here, {state}>"

    async def __aenter__(self) -> Self:
        """
        Connect. Waits for the first attempt, and goes on without a server if that fails.

        :raises RuntimeError: if it was entered before

        """
        if self._entered:
            raise RuntimeError(f"{self!r} is used once: make a new one")
        self._entered = True
        self._work.open()
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            # Shielded: what the block leaves to be sent is sent when it is cancelled, too.
            connection = anyio.CancelScope(shield=True)
            stack.callback(connection.cancel)
            tasks.start_soon(self._keep_connection, connection)
            await self._link.wait_tried()
            self._tasks, self._stack = tasks, stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Send what is to be sent, if that takes no longer than two seconds, and disconnect.

        Where a scope around the block is cancelled, that is no different. A native
        ``Task.cancel()`` while this waits cuts it short, and what was not sent by then is lost.
        """
        assert self._tasks is not None
        tasks, self._tasks = self._tasks, None
        try:
            with anyio.move_on_after(_PATIENCE, shield=True):
                self._work.announce()
                if self.connected or self._ledger.unsent:
                    await self._work.wait_finished()
                await self._link.leave()
        finally:
            # Also after a native Task.cancel(), which comes through the shield.
            self._waiters.give_up()
            # Its tasks are ended, and a cancellation must not replace the error of the block.
            tasks.cancel_scope.shield = True
            # The error of the block is not the group's business: it would come back in a group.
            await self._stack.aclose()

    def __len__(self) -> int:
        """Return how many keys are held in this process."""
        return len(self._local)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        """Tell whether somebody in this process holds this key."""
        return key in self._local

    def keys(self) -> list[str]:
        """Return the keys that are held in this process, in the order in which they were opened."""
        return self._ledger.keys()

    @property
    def connected(self) -> bool:
        """Whether the server is there: cancellations reach other processes, and come from there."""
        return self._link.connected

    def open(self, key: str) -> Holder:
        """
        Hold a key, for as long as the block that is entered with what this returns.

        Use it as a signal for :func:`~streamkit.with_cancellation`, or in an ``async with``, which
        looks the key up first: a run that was cancelled before never starts. This waits for the
        server, for two seconds at most, and not at all while it is away. A plain ``with`` does not
        wait: the token fires a moment later.

        :param key: a string of up to 1024 bytes: the id of a run
        :return: a context manager that yields a :class:`~streamkit.CancelToken`; used once
        :raises TypeError: if the key is no string
        :raises ValueError: if the key is too long
        :raises RuntimeError: if the registry was not entered

        """
        check_text("a key", key, MAX_KEY)
        self._check_open()
        holder = self._local.open(key)
        return Holder(key, holder, self._ledger.join, self._ledger.leave, lambda: self.connected)

    def cancel(self, key: str, reason: str | None = None) -> int:
        """
        Fire the tokens of all who hold a key, in every process, and store that for later ones.

        Does not block. Holders in this process are told as by
        :meth:`CancelRegistry.cancel() <streamkit.CancelRegistry.cancel>`, those in others as soon
        as the server has it. Where it comes twice, the first reason stays.

        :param key: the key
        :param reason: why: a string of up to 4096 bytes, or ``None``
        :return: how many holders this call has told in this process
        :raises TypeError: if the key or the reason is no string
        :raises ValueError: if one of them is too long

        """
        check_text("a key", key, MAX_KEY)
        if reason is not None:
            check_text("a reason", reason, MAX_REASON)
        self._ledger.send(key, reason)
        return self._local.cancel(key, reason)

    async def cancel_and_wait(
        self,
        key: str,
        reason: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  as in CancelRegistry
    ) -> bool:
        """
        Fire the tokens of all who hold a key, and wait until all of them have let go of it.

        Waits for the server if it is away. A process that dies without a word is waited for, too,
        and so is any other program that subscribes to the channel, so set a ``timeout``. A process
        that is cut off from the server when it is asked is *not* waited for, unless it has said
        before that it holds the key: all are asked anew when the connection of this process was
        lost. If this wait is cancelled, the holders stay cancelled.

        :param key: the key
        :param reason: why: a string of up to 4096 bytes, or ``None``
        :param timeout: seconds to wait at most, or ``None`` for no limit
        :return: ``True`` if all holders have left, ``False`` if the time was up before, or the
            registry was left
        :raises RuntimeError: if the calling task holds the key itself, which it would do for ever;
            nobody is told then. Or if the registry was not entered, or was left

        """
        if timeout is not None:
            seconds("timeout", timeout)
        check_text("a key", key, MAX_KEY)
        if reason is not None:
            check_text("a reason", reason, MAX_REASON)
        self._local.refuse_to_wait_for_itself(key)
        self._check_open()
        waiter = Waiter(self._ledger.send(key, reason))
        self._waiters.add(waiter)
        try:
            self._ledger.ask(waiter.cancellation, waiter.request)
            with anyio.move_on_after(timeout), waiter.given_up.scope():
                await self._local.cancel_and_wait(key, reason)
                await waiter.wait()
                return True
            return False
        finally:
            self._waiters.remove(waiter)

    async def _keep_connection(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self._link.keep(self._open_session)
        finally:
            self._work.close()

    def _check_open(self) -> None:
        if self._tasks is None:
            raise RuntimeError(f"{self!r} is not open: write 'async with registry:' around its use")

    def _open_session(self, client: Client) -> Session:
        store = Store(client, self._names, self._milliseconds)
        return Session(store, self._ledger, self._waiters, self._work, self._names)


class Holder(
    AbstractAsyncContextManager[CancelToken, None], AbstractContextManager[CancelToken, None]
):
    """
    What :meth:`RedisCancelRegistry.open` returns: a sync and an async context manager that yields a
    token. Used once.
    """

    def __init__(
        self,
        key: str,
        holder: AbstractContextManager[CancelToken, None],
        join: Callable[[str], CancelToken],
        leave: Callable[[str], None],
        is_connected: Callable[[], bool],
    ) -> None:
        self._key = key
        self._holder = holder
        self._join = join
        self._leave = leave
        self._is_connected = is_connected

    def __enter__(self) -> CancelToken:
        token = self._holder.__enter__()
        self._looked_up = self._join(self._key)
        return token

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder.__exit__(exc_type, exc, traceback)
        self._leave(self._key)

    async def __aenter__(self) -> CancelToken:
        token = self.__enter__()
        try:
            if self._is_connected() and not token.cancelled:
                with anyio.move_on_after(_PATIENCE):
                    await self._looked_up.wait()
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise
        return token

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
