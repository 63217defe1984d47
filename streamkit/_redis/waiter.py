"""
The calls that wait until no process holds a key.

The present processes are asked, and each of them answers whether it holds the key: at once, and
again when its last holder has left. A wait is over when all of them have answered and none of them
holds the key. The answers may come before it is known who was asked.

The present processes are looked up again and again. A missing process has died, and is no longer
waited for. One that is present and has not answered is asked again, because the message may have
been lost. A process may be missing once while it reconnects. After an outage it may be missing for
seconds, because all processes come back, each in its own time.

Over another connection a call asks anew, under another number, because other processes may receive
the request: an answer to an earlier one no longer counts. It still tells whether its sender holds
the key, or has let go.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import uuid4

from .._signals.token import CancelToken
from .wire import Answer, Cancellation

# How many times in a row a process is missing until it counts as dead: usually, and after the
# connection of this process was lost.
_MISSING, _MISSING_AFTER_OUTAGE = 2, 4


class Waiter:
    """One wait, for the holders of a key that was cancelled."""

    def __init__(self, cancellation: Cancellation) -> None:
        self.cancellation = cancellation
        #: The prefix of the numbers of its requests.
        self.id = uuid4().hex
        self._attempt = 0
        # Tokens, because the answers come in another thread or loop than that of the wait.
        self._done = CancelToken()
        #: Fires when there will be no more answers, because the registry was left.
        self.given_up = CancelToken()
        #: The published cancellation, which may be an earlier one than this wait is for.
        self.published: Cancellation | None = None
        #: Whether a process has said that it holds the key.
        self.has_found = False
        self._asked: set[str] = set()
        self._answered: set[str] = set()
        self._holding: set[str] = set()
        # The ones that were missing, and how many times in a row.
        self._missing: dict[str, int] = {}
        self._patience = _MISSING

    @property
    def request(self) -> str:
        """The number under which this call asks."""
        return f"{self.id}:{self._attempt}"

    def ask_anew(self) -> str:
        """
        Ask under another number from now on.

        :return: the earlier number

        """
        earlier = self.request
        self._attempt += 1
        self.published = None
        self._asked.clear()
        self._answered.clear()
        self._missing.clear()
        self._patience = _MISSING_AFTER_OUTAGE
        return earlier

    async def wait(self) -> None:
        """Wait until no process holds the key. Does not end with :attr:`given_up`."""
        await self._done.wait()

    def expect(self, published: Cancellation, processes: Collection[str]) -> None:
        """Note what was published, and which processes were asked by it."""
        self.published = published
        self._asked.update(processes)
        self._check()

    def answer(self, answer: Answer) -> None:
        """Note whether a process holds the key."""
        if answer.request == self.request:
            self._answered.add(answer.process)
        if answer.holds:
            self.has_found = True
            self._holding.add(answer.process)
        else:
            self._holding.discard(answer.process)
        self._check()

    def look(self, present: Collection[str]) -> bool:
        """
        Note which processes are there.

        :return: whether one of them was asked, and has not answered

        """
        for process in (self._asked - self._answered) | self._holding:
            if process in present:
                self._missing.pop(process, None)
                continue
            self._missing[process] = self._missing.get(process, 0) + 1
            if self._missing[process] >= self._patience:
                self._asked.discard(process)
                self._holding.discard(process)
        self._check()
        return not self._asked <= self._answered

    def _check(self) -> None:
        if self.published is not None and self._asked <= self._answered and not self._holding:
            self._done.cancel()


class Waiters:
    """All waiting calls in this process. They come and go in any thread."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}
        self._given_up = False

    def __len__(self) -> int:
        return len(self._waiters)

    def all(self) -> list[Waiter]:
        """Return the calls that wait at the moment."""
        # A copy: tasks in other threads begin and stop waiting meanwhile.
        return list(self._waiters.values())

    def add(self, waiter: Waiter) -> None:
        self._waiters[waiter.id] = waiter
        # Afterwards: another thread may be giving up.
        if self._given_up:
            waiter.given_up.cancel()

    def remove(self, waiter: Waiter) -> None:
        del self._waiters[waiter.id]

    def expect(self, request: str, published: Cancellation, processes: Collection[str]) -> None:
        """Note what was published with a request, and which processes have received it."""
        if (waiter := self._find(request)) is not None and waiter.request == request:
            waiter.expect(published, processes)

    def answer(self, answer: Answer) -> None:
        """Pass an answer on to the call that has asked."""
        if (waiter := self._find(answer.request)) is not None:
            waiter.answer(answer)

    def _find(self, request: str) -> Waiter | None:
        return self._waiters.get(request.partition(":")[0])

    def give_up(self) -> None:
        """End all waits, now and in future: there will be no more answers."""
        self._given_up = True
        for waiter in self.all():
            waiter.given_up.cancel()
