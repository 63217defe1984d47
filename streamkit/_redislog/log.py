"""``RedisLog``: runs that every worker can read, in Redis or Valkey."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Literal, cast

import anyio

from .._core.arguments import seconds
from .._redis.connection import Redis
from .._redis.wire import check_prefix, milliseconds
from .._runs.errors import LogFull, RunExists, RunNotFound, RunRunning
from .._runs.log import DOUBT, PAGE, REMEMBER, Page, Record, Requests, Terms, Watch
from .call import Call
from .desk import Desk
from .followed import Followed, RedisWatch
from .names import Names, RunNames
from .opened import Opened
from .page import Hole
from .part import LogPart
from .produced import Produced
from .replies import record_of, requests_of
from .scripts import Script
from .scripts_others import BURY, CANCEL, DELETE, GET, TOUCH
from .scripts_producer import CREATE, UNDO
from .writing import Writing

# Seconds until the server is asked again for entries that it has lost.
_AGAIN = 0.1


class RedisLog:
    """
    Keeps runs in Redis or Valkey: every worker of every machine reads, cancels and follows them.

    A run is written by the process in which it was started, and ends as lost if that process dies.
    Its entries are as durable as the server. While the server is away, sources go on until
    ``max_held`` items wait, and these items are written when it is back. After ``outage`` seconds,
    the log gives up.

    Nothing that comes from the server is executed or unpickled. But whoever can write to it can
    cancel and change any run. Logs with the same prefix, on the same database of the same server,
    act as one. The object may be made before a process is forked, and is then opened in each
    process.

    :param redis: the address of a server, as for ``coredis.Redis.from_url()``, for instance
        ``"redis://localhost:6379/0"``; or a :class:`Redis`, which is entered before the log is
        opened, to share its connection with a :class:`RedisCancelRegistry`, for instance
    :param prefix: the prefix of the names of keys and channels on the server
    :param lease: seconds after which a process without a sign of life counts as dead
    :param outage: seconds of attempts to reach the server, after which
        :exc:`~streamkit.runs.LogUnavailable` is raised, and a source is told
        :class:`~streamkit.runs.LogLost`
    :param max_held: items of one run that may wait to be written
    :param reconcile: seconds between two looks at each run that is read in this process, in case
        a message was lost
    :param options: further arguments of ``coredis.Redis.from_url()``, such as ``ssl_context``
    :raises TypeError: if an argument is of the wrong type, or coredis does not know an option
    :raises ValueError: if the address has another scheme, or cannot be read, or a number is not
        finite and positive, or ``prefix`` is empty

    """

    def __init__(
        self,
        redis: str | Redis,
        *,
        prefix: str,
        lease: float = 15.0,
        outage: float = 30.0,
        max_held: int = 256,
        reconcile: float = 5.0,
        **options: Any,
    ) -> None:
        #: Seconds for which a producer counts as alive without a sign of life.
        self.lease: float = seconds("lease", lease, positive=True)
        #: Seconds between two looks at each run that is read here.
        self.reconcile: float = seconds("reconcile", reconcile, positive=True)
        #: Seconds for which a call tries to reach the server.
        self.outage: float = seconds("outage", outage, positive=True)
        #: Items of a run that may wait to be written.
        self.max_held: int = _checked(max_held)
        if isinstance(redis, Redis) and options:
            raise TypeError(
                f"{', '.join(options)}: options of the connection belong to its own object: "
                "write RedisLog(Redis(url, ...), prefix=...)"
            )
        # The log's own connection is made anew each time. Making this one checks the arguments.
        own = redis if isinstance(redis, Redis) else Redis(redis, **options)
        self._names = Names(check_prefix(prefix))
        self._prefix = prefix
        self._unchecked = desk = Desk(self.lease, self.outage)
        self._writing = Writing(desk)
        part = LogPart(desk, self._names.probe, self.reconcile)
        make = partial(Redis, redis, **options) if isinstance(redis, str) else None
        self._opened = Opened(own, make, part, desk)

    def __repr__(self) -> str:
        state = "connected" if self._opened.is_connected else "not connected"
        return f"<{type(self).__name__} {self._prefix!r}, {state}>"

    @property
    def connected(self) -> bool:
        """Whether the server can be reached, and does what it is asked."""
        return self._opened.is_connected

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """
        Be connected while the block is open. Opened by :class:`~streamkit.runs.Runs`.

        Entering it waits for the first attempt, and goes on without a server if that fails. Leaving
        it takes at most four seconds.

        :raises RuntimeError: if the given :class:`Redis` is not open, or the log is open in
            another thread, or in the process that this one was forked from

        """
        async with self._opened.once(self):
            yield

    # For producers

    async def create(
        self, run_id: str, epoch: str, terms: Terms, notify: Callable[[Requests], object]
    ) -> Requests:
        """See :meth:`~streamkit.runs.RunLog.create`."""
        names = self._names.of(run_id)
        owner = "" if terms.owner is None else f"={terms.owner}"
        call = Call(
            CREATE,
            (names.meta, names.entries, names.early),
            (
                epoch,
                milliseconds(self.lease),
                milliseconds(terms.keep),
                _utf8(owner),
                *_fields(terms),
            ),
        )
        try:
            reply = await self._write(call)
        except BaseException as exc:
            # A refused call was not done. But an earlier attempt, whose answer was lost, may have
            # been.
            if call.sent > isinstance(exc, LogFull):
                self._undo(names, epoch)
            raise
        if reply[0] == b"exists":
            raise RunExists(run_id)
        produced = Produced(run_id, names, epoch, notify)
        produced.alive_at = anyio.current_time()
        self._desk.produce(produced)
        return requests_of(reply)

    async def append(
        self,
        run_id: str,
        epoch: str,
        position: int,
        entries: Sequence[bytes],
        *,
        acknowledged: int,
        first: int,
        head: int | None = None,
    ) -> Requests:
        """See :meth:`~streamkit.runs.RunLog.append`."""
        produced = self._produced(run_id, epoch)
        produced.first = max(produced.first, first)
        produced.head = head if head is not None else produced.head
        reply = await self._writing.append(produced, position, entries, acknowledged)
        if reply[0] == b"hole":
            raise ValueError(
                f"the entry {position} cannot follow {reply[1]}: append what is between"
            )
        return self._told(produced, reply)

    async def renew(self, run_id: str, epoch: str, *, acknowledged: int = 0) -> Requests:
        """See :meth:`~streamkit.runs.RunLog.renew`."""
        produced = self._produced(run_id, epoch)
        return self._told(produced, await self._writing.renew(produced, acknowledged))

    async def end(self, run_id: str, epoch: str, outcome: bytes, *, acknowledged: int = 0) -> bool:
        """See :meth:`~streamkit.runs.RunLog.end`."""
        produced = self._produced(run_id, epoch)
        try:
            return await self._writing.end(produced, outcome, acknowledged)
        finally:
            self._unchecked.finish(produced)

    # For readers

    async def get(self, run_id: str) -> Record:
        """See :meth:`~streamkit.runs.RunLog.get`."""
        call = Call(GET, (self._names.of(run_id).meta,), ())
        await self._desk.call(call, self._desk.reads)
        record = record_of(call.reply)
        if record is None:
            raise RunNotFound(run_id)
        return record

    async def read(self, run_id: str, after: int, limit: int = PAGE) -> Page:
        """See :meth:`~streamkit.runs.RunLog.read`."""
        followed = self._desk.followed.get(run_id)
        page = None if followed is None else followed.tail.page(after, limit)
        if page is None:
            page = await self._ask(run_id, after, min(limit, PAGE))
        if page is None:
            raise RunNotFound(run_id)
        return page

    async def _ask(self, run_id: str, after: int, limit: int) -> Page | None:
        """Ask the server, and ask again while it may get back what it has lost."""
        names, until = self._names.of(run_id), anyio.current_time() + self.outage
        while anyio.current_time() < until:
            try:
                return await self._desk.page(run_id, names, after, limit)
            except Hole:
                await anyio.sleep(_AGAIN)
        return None

    def watch(self, run_id: str) -> AbstractAsyncContextManager[Watch]:
        """See :meth:`~streamkit.runs.RunLog.watch`."""
        desk, names = self._desk, self._names.of(run_id)
        return RedisWatch(
            partial(desk.follow, run_id, names), self._heard, partial(desk.unfollow, run_id)
        )

    async def touch(self, run_id: str, epoch: str) -> None:
        """See :meth:`~streamkit.runs.RunLog.touch`."""
        await self._write(Call(TOUCH, (self._names.of(run_id).meta,), (epoch,)))

    # For everybody

    async def request_cancel(
        self,
        run_id: str,
        reason: bytes,
        *,
        owner: str | None = None,
        epoch: str | None = None,
        unwatched_for: float | None = None,
    ) -> Literal["running", "ended", "unknown"]:
        """See :meth:`~streamkit.runs.RunLog.request_cancel`."""
        names = self._names.of(run_id)
        call = Call(
            CANCEL,
            (names.meta, names.early),
            (
                reason,
                b"" if owner is None else _utf8(f"={owner}"),
                epoch or "",
                "" if unwatched_for is None else round(1000 * unwatched_for),
                round(1000 * REMEMBER),
            ),
            channels=(names.requests,),
        )
        found = (await self._write(call)).decode()
        if found == "foreign":
            raise RunNotFound(run_id)
        return cast('Literal["running", "ended", "unknown"]', found)

    async def bury(
        self, run_id: str, epoch: str, outcome: bytes
    ) -> Literal["alive", "doubted", "buried", "gone"]:
        """See :meth:`~streamkit.runs.RunLog.bury`."""
        names = self._names.of(run_id)
        call = Call(
            BURY,
            (names.meta, names.entries),
            (epoch, outcome, secrets.token_hex(4), round(1000 * DOUBT)),
            channels=(names.news, names.requests),
        )
        found = (await self._write(call)).decode()
        return cast('Literal["alive", "doubted", "buried", "gone"]', found)

    async def delete(self, run_id: str, epoch: str) -> None:
        """See :meth:`~streamkit.runs.RunLog.delete`."""
        names = self._names.of(run_id)
        call = _removal(DELETE, names, epoch)
        found = await self._write(call)
        if found == b"running":
            raise RunRunning(run_id)
        # If the call was sent twice, the first one may have removed the run.
        if found == b"gone" and call.sent == 1:
            raise RunNotFound(run_id)

    # What is sent

    @property
    def _desk(self) -> Desk:
        """The work of the log, which must be open."""
        self._opened.check(self)
        return self._unchecked

    async def _write(self, call: Call) -> Any:
        await self._desk.call(call, self._desk.writes)
        return call.reply

    def _told(self, produced: Produced, reply: list[Any]) -> Requests:
        requests = requests_of(reply)
        if requests.fenced:
            self._desk.finish(produced)
        return requests

    def _undo(self, names: RunNames, epoch: str) -> None:
        self._desk.submit(_removal(UNDO, names, epoch), self._desk.writes)

    def _produced(self, run_id: str, epoch: str) -> Produced:
        """Return a run that is written here. Of any other, nothing more is known."""
        produced = self._desk.produced.get(run_id)
        if produced is None or produced.epoch != epoch:
            produced = Produced(run_id, self._names.of(run_id), epoch)
        return produced

    async def _heard(self, followed: Followed) -> None:
        """Wait until no message about a run can be missed."""
        desk = self._desk
        if not followed.heard.is_set():
            with anyio.move_on_after(0.0 if desk.is_away else self.outage):
                await followed.heard.wait()
        if desk.is_left:
            raise desk.left()
        if not followed.heard.is_set():
            raise desk.unavailable()


def _checked(max_held: object) -> int:
    if isinstance(max_held, bool) or not isinstance(max_held, int):
        raise TypeError(f"max_held must be an int > 0, got {max_held!r}: write max_held=256")
    if max_held <= 0:
        raise ValueError(f"max_held must be an int > 0, got {max_held!r}: write max_held=256")
    return max_held


def _removal(script: Script, names: RunNames, epoch: str) -> Call:
    keys = names.meta, names.entries, names.early
    return Call(script, keys, (epoch, round(1000 * REMEMBER)), channels=(names.news,))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _fields(terms: Terms) -> list[str | bytes]:
    """Return the terms that are kept besides what the server has to know."""
    fields: list[str | bytes] = ["data", terms.data, "started_at", repr(terms.started_at)]
    if terms.owner is not None:
        fields += ["owner", _utf8(terms.owner)]
    if terms.unwatched is not None:
        fields += ["unwatched", repr(terms.unwatched)]
    return fields
