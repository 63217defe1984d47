"""
The blocks in which a log is open, and which of them keeps the connection.

A log may be open in several blocks at once, and they may be left in any order. The first of those
that are open keeps the connection. When it is left, the next block makes a new connection, and
nothing is lost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from .._core.process import check_process
from .._redis.connection import Redis
from .._redis.link import Link
from .desk import Desk
from .part import LogPart


class _Block:
    def __init__(self) -> None:
        #: Set when its turn comes, when connecting was tried or is not its task, when it is left,
        #: and when its connection has ended.
        self.turn = anyio.Event()
        self.ready = anyio.Event()
        self.leaving = anyio.Event()
        self.ended = anyio.Event()
        #: A cancellation around the block must not reach the connection before it reaches the
        #: users of the connection.
        self.scope = anyio.CancelScope(shield=True)


class Opened:
    """
    The blocks in which a log is open.

    :param redis: the shared connection, or one like those that ``make`` returns
    :param make: makes a new connection, or ``None`` if it is shared
    :param part: the log's part of the connection
    :param desk: the work of the log

    """

    def __init__(
        self, redis: Redis, make: Callable[[], Redis] | None, part: LogPart, desk: Desk
    ) -> None:
        self._redis = redis
        self._make = make
        self._part = part
        self._desk = desk
        self._blocks: dict[_Block, None] = {}
        #: The process and the thread of the blocks.
        self._process: int
        self._thread: int
        self._link: Link | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the server can be reached, and does what it is asked."""
        return self._link is not None and self._link.serves(self._part)

    def check(self, log: object) -> None:
        """
        Check that a log is open here: otherwise nothing would do its work, or report it done.

        :raises RuntimeError: if it is not open here

        """
        if not self._blocks:
            raise RuntimeError(
                f"{log!r} is not open: write 'async with Runs(log) as runs:', or 'async with "
                "log.open():'"
            )
        check_process(repr(log), self._process)
        if self._thread != threading.get_ident():
            raise RuntimeError(
                f"{log!r} is open in the event loop of another thread: make one for each"
            )

    @asynccontextmanager
    async def once(self, log: object) -> AsyncGenerator[None, None]:
        """
        Keep a log open while the block runs.

        :raises RuntimeError: if it is open elsewhere, or the shared connection is not open

        """
        if self._make is None:
            # First, because it raises if the connection is not open.
            self._redis.link()
        if self._blocks:
            self.check(log)
        else:
            self._process, self._thread = os.getpid(), threading.get_ident()
            self._desk.begin()
        leaving: BaseException | None = None
        block = _Block()
        self._blocks[block] = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep, block, name=f"connection of {self._part!r}")
                try:
                    await block.ready.wait()
                    yield
                except BaseException as exc:
                    # Kept from the task group, which would raise it in an exception group.
                    leaving = exc
                block.leaving.set()
                block.turn.set()
                try:
                    with anyio.move_on_after(2 * self._redis.patience, shield=True):
                        await block.ended.wait()
                finally:
                    tasks.cancel_scope.shield = True
                    block.scope.cancel()
        finally:
            del self._blocks[block]
            if not self._blocks:
                self._desk.give_up()
            for other in self._blocks:
                other.turn.set()
                break
        if leaving is not None:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving

    async def _keep(self, block: _Block) -> None:
        try:
            with block.scope:
                if next(iter(self._blocks)) is not block:
                    block.ready.set()
                    await block.turn.wait()
                if not block.leaving.is_set():
                    await self._connect(block)
        finally:
            block.ready.set()
            block.ended.set()

    async def _connect(self, block: _Block) -> None:
        if self._make is None:
            await self._join(self._redis.link(), block)
        else:
            async with self._make() as redis:
                await self._join(redis.link(), block)

    async def _join(self, link: Link, block: _Block) -> None:
        self._link = link
        self._desk.take_up()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._desk.expire)
                await link.join(self._part)
                block.ready.set()
                await block.leaving.wait()
                await link.part(self._part)
                tasks.cancel_scope.cancel()
        finally:
            link.drop(self._part)
            self._link = None
