"""
Who waits until no process holds a key any more.

The server says how many have received a cancellation, and each of those answers whether it holds
the key: at once, and again when its last holder has left. A wait is over when as many have answered
as have received it, and none of them holds the key. The answers may come before the number.

Over another connection it asks anew, under another number, for others may receive it then: an
answer to an earlier request counts no more. It still tells who holds the key, or has let go of it.
"""

from __future__ import annotations

from uuid import uuid4

from .._signals.token import CancelToken
from .wire import Answer, Cancellation


class Waiter:
    """One wait, for the holders of a key that was cancelled."""

    def __init__(self, cancellation: Cancellation) -> None:
        self.cancellation = cancellation
        #: What the numbers of its requests begin with.
        self.id = uuid4().hex
        self._attempt = 0
        # Tokens, since other threads and loops wait than the one in which the answers come.
        self._done = CancelToken()
        #: Fires when there will be no more answers, since the registry was left.
        self.given_up = CancelToken()
        self._expected: int | None = None
        self._answered: set[str] = set()
        self._holding: set[str] = set()

    @property
    def request(self) -> str:
        """The number under which it asks."""
        return f"{self.id}:{self._attempt}"

    def ask_anew(self) -> str:
        """
        Ask under another number from now on.

        :return: the number until now

        """
        earlier = self.request
        self._attempt += 1
        self._expected = None
        self._answered.clear()
        return earlier

    async def wait(self) -> None:
        """Wait until no process holds the key. Does not end with :attr:`given_up`."""
        await self._done.wait()

    def expect(self, processes: int) -> None:
        """Note how many processes have been asked."""
        self._expected = processes
        self._check()

    def answer(self, answer: Answer) -> None:
        """Note whether a process holds the key."""
        if answer.request == self.request:
            self._answered.add(answer.process)
        if answer.holds:
            self._holding.add(answer.process)
        else:
            self._holding.discard(answer.process)
        self._check()

    def _check(self) -> None:
        if self._expected is None or len(self._answered) < self._expected or self._holding:
            return
        self._done.cancel()


class Waiters:
    """All who wait in this process. They come and go in any thread."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}
        self._given_up = False

    def __len__(self) -> int:
        return len(self._waiters)

    def all(self) -> list[Waiter]:
        """Return those who wait at the moment."""
        # A copy: tasks in other threads begin and end to wait meanwhile.
        return list(self._waiters.values())

    def add(self, waiter: Waiter) -> None:
        self._waiters[waiter.id] = waiter
        # Afterwards: another thread may be giving up.
        if self._given_up:
            waiter.given_up.cancel()

    def remove(self, waiter: Waiter) -> None:
        del self._waiters[waiter.id]

    def expect(self, request: str, processes: int) -> None:
        """Note how many processes have received a request."""
        if (waiter := self._find(request)) is not None:
            waiter.expect(processes)

    def answer(self, answer: Answer) -> None:
        """Pass an answer on to who has asked."""
        if (waiter := self._find(answer.request)) is not None:
            waiter.answer(answer)

    def _find(self, request: str) -> Waiter | None:
        return self._waiters.get(request.partition(":")[0])

    def give_up(self) -> None:
        """End all waits, and those to come: there will be no more answers."""
        self._given_up = True
        for waiter in self.all():
            waiter.given_up.cancel()
