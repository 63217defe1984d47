"""A run that somebody in this process waits for news of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint

from .._runs.log import Page, Watch
from .messages import Appended, Ended, Message
from .names import RunNames
from .tail import Tail


class Followed:
    """
    What is known of a run here, for all who follow it.

    :param names: of the run

    """

    def __init__(self, names: RunNames) -> None:
        self.names = names
        #: How many follow it.
        self.watches = 0
        self.tail = Tail()
        #: What the server has said last: epoch, first, last, head, outcome.
        self.state: tuple[object, ...] | None = None
        #: Counts what may be news, to tell whether there was any.
        self.changes = 0
        self._changed: anyio.Event | None = None
        #: Set while nothing that is published can be missed.
        self.heard: anyio.Event = anyio.Event()

    def change(self) -> None:
        """Wake those who wait for news."""
        self.changes += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def next_change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def is_deaf(self) -> None:
        """Note that something may be missed from now on."""
        self.tail.forget()
        if self.heard.is_set():
            self.heard = anyio.Event()

    def hear(self, message: Message | None) -> None:
        """Take what was published."""
        if message is None:
            return
        if isinstance(message, Appended | Ended):
            self.tail.hear(message)
        else:
            self.tail.forget()
        self.change()

    def look(self, page: Page | None) -> None:
        """Take what the server says without being asked by a reader: was something missed?"""
        state = None
        if page is not None:
            state = page.epoch, page.first, page.last, page.head, page.outcome
        tail = self.tail
        known = tail.epoch is not None
        if known and (
            page is None
            or (tail.epoch, tail.last, tail.outcome) != (page.epoch, page.last, page.outcome)
        ):
            tail.forget()
            self.change()
        elif state is None or state != self.state or (page is not None and page.lapsed):
            # A lease that is over is for the readers to see, again and again.
            self.change()
        self.state = state


class RedisWatch(AbstractAsyncContextManager[Watch, None]):
    """
    What a reader waits with.

    :param follow: called where it is entered
    :param ready: waits until nothing can be missed
    :param unfollow: called where it is left

    """

    def __init__(
        self,
        follow: Callable[[], Followed],
        ready: Callable[[Followed], Awaitable[object]],
        unfollow: Callable[[Followed], None],
    ) -> None:
        self._follow = follow
        self._ready = ready
        self._unfollow = unfollow
        self._followed: Followed
        self._seen = 0

    async def __aenter__(self) -> Watch:
        self._followed = followed = self._follow()
        try:
            await self._ready(followed)
        except BaseException:
            self._unfollow(followed)
            raise
        self._seen = followed.changes
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._unfollow(self._followed)

    async def wait(self) -> None:
        followed = self._followed
        if followed.changes == self._seen:
            await followed.next_change()
        else:
            await checkpoint()
        self._seen = followed.changes
