"""
A run that is kept in memory: its entries, what is known of it, and the waits for a change.

Entries are in a list, so that a page from anywhere is a slice of it. A dropped entry leaves an
empty place at its front, and these places are removed when there are many of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import islice
from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint

from .log import Page, Requests, Terms, Watch
from .state import RunState

#: The memory of an entry besides its bytes: the object, and its places in two lists.
OVERHEAD = 128

# How many empty places at the front of a list are worth removing.
_WORTHWHILE = 128

# Seconds that readers may take to read what they were woken for: for all of them, and for each.
_ROUND = 0.005
_EACH = 0.00005

# Turns of the event loop that a batch waits if it comes sooner than that.
_TURNS = 16

_NONE = Requests()


class KeptRun(RunState):
    """A run, and its entries."""

    __slots__ = (
        "changed",
        "changes",
        "dropped",
        "entries",
        "last_page",
        "notify",
        "place",
        "read_at",
        "size",
        "watches",
    )

    def __init__(
        self,
        epoch: str,
        terms: Terms,
        notify: Callable[[Requests], object],
        *,
        lease: float,
        now: float,
    ) -> None:
        super().__init__(epoch, terms, lease=lease, now=now)
        self.notify = notify
        self.entries: list[bytes] = []
        #: How many of the entries are empty places of dropped ones.
        self.dropped = 0
        self.size = 0
        #: When its watchers last had their turns to read what there is.
        self.read_at = -math.inf
        #: How many watches there are.
        self.watches = 0
        #: The page that was read last, and what it was made for.
        self.last_page: Page
        self.place: tuple[object, ...] | None = None
        #: Counts the changes, to tell whether there was one.
        self.changes = 0
        #: Set with the next change, if anybody waits for it.
        self.changed: anyio.Event | None = None

    @property
    def plain_requests(self) -> Requests:
        """The requests, without the time for which nobody has read the run."""
        return _NONE if self.cancel is None else Requests(cancel=self.cancel)

    def change(self) -> None:
        """Wake those who wait for a change."""
        self.changes += 1
        self.place = None
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    async def let_read(self) -> None:
        """
        Give the readers their turns, and the source of the run as many.

        What the source yields meanwhile reaches the readers in one piece: waking a reader costs
        more than reading. This is only done for a source so fast that readers may not be through
        with the earlier items.
        """
        if anyio.current_time() - self.read_at < _ROUND + _EACH * self.watches:
            for _ in range(_TURNS):
                await checkpoint()
        self.read_at = anyio.current_time()

    def size_before(self, first: int) -> int:
        """Return the size of the entries before a position."""
        number = max(min(first, self.last + 1) - self.first, 0)
        dropped = self.dropped
        return sum(map(len, islice(self.entries, dropped, dropped + number))) + OVERHEAD * number

    def drop(self, first: int) -> int:
        """Drop the entries before a position, and return their size."""
        number = min(first, self.last + 1) - self.first
        size = self.size_before(first)
        end = self.dropped + number
        self.entries[self.dropped : end] = [b""] * number
        self.first += number
        self.dropped = end
        # Moving up the other entries costs time in proportion to their number.
        if end >= _WORTHWHILE and 2 * end >= len(self.entries):
            del self.entries[:end]
            self.dropped = 0
        return size


class KeptWatch(AbstractAsyncContextManager[Watch, None]):
    def __init__(self, find: Callable[[], KeptRun], patience: float) -> None:
        self._find = find
        self._patience = patience
        self._run: KeptRun
        self._seen = 0

    async def __aenter__(self) -> Watch:
        self._run = self._find()
        self._seen = self._run.changes
        self._run.watches += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run.watches -= 1

    async def wait(self) -> None:
        run = self._run
        if run.changes == self._seen:
            if run.changed is None:
                run.changed = anyio.Event()
            if self._patience == math.inf:
                await run.changed.wait()
            else:
                with anyio.move_on_after(self._patience):
                    await run.changed.wait()
        # Otherwise it is no checkpoint: the reader hands over what there is, and waits there.
        self._seen = run.changes
