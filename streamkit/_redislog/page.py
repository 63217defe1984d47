"""A page that is read from the server, for all readers that want the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._redis.server import Command
from .._runs.log import AFTER_READ, Page
from .call import Call
from .followed import Followed
from .names import RunNames, Wire
from .replies import page_of
from .scripts_others import READ


class Hole(Exception):
    """The server has lost entries of a run that goes on. They may be written again."""


class PageCall(Call):
    """
    The call for a page.

    :param followed: the run as it is known here, if it is followed
    :param on_sent: called when the call is sent or given up: later readers need another one

    """

    __slots__ = (
        "_after",
        "_followed",
        "_limit",
        "_on_sent",
        "_version",
        "has_hole",
        "page",
        "waiters",
    )

    def __init__(
        self,
        names: RunNames,
        after: int,
        limit: int,
        followed: Followed | None,
        on_sent: Callable[[], object],
    ) -> None:
        super().__init__(READ, (names.meta, names.entries), (), size=1, on_reply=self._take)
        self._after = after
        self._limit = limit
        self._followed = followed
        self._version = 0
        self._on_sent = on_sent
        self.page: Page | None = None
        #: Whether the server has answered that there is a :exc:`Hole`.
        self.has_hole: bool = False
        #: How many readers wait for it.
        self.waiters = 0

    def command(self, wire: Wire, share: int) -> Command:
        self._on_sent()
        if self._followed is not None:
            # Taken before sending: a reader that comes now may know more than the answer will say.
            self._version = self._followed.tail.version
        self.arguments = self._after, self._limit, share, round(1000 * AFTER_READ)
        return super().command(wire, share)

    def settle(self, reply: Any) -> None:
        self.has_hole = len(reply) == 1
        self.page = None if self.has_hole else page_of(reply)
        super().settle(reply)

    def leave(self) -> bool:
        self.waiters -= 1
        if self.waiters:
            return False
        self._on_sent()
        return super().leave()

    def fail(self, error: Exception) -> None:
        self._on_sent()
        super().fail(error)

    def _take(self, reply: Any) -> None:
        if self._followed is not None and self.page is not None:
            self._followed.tail.learn(self.page, self._after, self._version)
