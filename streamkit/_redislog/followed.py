"""A run that is watched in this process."""

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
    What is known here about a run, for all that follow it.

    :param names: the names of the run

    """

    def __init__(self, names: RunNames) -> None:
        self.names = names
        #: How many watches follow it.
        self.watches = 0
        self.tail = Tail()
        #: The server's last answer: epoch, first, last, head, outcome.
        self.state: tuple[object, ...] | None = None
        #: Counts possible news, so that a watch can tell whether there was any.
        self.changes = 0
        self._changed: anyio.Event | None = None
        #: Set while no message can be missed.
        self.heard: anyio.Event = anyio.Event()

    def change(self) -> None:
        """Wake those that wait for news."""
        self.changes += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def next_change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def is_deaf(self) -> None:
        """Note that messages may be missed from now on."""
        self.tail.forget()
        if self.heard.is_set():
            self.heard = anyio.Event()

    def hear(self, message: Message | None) -> None:
        """Take a message that was published."""
        if message is None:
            return
        if isinstance(message, Appended | Ended):
            self.tail.hear(message)
        else:
            self.tail.forget()
        self.change()

    def look(self, page: Page | None) -> None:
        """Take the server's answer to a look, which shows whether a message was missed."""
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
            # Readers must see a lapsed lease each time that it is found.
            self.change()
        self.state = state


class RedisWatch(AbstractAsyncContextManager[Watch, None]):
    """
    The watch with which a reader waits.

    :param follow: called when it is entered
    :param ready: waits until no message can be missed
    :param unfollow: called when it is left

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
