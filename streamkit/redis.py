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
"""

from __future__ import annotations

import json
import logging
import math
import random
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeAlias, cast
from uuid import uuid4

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from coredis import PureToken, Redis
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from ._arguments import seconds
from ._exceptions import first_leaf, without
from ._loop import Loop
from ._registry import CancelRegistry
from ._token import CancelToken

__all__ = ["MAX_KEY", "MAX_REASON", "Holder", "RedisCancelRegistry"]

_logger = logging.getLogger("streamkit")

#: Bytes of UTF-8 that a key and a reason may have.
MAX_KEY = 1024
MAX_REASON = 4096

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
# Seconds for a connection to be made, for a key to be looked up, and for the end.
_PATIENCE = 2.0
# Seconds in which the server must answer, else the connection counts as lost.
_ANSWER_WITHIN = 5.0
# How many marks and answers wait for the server; beyond that, the oldest goes.
_CHORES = 10_000
# Why waits end when the registry does.
_LEFT = "the registry was left"
# How many keys are handled with one round trip.
_BATCH = 100

_Client: TypeAlias = Redis[bytes]
# Adds commands to a pipeline.
_Chore: TypeAlias = Callable[[Any], None]


class RedisCancelRegistry:
    """
    The same as :class:`~streamkit.CancelRegistry`, across all processes that share a server.

    An async context manager: it is connected from the time when its block is entered until it is
    left, in tasks of its own. :meth:`open`, :meth:`cancel` and what else does not await may be
    called from any thread.

    While the server is away, streams go on, and a cancellation reaches the holders in its own
    process at once. It is kept, and sent when the server is back. This is tried again and again,
    with growing pauses of up to two seconds. One warning is logged for each outage, and
    :attr:`connected` tells.

    Keys and reasons travel as JSON: nothing that comes from the server is run or unpickled. Still,
    whoever can write to the server can cancel any run.

    :param url: as for ``coredis.Redis.from_url()``, for instance ``"redis://localhost:6379/0"``
    :param prefix: what the names of keys and channels on the server begin with
    :param remember: seconds for which a cancellation is stored: for runs that open their key later,
        and for processes that are cut off meanwhile
    :param max_remembered: how many cancellations are kept while the server is away; beyond that,
        the oldest goes
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
        if not url.startswith(_SCHEMES):
            # Not the whole of it, which may hold a password.
            raise ValueError(
                f"url must begin with one of {', '.join(_SCHEMES)}, got {url.partition(':')[0]!r}: "
                "write 'redis://localhost:6379/0', for instance"
            )
        # Early cancellations are remembered by the server, where every process finds them.
        self._local = CancelRegistry(remember=0, max_remembered=max_remembered)
        self._connect: Callable[[], _Client] = partial(
            Redis.from_url,
            url,
            **{
                "connect_timeout": _PATIENCE,
                # Also for the PING of an idle subscription: a server that hangs is away.
                "stream_timeout": _ANSWER_WITHIN,
                "retry_policy": NoRetryPolicy(),
                **options,
            },
        )
        self._prefix = prefix
        self._channel = f"{prefix}:cancel"
        self._answers = f"{prefix}:answers:"
        self._own_channel = f"{self._answers}{uuid4().hex}"
        self._milliseconds = max(1, round(remember * 1000))
        self._max_remembered = max_remembered
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        self._outbox: OrderedDict[str, _Cancellation] = OrderedDict()
        self._look_ups: dict[str, None] = {}
        # Ids of cancellations that concern nobody who holds a key here now.
        self._over: OrderedDict[str, None] = OrderedDict()
        self._chores: deque[_Chore] = deque(maxlen=_CHORES)
        self._waiters: dict[str, _Waiter] = {}
        self._connected = False
        self._tasks: TaskGroup | None = None
        self._stack: AsyncExitStack
        self._loop: Loop | None = None
        self._work = anyio.Event()
        self._idle = anyio.Event()
        self._leaving = anyio.Event()
        self._disconnected = anyio.Event()

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<{type(self).__name__} with {len(self)} keys held here, {state}>"

    async def __aenter__(self) -> Self:
        """
        Connect. Waits for the first attempt, and goes on without a server if that fails.

        :raises RuntimeError: if it was entered before

        """
        if self._loop is not None:
            raise RuntimeError(f"{self!r} is used once: make a new one")
        self._loop = Loop()
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            await tasks.start(self._keep_connected)
            self._tasks, self._stack = tasks, stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Send what is to be sent, if that takes no longer than two seconds, and disconnect."""
        assert self._tasks is not None
        tasks, self._tasks = self._tasks, None
        try:
            with anyio.move_on_after(_PATIENCE, shield=True):
                self._set_work()
                if self._connected or self._outbox:
                    await self._idle.wait()
                # Not cancelled: coredis would lose its connections in the wrong order.
                self._leaving.set()
                await self._disconnected.wait()
        finally:
            # Also after a native Task.cancel(), which comes through the shield.
            tasks.cancel_scope.cancel()
            for waiter in list(self._waiters.values()):
                waiter.done.cancel(_LEFT)
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
        with self._lock:
            return list(self._held)

    @property
    def connected(self) -> bool:
        """Whether the server is there: cancellations reach other processes, and come from there."""
        return self._connected

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
        _check_text("a key", key, MAX_KEY)
        self._check_open()
        holder = self._local.open(key)
        return Holder(key, holder, self._join, self._leave, lambda: self._connected)

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
        _check_text("a key", key, MAX_KEY)
        if reason is not None:
            _check_text("a reason", reason, MAX_REASON)
        self._send(key, reason)
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
        that is cut off from the server when it is asked is *not* waited for. If this wait is
        cancelled, the holders stay cancelled.

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
        _check_text("a key", key, MAX_KEY)
        if reason is not None:
            _check_text("a reason", reason, MAX_REASON)
        self._local.refuse_to_wait_for_itself(key)
        self._check_open()
        request, waiter = uuid4().hex, _Waiter(self._send(key, reason))
        self._waiters[request] = waiter
        try:
            self._ask(waiter.cancellation, request)
            with anyio.move_on_after(timeout):
                await self._local.cancel_and_wait(key, reason)
                return await waiter.done.wait() != _LEFT
            return False
        finally:
            del self._waiters[request]

    def _check_open(self) -> None:
        if self._tasks is None:
            raise RuntimeError(f"{self!r} is not open: write 'async with registry:' around its use")

    # Called in any thread

    def _join(self, key: str) -> _Held:
        """Note a holder."""
        with self._lock:
            held = self._held.setdefault(key, _Held())
            held.holders += 1
            unsent = self._outbox.get(key)
            if unsent is not None and unsent.id in self._over:
                unsent = None
            if unsent is None and not held.looked_up.cancelled:
                self._look_ups[key] = None
        if unsent is not None:
            self._tell(held, unsent)
        self._wake()
        return held

    def _leave(self, key: str) -> None:
        """Note that a holder has left."""
        with self._lock:
            held = self._held[key]
            held.holders -= 1
            if held.holders:
                return
            del self._held[key]
            self._look_ups.pop(key, None)
            for cancellation_id in held.told:
                self._end(cancellation_id)
            for to, request in held.requests:
                self._chores.append(partial(self._answer, to, request, False))
        self._wake()

    def _end(self, cancellation_id: str) -> None:
        """Note that those who were told of a cancellation are gone, here and on the server."""
        self._pass_over(cancellation_id)
        self._chores.append(partial(self._settle, cancellation_id))

    def _pass_over(self, cancellation_id: str) -> None:
        """Note that nobody who holds a key here from now on is meant by a cancellation."""
        self._over[cancellation_id] = None
        if len(self._over) > _CHORES:
            self._over.popitem(last=False)

    def _send(self, key: str, reason: str | None) -> _Cancellation:
        with self._lock:
            cancellation = self._outbox.get(key)
            if cancellation is None or cancellation.id in self._over:
                requests = [] if cancellation is None else cancellation.requests
                cancellation = _Cancellation(key, uuid4().hex, reason, requests)
                self._put(cancellation)
            held = self._held.get(key)
            if held is not None:
                held.told.add(cancellation.id)
        self._wake()
        return cancellation

    def _put(self, cancellation: _Cancellation) -> None:
        self._outbox[cancellation.key] = cancellation
        if len(self._outbox) > self._max_remembered:
            self._outbox.popitem(last=False)

    def _ask(self, cancellation: _Cancellation, request: str) -> None:
        """Send a cancellation, once more if need be, with the request to say when it is done."""
        with self._lock:
            unsent = self._outbox.get(cancellation.key)
            if unsent is None:
                self._put(unsent := cancellation)
            if (self._own_channel, request) not in unsent.requests:
                # A new list: the one in flight is compared with it.
                unsent.requests = [*unsent.requests, (self._own_channel, request)]
        self._wake()

    def _tell(self, held: _Held, cancellation: _Cancellation) -> None:
        with self._lock:
            if cancellation.id in self._over:
                return
            held.told.add(cancellation.id)
        self._local.cancel(cancellation.key, cancellation.reason)

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call(self._set_work)

    def _set_work(self) -> None:
        self._work.set()
        if self._idle.is_set():
            self._idle = anyio.Event()

    # The connection

    async def _keep_connected(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        delay, warned, started = _FIRST_DELAY, False, False

        def attempted() -> None:
            nonlocal started
            if not started:
                task_status.started()
            started = True

        def connected() -> None:
            nonlocal delay, warned
            if warned:
                _logger.warning("Redis is back")
            delay, warned = _FIRST_DELAY, False
            self._connected = True
            attempted()

        while not self._leaving.is_set():
            try:
                await self._session(connected)
            except BaseException as exc:
                rest = without(exc, _is_connection_error)
                if rest is not None:
                    self._disconnected.set()
                    raise rest  # noqa: B904  it may be the same
                # Not a word if it was this task that was cancelled: coredis may drop that.
                await checkpoint()
                if not warned:
                    _logger.warning(
                        "Redis is away (%s): until it is back, a cancellation reaches nobody but "
                        "this process",
                        f"{type(leaf := first_leaf(exc)).__name__}: {leaf}"[:200],
                    )
                warned = True
            finally:
                self._connected = False
            attempted()
            with anyio.move_on_after(delay * random.uniform(0.5, 1)):
                await self._leaving.wait()
            delay = min(2 * delay, _LAST_DELAY)
        self._disconnected.set()

    async def _session(self, connected: Callable[[], None]) -> None:
        """Connect, look up what is held, and pass cancellations on until the connection fails."""
        with anyio.fail_after(_PATIENCE) as patience:
            async with (
                self._connect() as client,
                client.pubsub(
                    channels=[self._channel, self._own_channel],
                    ignore_subscribe_messages=True,
                    retry_policy=NoRetryPolicy(),
                    max_idle_seconds=_PATIENCE,
                ) as messages,
                anyio.create_task_group() as tasks,
            ):
                # Subscribed first, looked up then: what is cancelled in between comes twice.
                patience.deadline = math.inf
                self._take_up()
                tasks.start_soon(self._work_off, client, connected)
                tasks.start_soon(self._listen, messages)
                await self._leaving.wait()
                tasks.cancel_scope.cancel()

    def _take_up(self) -> None:
        """Do again what may have been lost with the last connection."""
        with self._lock:
            self._look_ups = dict.fromkeys(self._held)
            # A copy: tasks in other threads begin and end to wait meanwhile.
            for request, waiter in list(self._waiters.items()):
                self._ask(waiter.cancellation, request)
        self._set_work()

    async def _listen(self, messages: AsyncIterable[Any]) -> None:
        async for message in messages:
            self._receive(message["data"])
        raise ConnectionResetError("the subscription has ended")

    async def _work_off(self, client: _Client, connected: Callable[[], None]) -> None:
        while True:
            # New before the look at what is there: whatever comes later sets it.
            self._work = anyio.Event()
            while self._has_work():
                with anyio.fail_after(_ANSWER_WITHIN):
                    if self._look_ups:
                        await self._look_up(client)
                    if self._outbox:
                        await self._publish(client)
                    if self._chores:
                        await self._do_chores(client)
                # Not before: a server may accept connections, and refuse what is to be written.
                connected()
            connected()
            self._idle.set()
            await self._work.wait()

    def _has_work(self) -> bool:
        return bool(self._outbox or self._look_ups or self._chores)

    async def _publish(self, client: _Client) -> None:
        """Store cancellations, then publish them: who opens a key in between finds it stored."""
        with self._lock:
            batch = list(islice(self._outbox.values(), _BATCH))
        async with client.pipeline(transaction=False) as pipeline:
            stored = [self._store(pipeline, each, condition=PureToken.NX) for each in batch]
        earlier = [each for each, is_first in zip(batch, stored, strict=True) if not await is_first]
        count = await self._those_that_count(earlier, client) if earlier else {}
        contents = [count.get(each.key, each).content for each in batch]
        requests = [list(each.requests) for each in batch]
        async with client.pipeline(transaction=False) as pipeline:
            published = [
                pipeline.publish(
                    self._channel,
                    json.dumps({"key": each.key, "content": content, "requests": asked}),
                )
                for each, content, asked in zip(batch, contents, requests, strict=True)
            ]
        for each, asked, receivers in zip(batch, requests, published, strict=True):
            for _, request in asked:
                if (waiter := self._waiters.get(request)) is not None:
                    waiter.expect(await receivers)
            with self._lock:
                # Unless somebody has come meanwhile who wants to know when it is done.
                if len(each.requests) == len(asked) and self._outbox.get(each.key) is each:
                    del self._outbox[each.key]

    async def _those_that_count(
        self, batch: list[_Cancellation], client: _Client
    ) -> dict[str, _Cancellation]:
        """Return what is stored already, or else ours, and store it anew: its time begins again."""
        count = {each.key: each for each in batch}
        for key, (earlier, settled) in (await self._stored(list(count), client)).items():
            if not settled:
                if count[key].id in self._over:
                    # Whoever was told of ours is gone, and this is the one that is stored.
                    self._end(earlier.id)
                count[key] = earlier
        async with client.pipeline(transaction=False) as pipeline:
            for each in count.values():
                self._store(pipeline, each)
        return count

    async def _stored(
        self, keys: list[str], client: _Client
    ) -> dict[str, tuple[_Cancellation, bool]]:
        """Return the cancellations of keys, and whether they are settled."""
        # MGET also passes over what is no string.
        stored = await client.mget([self._name(key) for key in keys])
        found = {
            key: cancellation
            for key, data in zip(keys, stored, strict=True)
            if (cancellation := _Cancellation.parse(key, data)) is not None
        }
        names = [self._settled_name(cancellation.id) for cancellation in found.values()]
        marks = await client.mget(names) if names else ()
        return {
            key: (cancellation, mark is not None)
            for (key, cancellation), mark in zip(found.items(), marks, strict=True)
        }

    def _store(
        self, to: Any, cancellation: _Cancellation, **options: Any
    ) -> Awaitable[bool | None]:
        name = self._name(cancellation.key)
        stored: Awaitable[bool | None] = to.set(
            name, cancellation.content, px=self._milliseconds, **options
        )
        return stored

    async def _look_up(self, client: _Client) -> None:
        """Find out whether keys that are held were cancelled before, or during an outage."""
        with self._lock:
            keys = list(islice(self._look_ups, _BATCH))
            for key in keys:
                del self._look_ups[key]
        found = await self._stored(keys, client)
        for key in keys:
            held = self._held.get(key)
            if held is None:
                continue
            if key in found:
                cancellation, settled = found[key]
                if settled and not held.looked_up.cancelled:
                    # It was for holders who were there before.
                    with self._lock:
                        self._pass_over(cancellation.id)
                else:
                    self._tell(held, cancellation)
            held.looked_up.cancel()

    async def _do_chores(self, client: _Client) -> None:
        with self._lock:
            chores, rest = list(self._chores)[:_BATCH], list(self._chores)[_BATCH:]
            self._chores.clear()
            self._chores.extend(rest)
        try:
            async with client.pipeline(transaction=False) as pipeline:
                for chore in chores:
                    chore(pipeline)
        except BaseException:
            with self._lock:
                self._chores.extendleft(reversed(chores))
            raise

    def _settle(self, cancellation_id: str, pipeline: Any) -> None:
        pipeline.set(self._settled_name(cancellation_id), b"", px=self._milliseconds)

    def _answer(self, to: str, request: str, holds: bool, pipeline: Any) -> None:
        answer = {"request": request, "process": self._own_channel, "holds": holds}
        pipeline.publish(to, json.dumps(answer))

    def _receive(self, data: object) -> None:
        match _parse(data):
            case {"key": str(key), "content": str(content), "requests": [*requests]}:
                cancellation = _Cancellation.parse(key, content)
                if cancellation is not None:
                    self._receive_cancellation(cancellation, requests)
            case {"request": str(request), "process": str(process), "holds": bool(holds)}:
                if (waiter := self._waiters.get(request)) is not None:
                    waiter.answer(process, holds=holds)
            case _:
                _logger.debug("a message on %s that is none of streamkit's", self._channel)

    def _receive_cancellation(self, cancellation: _Cancellation, requests: list[object]) -> None:
        with self._lock:
            held = self._held.get(cancellation.key)
            holds = held is not None and cancellation.id not in self._over
            for request in requests:
                match request:
                    case [str(to), str(number)] if to.startswith(self._answers) and to.isascii():
                        self._chores.append(partial(self._answer, to, number, holds))
                        if held is not None and holds:
                            held.requests.append((to, number))
                    case _:
                        pass
        if held is not None:
            self._tell(held, cancellation)
        self._set_work()

    def _name(self, key: str) -> bytes:
        return f"{self._channel}:{key}".encode("utf-8", "surrogatepass")

    def _settled_name(self, cancellation_id: str) -> str:
        return f"{self._prefix}:settled:{cancellation_id}"


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
        join: Callable[[str], _Held],
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
        self._held = self._join(self._key)
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
                    await self._held.looked_up.wait()
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


@dataclass(slots=True)
class _Held:
    """A key that is held in this process."""

    holders: int = 0
    #: The ids of the cancellations that the holders were told of.
    told: set[str] = field(default_factory=set[str])
    #: Who waits for the last holder to leave: channels and numbers of requests.
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    #: Fires when the key was looked up, which other threads and loops may be waiting for.
    looked_up: CancelToken = field(default_factory=CancelToken)


@dataclass(slots=True, eq=False)
class _Cancellation:
    """A cancellation of a key, as it is stored and sent."""

    key: str
    id: str
    reason: str | None
    #: Who waits until it is done: channels and numbers of requests.
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def content(self) -> str:
        return json.dumps({"id": self.id, "reason": self.reason})

    @classmethod
    def parse(cls, key: str, data: object) -> _Cancellation | None:
        match _parse(data):
            case {"id": str(cancellation_id), "reason": str() | None as reason} if (
                cancellation_id.isascii()
            ):
                return cls(key, cancellation_id, reason)
            case _:
                return None


class _Waiter:
    """Who waits until no process holds a key any more."""

    def __init__(self, cancellation: _Cancellation) -> None:
        self.cancellation = cancellation
        self.done = CancelToken()
        self._expected: int | None = None
        self._answered: set[str] = set()
        self._holding: set[str] = set()

    def expect(self, processes: int) -> None:
        """Note how many processes have been asked."""
        self._expected = processes
        self._check()

    def answer(self, process: str, *, holds: bool) -> None:
        """Note whether a process holds the key."""
        self._answered.add(process)
        if holds:
            self._holding.add(process)
        else:
            self._holding.discard(process)
        self._check()

    def _check(self) -> None:
        if self._expected is None or len(self._answered) < self._expected or self._holding:
            return
        self.done.cancel()


def _parse(data: object) -> dict[str, Any]:
    """Return what a server has sent, or nothing if it is no object of JSON: anybody may write."""
    if not isinstance(data, str | bytes):
        return {}
    try:
        parsed: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _is_connection_error(exc: BaseException) -> bool:
    return isinstance(exc, _CONNECTION_ERRORS)


def _check_text(what: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, got {type(value).__qualname__}: write str(...)")
    if len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ValueError(f"{what} must not be longer than {limit} bytes of UTF-8")
