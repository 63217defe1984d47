"""
What is done over one connection, from the time when it is made until it fails.

Two tasks: one sends what the ledger has for the server and looks up what is held, the other
listens. Nothing is lost with a connection: what was not sent stays in the ledger, and the next
session begins by looking up all keys that are held, and by asking again for all who wait.

Three orders matter. First subscribed, then looked up: what is cancelled in between comes twice, and
not never. First stored, then published: who opens the key in between finds it stored. And a
cancellation that is stored already counts more than a new one: the first reason stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Any

import anyio

from .ledger import Ledger
from .store import Store
from .waiter import Waiters
from .wire import Cancellation, Names, parse_message
from .work import Work

# Seconds in which the server must answer, else the connection counts as lost.
ANSWER_WITHIN = 5.0
# How many keys are handled with one round trip.
_BATCH = 100


class Session:
    """One connection's work."""

    def __init__(
        self, store: Store, ledger: Ledger, waiters: Waiters, work: Work, names: Names
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._waiters = waiters
        self._work = work
        self._names = names

    async def listen(self, messages: AsyncIterable[Any]) -> None:
        """
        Receive what is published, until the connection fails.

        :raises ConnectionResetError: if the subscription ends

        """
        async for message in messages:
            self._receive(message["data"])
        raise ConnectionResetError("the subscription has ended")

    def _receive(self, data: object) -> None:
        message = parse_message(data, self._names)
        if isinstance(message, Cancellation):
            self._ledger.receive(message)
        elif message is not None:
            self._waiters.answer(message)

    async def send(self, connected: Callable[[], None]) -> None:
        """
        Do what the ledger has for the server, until the connection fails.

        Begins with what may have been lost with the last connection.

        :param connected: called whenever the server has done something, or nothing is to be done
        :raises TimeoutError: if the server does not answer

        """
        with self._ledger.sending():
            self._take_up()
            while True:
                announced = self._work.next()
                while self._ledger.has_work:
                    with anyio.fail_after(ANSWER_WITHIN):
                        await self._look_up()
                        await self._publish()
                        await self._write()
                    # Not before: a server may accept connections, and refuse to write.
                    connected()
                connected()
                self._work.finish()
                await announced.wait()

    def _take_up(self) -> None:
        self._ledger.look_up_all()
        for waiter in self._waiters.all():
            earlier = waiter.ask_anew()
            self._ledger.ask(waiter.cancellation, waiter.request, earlier)

    async def _look_up(self) -> None:
        """Find out whether keys that are held were cancelled before, or during an outage."""
        if keys := self._ledger.take_look_ups(_BATCH):
            found = await self._store.find(keys)
            for key in keys:
                self._ledger.find(key, found.get(key))

    async def _publish(self) -> None:
        """Store cancellations, then publish them."""
        batch = self._ledger.next_unsent(_BATCH)
        if not batch:
            return
        added = await self._store.add(batch)
        earlier = [each for each, is_first in zip(batch, added, strict=True) if not is_first]
        count = await self._those_that_count(earlier) if earlier else {}
        messages = [(count.get(each.key, each), list(each.requests)) for each in batch]
        published = await self._store.publish(messages)
        for each, (_, requests), receivers in zip(batch, messages, published, strict=True):
            for _, request in requests:
                self._waiters.expect(request, receivers)
            self._ledger.sent(each, requests)

    async def _those_that_count(self, batch: list[Cancellation]) -> dict[str, Cancellation]:
        """Return what is stored already, or else ours, and store it anew: its time begins again."""
        count = {each.key: each for each in batch}
        for key, found in (await self._store.find(list(count))).items():
            if not found.settled:
                if self._ledger.is_over(count[key]):
                    # Whoever was told of ours is gone, and this is the one that is stored.
                    self._ledger.end(found.cancellation.id)
                count[key] = found.cancellation
        await self._store.replace(count.values())
        return count

    async def _write(self) -> None:
        """Write marks and answers."""
        chores = self._ledger.take_chores(_BATCH)
        if not chores:
            return
        try:
            await self._store.write(chores)
        except BaseException:
            self._ledger.put_back(chores)
            raise
