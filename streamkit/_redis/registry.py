"""
``RedisCancelRegistry``: the same as a :class:`CancelRegistry`, across all processes that share a
server.

A cancellation is both published and stored. Published, it reaches the holders of the key within
milliseconds. Stored, it reaches whoever opens the key a moment later, or was cut off when it was
published: a message that nobody receives is lost, a stored one is found on the next connection.

What is stored under a key is the id of the cancellation and its reason, until its time is up. An id
is over in a process once the last holder that was told of it has left: it does not concern anyone
who opens the key there after that. It is then marked as settled on the server, so that a key that
is used again elsewhere is clean, too. A process that held the key all along, and was cut off, still
obeys a settled one.

Each process has one connection that is subscribed and one for commands, however many keys it holds.
When either fails, both are made anew, and all held keys are looked up.

Each part has a private module. The ledger knows who holds which key and what is to be sent, and
never blocks. A session does the work over one connection, with the commands of the store; the link
makes connections. The waiters want to know when a cancellation is done. The wire says what is
written, and under which names.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import anyio

from .._core.arguments import seconds
from .._core.process import check_process
from .._signals.registry import CancelRegistry, Released
from .connection import Redis
from .holder import Desk, Holder
from .lease import Leases
from .ledger import Ledger
from .link import Link
from .part import RegistryPart
from .waiter import Waiter, Waiters
from .wire import MAX_KEY, MAX_REASON, check_prefix, check_text, milliseconds
from .work import Work


@dataclass(frozen=True, slots=True)
class RedisRegistryStats:
    """What a :class:`RedisCancelRegistry` is doing, and has done since it was entered."""

    #: How many keys are held in this process.
    held: int
    #: How many holders they have.
    holders: int
    #: Cancellations that are still to be sent.
    unsent: int
    #: Cancellations that were never sent, because there were too many during an outage.
    lost: int
    #: How many calls wait for holders to leave.
    waiting: int
    #: Whether the server is there.
    connected: bool
    #: How often the connection was made anew.
    reconnects: int
    #: How many holders began before their key was looked up, or were refused for that reason.
    late_look_ups: int


class RedisCancelRegistry:
    """
    A :class:`~streamkit.CancelRegistry` across all processes that share a server.

    An async context manager: it is connected while its block is open, by tasks of its own.
    :meth:`open`, :meth:`cancel` and all other methods that do not await may be called from any
    thread.

    While the server is away, streams go on, and a cancellation reaches the holders in its own
    process at once. It is kept and sent when the server is back. The registry reconnects again and
    again, with growing pauses of up to two seconds. One warning is logged for each outage, and
    :attr:`connected` is ``False``. A server that refuses a request, for want of a right or of
    memory, is as good as away; the warning says so, and why.

    Keys and reasons travel as JSON: nothing that comes from the server is run or unpickled. Still,
    whoever can write to the server can cancel any run.

    It may be made before a process is forked, and is then entered in each process. Registries with
    the same prefix, on the same database of the same server, act as one.

    :param redis: the address of a server, as for ``coredis.Redis.from_url()``, for instance
        ``"redis://localhost:6379/0"``; or a :class:`Redis`, which is entered before the registry
    :param prefix: the prefix of the names of keys and channels on the server
    :param remember: seconds for which a cancellation is stored: for runs that open their key later,
        and for processes that are cut off meanwhile
    :param max_remembered: how many cancellations are kept while the server is away; beyond that,
        the oldest is dropped, unless somebody waits for it. While the server is there, all are
        sent.
    :param options: further arguments of ``coredis.Redis.from_url()``, such as ``ssl_context``
    :raises TypeError: if an argument is of the wrong type, or coredis does not know an option
    :raises ValueError: if the address has another scheme, or cannot be read, or ``remember`` is
        not finite and positive, or ``prefix`` is empty

    """

    def __init__(
        self,
        redis: str | Redis,
        *,
        prefix: str = "streamkit",
        remember: float = 60.0,
        max_remembered: int = 10_000,
        **options: Any,
    ) -> None:
        seconds("remember", remember, positive=True)
        # Early cancellations are remembered by the server, where every process finds them.
        self._local = CancelRegistry(remember=0, max_remembered=max_remembered)
        self._prefix = check_prefix(prefix)
        self._milliseconds = max(1, milliseconds(remember))
        self._owns_redis = not isinstance(redis, Redis)
        if isinstance(redis, Redis) and options:
            raise TypeError(
                f"{', '.join(options)}: options of the connection belong to its own object: "
                "write RedisCancelRegistry(Redis(url, ...))"
            )
        self._redis = redis if isinstance(redis, Redis) else Redis(redis, **options)
        self._work = Work()
        self._waiters = Waiters()
        self._ledger = Ledger(self._local.cancel, self._work.announce, max_remembered)
        self._leases = Leases(self._work.announce)
        self._late_look_ups = 0
        self._desk = Desk(
            self._ledger,
            self._leases,
            lambda: self.connected,
            self._note_late_look_up,
            self._redis.patience,
        )
        self._process: int | None = None
        self._state: Literal["new", "open", "left"] = "new"
        self._link: Link | None = None
        self._part: RegistryPart
        self._stack: AsyncExitStack

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} with {len(self)} keys held here, {state}>"

    async def __aenter__(self) -> Self:
        """
        Connect. Waits for the first attempt, and goes on without a server if it fails.

        :raises RuntimeError: if it was entered before, or a :class:`Redis` that was given to it is
            not open

        """
        if self._process is not None:
            self._check_process()
            raise RuntimeError(f"{self!r} is used once: make a new one")
        self._process = os.getpid()
        async with AsyncExitStack() as stack:
            if self._owns_redis:
                await stack.enter_async_context(self._redis)
            link = self._redis.link()
            self._work.open()
            # Not before this: two processes must not have the same name.
            self._part = RegistryPart(
                self._prefix,
                self._milliseconds,
                self._ledger,
                self._leases,
                self._waiters,
                self._work,
            )
            self._link = link
            stack.callback(link.drop, self._part)
            await link.join(self._part)
            watching = anyio.CancelScope()
            stack.callback(watching.cancel)
            self._redis.start(partial(_watch, self._leases, watching))
            self._state, self._stack = "open", stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Send what is still unsent, if that takes no longer than two seconds, and disconnect.

        The same happens if a scope around the block is cancelled. A native ``Task.cancel()`` while
        this waits cuts it short, and what was not sent by then is lost.
        """
        assert self._link is not None
        self._state = "left"
        try:
            with anyio.move_on_after(self._redis.patience, shield=True):
                self._work.announce()
                if self.connected or self._ledger.unsent:
                    await self._work.wait_finished()
                await self._link.part(self._part)
        finally:
            # Also after a native Task.cancel(), which comes through the shield.
            self._waiters.give_up()
            self._leases.give_up()
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
        """Whether the server is there: cancellations reach other processes and come from them."""
        return self._link is not None and self._link.serves(self._part)

    def stats(self) -> RedisRegistryStats:
        """Return what the registry is doing and has done. May be called from any thread."""
        local, ledger = self._local.stats(), self._ledger
        return RedisRegistryStats(
            held=local.held,
            holders=local.holders,
            unsent=len(ledger.unsent),
            lost=ledger.lost,
            waiting=len(self._waiters),
            connected=self.connected,
            reconnects=0 if self._link is None else self._link.reconnects,
            late_look_ups=self._late_look_ups,
        )

    def open(self, key: str, *, must_look_up: bool = False, exclusive: bool = False) -> Holder:
        """
        Return a context manager that holds a key while its block is open.

        Use it as a signal for :func:`~streamkit.with_cancellation`, or in an ``async with``, which
        looks the key up first: a run that was cancelled before never starts. This waits for the
        server, for two seconds at most, and not at all while it is away. A plain ``with`` does not
        wait: the token fires a moment later.

        :param key: a string of up to 1024 bytes: the id of a run
        :param must_look_up: raise :exc:`RegistryUnavailable` where the block is entered, instead of
            beginning before the key was looked up: for callers that prefer no run to one that is
            told late. Needs an ``async with``
        :param exclusive: be the only exclusive holder in all processes: entering the block raises
            :exc:`~streamkit.KeyHeld` if there is one already, and :exc:`RegistryUnavailable` if the
            server is away. Needs an ``async with``. It is a lease of 15 seconds, which is renewed.
            A holder that cannot renew it is told by :class:`KeyLost`, and a process that dies frees
            the key when the lease ends. A process that was frozen is told when it wakes up
        :return: a context manager that yields a :class:`~streamkit.CancelToken`; used once
        :raises TypeError: if the key is not a string
        :raises ValueError: if the key is too long
        :raises RuntimeError: if the registry was not entered, or was left, or was entered in
            another process

        """
        check_text("a key", key, MAX_KEY)
        self._check_open()
        holder = self._local.open(key)
        return Holder(key, holder, self._desk, must_look_up, exclusive)

    def cancel(self, key: str, reason: str | None = None) -> int:
        """
        Fire the tokens of all holders of a key, in every process, and store that for later holders.

        Does not block. Holders in this process are told as by
        :meth:`CancelRegistry.cancel() <streamkit.CancelRegistry.cancel>`, those in others as soon
        as the server has the cancellation. If a key is cancelled twice, the first reason stays.

        :param key: the key
        :param reason: why: a string of up to 4096 bytes, or ``None``
        :return: how many holders this call has told in this process
        :raises TypeError: if the key or the reason is not a string
        :raises ValueError: if one of them is too long
        :raises RuntimeError: if the registry was left, or was entered in another process. Before it
            is entered, the cancellation is kept, and sent then

        """
        check_text("a key", key, MAX_KEY)
        if reason is not None:
            check_text("a reason", reason, MAX_REASON)
        self._check_process()
        # Before the registry is open, the cancellation is kept.
        if self._state == "left":
            self._check_open()
        self._ledger.send(key, reason)
        return self._local.cancel(key, reason)

    async def cancel_and_wait(
        self,
        key: str,
        reason: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  as in CancelRegistry
    ) -> Released:
        """
        Fire the tokens of all holders of a key, and wait until all of them have let go of it.

        Waits for the server if it is away. Then waits for the processes that are subscribed when
        they are asked. A process that dies without a word delays this by some two seconds. A frozen
        one is waited for, so set a ``timeout``. A process that is cut off from the server when it
        is asked is *not* waited for, unless it has said before that it holds the key and is back
        within seconds. When the connection of this process was lost, all are asked anew. If this
        wait is cancelled, the holders stay cancelled.

        :param key: the key
        :param reason: why: a string of up to 4096 bytes, or ``None``
        :param timeout: seconds to wait at most, or ``None`` for no limit
        :return: an object that is true if all holders have left, and false if the time was up
            before, or the registry was left; it also tells whether there were any
        :raises RuntimeError: if the calling task holds the key itself, and so would wait for ever;
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
            held = key in self._local
            all_left = False
            with anyio.move_on_after(timeout), waiter.given_up.scope():
                await self._local.cancel_and_wait(key, reason)
                await waiter.wait()
                all_left = True
            return Released(all_left, held=held or waiter.has_found)
        finally:
            self._waiters.remove(waiter)

    def _check_process(self) -> None:
        if self._process is not None:
            check_process(self, self._process)

    def _check_open(self) -> None:
        self._check_process()
        if self._state != "open":
            raise RuntimeError(f"{self!r} is not open: write 'async with registry:' around its use")

    def _note_late_look_up(self) -> None:
        self._late_look_ups += 1


async def _watch(leases: Leases, scope: anyio.CancelScope) -> None:
    with scope:
        await leases.watch()
