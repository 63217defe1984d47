"""
What a registry does over one connection, from its beginning until it fails.

One task sends what the ledger has for the server and looks up the held keys; published messages
come in between. Nothing is lost with a connection: what was not sent stays in the ledger, and the
next session begins by looking up all held keys, and by asking again for all waiters.

The order matters in four places. First subscribed, then looked up: a cancellation in between comes
twice, and is not lost. First stored, then published: whoever opens the key in between finds it
stored. Between these two, the present processes are read: a later one looks the key up, and an
earlier one is asked. And a cancellation that is already stored counts more than a new one: the
first reason stays.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from coredis.exceptions import ResponseError

from .._signals.holder import KeyHeld
from .lease import Leases
from .ledger import Ledger
from .server import ANSWER_WITHIN
from .store import Store
from .waiter import Waiters
from .wire import Cancellation, Names, parse_message
from .work import Work

# How many keys are handled with one round trip.
_BATCH = 100
# Seconds between two looks at which processes are there, while somebody waits.
_LOOK_EVERY = 1.0


class Session:
    """One connection's work."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        leases: Leases,
        waiters: Waiters,
        work: Work,
        names: Names,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._leases = leases
        self._waiters = waiters
        self._work = work
        self._names = names
        self._next_look: float | None = None
        self._ending = False
        #: The channels to subscribe to. The one of this process comes last: when it is subscribed,
        #: all are.
        self.channels: tuple[str, ...] = (names.channel, names.own_channel)

    async def check(self) -> None:
        """See whether the server does what it will be asked: it may refuse to read or to write."""
        with anyio.fail_after(ANSWER_WITHIN):
            await self._store.check()

    def receive(self, data: object) -> None:
        """Take what was published on one of the channels."""
        message = parse_message(data, self._names)
        if isinstance(message, Cancellation):
            self._ledger.receive(message)
        elif message is not None:
            self._waiters.answer(message)

    def end(self) -> None:
        """Let :meth:`run` return when its present work is done."""
        self._ending = True
        self._work.announce()

    async def run(self, connected: Callable[[], None]) -> None:
        """
        Do what the ledger has for the server, until :meth:`end` or until the connection fails.

        Begins with what may have been lost with the last connection.

        :param connected: called whenever the server has done something, or there is nothing to do
        :raises TimeoutError: if the server does not answer

        """
        with self._ledger.sending():
            self._take_up()
            while not self._ending:
                announced = self._work.next()
                while self._ledger.has_work or self._pause() == 0:
                    with anyio.fail_after(ANSWER_WITHIN):
                        await self._keep_leases()
                        await self._look_up()
                        await self._publish()
                        await self._write()
                        await self._look_who_is_there()
                    connected()
                connected()
                self._work.finish()
                with anyio.move_on_after(self._pause()):
                    await announced.wait()

    def _take_up(self) -> None:
        self._leases.renew_all()
        self._ledger.look_up_all()
        for waiter in self._waiters.all():
            earlier = waiter.ask_anew()
            self._ledger.ask(waiter.cancellation, waiter.request, earlier)

    async def _look_up(self) -> None:
        """Find out whether held keys were cancelled before, or during an outage."""
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
        messages = [(count.get(each.key, each), list(each.numbers)) for each in batch]
        waits = any(numbers for _, numbers in messages)
        processes = await self._store.processes() if waits else set[str]()
        await self._store.publish(messages)
        for each, (published, numbers) in zip(batch, messages, strict=True):
            for number in numbers:
                self._waiters.expect(number, published, processes)
            self._ledger.sent(each, numbers)

    async def _those_that_count(self, batch: list[Cancellation]) -> dict[str, Cancellation]:
        """Return what is stored already, or else ours. It is stored anew: its time begins again."""
        count = {each.key: each for each in batch}
        for key, found in (await self._store.find(list(count))).items():
            if not found.settled:
                if self._ledger.is_over(count[key]):
                    # The holders that were told of ours are gone, so the stored one is over, too.
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

    async def _keep_leases(self) -> None:
        """Remove leases that were given back, and set and renew those that are held."""
        # In this order: an earlier lease of a key that is asked for was given back before that, and
        # must be gone when the new one is set.
        due, returned = self._leases.due(), self._leases.take_returned()
        if returned:
            try:
                await self._store.remove(returned)
            except BaseException:
                self._leases.return_again(returned)
                raise
        if not due:
            return
        asked_at = anyio.current_time()
        for lease, answer in zip(due, await self._store.keep(due), strict=True):
            if isinstance(answer, ResponseError):
                self._leases.refused(lease, answer)
            elif answer:
                self._leases.kept(lease, asked_at)
            else:
                self._leases.refused(lease, KeyHeld(lease.key))

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do, or ``None`` if there is nothing."""
        pauses = self._leases.pause(), self._pause_to_look()
        return min((pause for pause in pauses if pause is not None), default=None)

    def _pause_to_look(self) -> float | None:
        """Return the seconds until the next look at the processes, or ``None`` if nobody waits."""
        if not self._waiters:
            self._next_look = None
            return None
        now = anyio.current_time()
        if self._next_look is None:
            self._next_look = now + _LOOK_EVERY
        return max(0.0, self._next_look - now)

    async def _look_who_is_there(self) -> None:
        """Stop waiting for dead processes, and ask again those that have not answered."""
        if self._pause_to_look() != 0:
            return
        self._next_look = anyio.current_time() + _LOOK_EVERY
        processes = await self._store.processes()
        await self._store.publish(
            (waiter.published, [waiter.request])
            for waiter in self._waiters.all()
            if waiter.look(processes) and waiter.published is not None
        )
