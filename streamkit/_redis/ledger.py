"""
What a process knows of its keys: who holds them, what the holders were told, and what is still to
send.

A key is held from the first holder that opens it to the last one that leaves. Its holders are told
of each cancellation of it that is not over. A cancellation is *over* in this process once the last
holder that was told of it has left: it does not concern anyone who opens the key after that. So a
key that is used again is clean, even if an earlier message is still on its way.

For the server, the ledger collects cancellations to send, keys to look up, and marks and answers to
write. It does not speak to the server itself, and nothing in it blocks. Holders come and go in any
thread, so all of it is under one lock. They are told outside of the lock, because a token's
callbacks may be anybody's code.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias
from uuid import uuid4

from .._signals.token import CancelToken
from .wire import Cancellation, Reply, Request, Settlement, Stored

# How many marks and answers are kept while the server is away, and how many ids are remembered as
# over; beyond that, the oldest is dropped.
_LIMIT = 10_000

#: A mark or an answer.
Chore: TypeAlias = Settlement | Reply


@dataclass(slots=True)
class _Held:
    """A key that is held in this process."""

    holders: int = 0
    #: The ids of the cancellations that the holders were told of.
    told: set[str] = field(default_factory=set[str])
    #: The requests to answer again when the last holder has left.
    requests: list[Request] = field(default_factory=list[Request])
    #: Fires when the key was looked up: other threads and loops may be waiting for that.
    looked_up: CancelToken = field(default_factory=CancelToken)


class Ledger:
    """
    The keys of this process, and what to tell and ask the server.

    :param tell: called with a key and a reason to tell the holders
    :param on_work: called in any thread when there is something for the server
    :param max_unsent: how many cancellations are kept while the server is away; beyond that, the
        oldest is dropped

    """

    def __init__(
        self,
        tell: Callable[[str, str | None], object],
        on_work: Callable[[], None],
        max_unsent: int,
    ) -> None:
        self._tell = tell
        self._on_work = on_work
        self._max_unsent = max_unsent
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        self._unsent: OrderedDict[str, Cancellation] = OrderedDict()
        self._look_ups: dict[str, None] = {}
        # Ids of cancellations that do not concern the current holders here.
        self._over: OrderedDict[str, None] = OrderedDict()
        self._chores: deque[Chore] = deque()
        self._is_sending = False
        #: How many cancellations went unsent because there were too many.
        self.lost: int = 0

    # Holders, in any thread

    def keys(self) -> list[str]:
        """Return the keys that are held, in the order in which they were opened."""
        with self._lock:
            return list(self._held)

    def join(self, key: str) -> CancelToken:
        """
        Note a holder, and tell it of a cancellation that has yet to be sent.

        :return: a token that fires when the key was looked up on the server

        """
        with self._lock:
            held = self._held.setdefault(key, _Held())
            held.holders += 1
            unsent = self._unsent.get(key)
            if unsent is not None and unsent.id in self._over:
                unsent = None
            if unsent is None and not held.looked_up.cancelled:
                self._look_ups[key] = None
        if unsent is not None:
            self._tell_of(held, unsent)
        self._on_work()
        return held.looked_up

    def leave(self, key: str) -> None:
        """Note that a holder has left."""
        with self._lock:
            held = self._held[key]
            held.holders -= 1
            if held.holders:
                return
            del self._held[key]
            self._look_ups.pop(key, None)
            for cancellation_id in held.told:
                self.end(cancellation_id)
            for request in held.requests:
                self._answer(request, holds=False)
        self._on_work()

    # Cancellations from this process, in any thread

    def send(self, key: str, reason: str | None) -> Cancellation:
        """
        Note a cancellation to send. Telling the holders is left to the caller.

        :return: the one that counts: an earlier one that was not sent yet, or else a new one

        """
        with self._lock:
            cancellation = self._unsent.get(key)
            if cancellation is None or cancellation.id in self._over:
                numbers = [] if cancellation is None else cancellation.numbers
                cancellation = Cancellation(key, uuid4().hex, reason, numbers=numbers)
                self._put(cancellation)
            held = self._held.get(key)
            if held is not None:
                held.told.add(cancellation.id)
        self._on_work()
        return cancellation

    def ask(self, cancellation: Cancellation, number: str, instead_of: str | None = None) -> None:
        """
        Send a cancellation, again if necessary, with a request to say when it is done.

        :param number: the number of the request
        :param instead_of: the number of an earlier request, which will no longer be sent

        """
        with self._lock:
            unsent = self._unsent.get(cancellation.key)
            if unsent is None:
                self._put(unsent := cancellation)
            # A new list: the list in flight is compared with it.
            others = [each for each in unsent.numbers if each not in (number, instead_of)]
            unsent.numbers = [*others, number]
        self._on_work()

    def _put(self, cancellation: Cancellation) -> None:
        self._unsent[cancellation.key] = cancellation
        self._drop_oldest()

    # Cancellations from elsewhere

    def receive(self, cancellation: Cancellation) -> None:
        """Tell the holders of a published cancellation, and answer the waiters elsewhere."""
        with self._lock:
            held = self._held.get(cancellation.key)
            holds = held is not None and cancellation.id not in self._over
            for request in cancellation.requests:
                self._answer(request, holds=holds)
                # A cancellation that somebody still waits for may be sent again.
                if held is not None and holds and request not in held.requests:
                    held.requests.append(request)
        if held is not None:
            self._tell_of(held, cancellation)
        self._on_work()

    def find(self, key: str, found: Stored | None) -> None:
        """Tell the holders of a key what a look-up has found."""
        held = self._held.get(key)
        if held is None:
            return
        if found is not None:
            if found.settled and not held.looked_up.cancelled:
                # This cancellation was for earlier holders.
                with self._lock:
                    self._pass_over(found.cancellation.id)
            else:
                self._tell_of(held, found.cancellation)
        held.looked_up.cancel()

    def end(self, cancellation_id: str) -> None:
        """Note, here and on the server, that all holders told of a cancellation are gone."""
        with self._lock:
            self._pass_over(cancellation_id)
            self._add_chore(Settlement(cancellation_id))

    def is_over(self, cancellation: Cancellation) -> bool:
        """Tell whether a cancellation does not concern the current holders of its key here."""
        return cancellation.id in self._over

    def _pass_over(self, cancellation_id: str) -> None:
        self._over[cancellation_id] = None
        if len(self._over) > _LIMIT:
            self._over.popitem(last=False)

    def _tell_of(self, held: _Held, cancellation: Cancellation) -> None:
        with self._lock:
            if cancellation.id in self._over:
                return
            held.told.add(cancellation.id)
        self._tell(cancellation.key, cancellation.reason)

    def _answer(self, request: Request, *, holds: bool) -> None:
        self._add_chore(Reply(*request, holds))

    def _add_chore(self, chore: Chore) -> None:
        self._chores.append(chore)
        self._drop_oldest()

    # What is there for the server

    @contextmanager
    def sending(self) -> Generator[None, None, None]:
        """Keep everything for the server while the block is open; after that, a limited number."""
        self._is_sending = True
        try:
            yield
        finally:
            with self._lock:
                self._is_sending = False
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        if self._is_sending:
            return
        while len(self._unsent) > self._max_unsent:
            self._unsent.popitem(last=False)
            self.lost += 1
        while len(self._chores) > _LIMIT:
            self._chores.popleft()

    @property
    def has_work(self) -> bool:
        """Whether there is something to send, look up, or write."""
        return bool(self._unsent or self._look_ups or self._chores)

    @property
    def unsent(self) -> list[str]:
        """The keys of the cancellations to send, the oldest first."""
        with self._lock:
            return list(self._unsent)

    def next_unsent(self, count: int) -> list[Cancellation]:
        """Return the oldest cancellations to send. They stay until :meth:`sent`."""
        with self._lock:
            return list(islice(self._unsent.values(), count))

    def sent(self, cancellation: Cancellation, numbers: list[str]) -> None:
        """Note that a cancellation was sent, with these requests."""
        with self._lock:
            # Unless, meanwhile, somebody else wants to know when it is done.
            if (
                cancellation.numbers == numbers
                and self._unsent.get(cancellation.key) is cancellation
            ):
                del self._unsent[cancellation.key]

    def look_up_all(self) -> None:
        """Have all keys that are held looked up: published messages may have been lost."""
        with self._lock:
            self._look_ups = dict.fromkeys(self._held)
        self._on_work()

    def take_look_ups(self, count: int) -> list[str]:
        """Hand over the keys to look up: see :meth:`find`."""
        with self._lock:
            keys = list(islice(self._look_ups, count))
            for key in keys:
                del self._look_ups[key]
        return keys

    def take_chores(self, count: int) -> list[Chore]:
        """Hand over the oldest marks and answers."""
        with self._lock:
            return [self._chores.popleft() for _ in range(min(count, len(self._chores)))]

    def put_back(self, chores: Iterable[Chore]) -> None:
        """Take back marks and answers that could not be written, ahead of the others."""
        with self._lock:
            self._chores.extendleft(reversed(list(chores)))
