"""
Hold a key exclusively: a lease on the server, which is renewed while the block is open.

A lease is a name that nobody else has set, with the id of its holder and a time after which the
server forgets it: this frees the key when its holder is killed. One script sets and renews a lease,
and does so only if the lease is ours or nobody's; another removes a lease, and only if it is ours.
So both may be sent again when an answer is lost. A server that comes back empty gets the lease
again.

By the holder's clock a lease ends sooner than by the server's, because the holder's time starts
with the request. A holder that cannot renew its lease in time is told, whether the server is there
or not. There is no fence: a frozen holder is told only when it wakes up, and may have worked beside
another one.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import anyio

from .._signals.holder import KeyHeld
from .._signals.token import CancelToken

# Seconds that a lease lasts, and seconds after which it is renewed.
LEASE, _RENEW_AFTER = 15.0, 5.0
# Seconds until the next attempt after the server has refused one.
_RETRY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class KeyLost:
    """
    The reason of a run that has held a key exclusively, and may no longer do so.

    Its process was frozen or cut off from the server for too long, or somebody has removed the
    lease from the server.
    """

    def __str__(self) -> str:
        return "the key is no longer held exclusively"


class Lease:
    """A key that is held exclusively, or will be."""

    def __init__(self, key: str) -> None:
        self.key = key
        #: What distinguishes its holder from others.
        self.id: str = uuid4().hex
        #: Fires when it is known whether the lease is ours. If not, the reason is an error.
        self.decided: CancelToken = CancelToken()
        #: Fires when the lease is lost, with a :class:`KeyLost` as the reason.
        self.lost: CancelToken = CancelToken()
        #: Until when it is ours, and when to renew it, on the clock of the event loop.
        self.until: float = math.inf
        self.renew_at: float = -math.inf


class Leases:
    """
    The leases of a process. Any thread may take them and give them back.

    :param on_work: called in any thread when there is something for the server

    """

    def __init__(self, on_work: Callable[[], None]) -> None:
        self._on_work = on_work
        self._lock = threading.RLock()
        self._leases: dict[str, Lease] = {}
        self._returned: deque[Lease] = deque()
        self._changed = anyio.Event()

    # Holders, in any thread

    def take(self, key: str) -> Lease:
        """
        Ask for a lease.

        :raises KeyHeld: if somebody in this process has it, or asks for it

        """
        with self._lock:
            if key in self._leases:
                raise KeyHeld(key)
            lease = self._leases[key] = Lease(key)
        self._on_work()
        return lease

    def give_back(self, lease: Lease) -> None:
        """Give a lease back, whether it is ours, asked for, or lost."""
        with self._lock:
            self._drop(lease)
            self._returned.append(lease)
        self._on_work()

    def give_up(self) -> None:
        """Tell all holders that there will be no renewal."""
        for lease in self._all():
            self._lose(lease)

    # For the server, in the loop of the registry

    def renew_all(self) -> None:
        """Have all leases renewed as soon as possible, over a new connection for instance."""
        for lease in self._all():
            lease.renew_at = -math.inf

    def pause(self) -> float | None:
        """Return the seconds until there is something for the server, or ``None`` for nothing."""
        if self._returned:
            return 0.0
        renew_at = min((lease.renew_at for lease in self._all()), default=None)
        return None if renew_at is None else max(0.0, renew_at - anyio.current_time())

    def due(self) -> list[Lease]:
        """Return the leases that must be set or renewed."""
        self._lose_expired()
        now = anyio.current_time()
        return [lease for lease in self._all() if lease.renew_at <= now]

    def take_returned(self) -> list[Lease]:
        """Hand over the leases that were given back."""
        with self._lock:
            returned = list(self._returned)
            self._returned.clear()
        return returned

    def return_again(self, leases: list[Lease]) -> None:
        """Take back the leases that could not be removed. The server forgets expired ones."""
        now = anyio.current_time()
        with self._lock:
            self._returned.extendleft(lease for lease in leases if lease.until > now)

    def kept(self, lease: Lease, asked_at: float) -> None:
        """Note that a lease is ours, for some time from the request on."""
        lease.until, lease.renew_at = asked_at + LEASE, asked_at + _RENEW_AFTER
        lease.decided.cancel()
        self._changed.set()

    def refused(self, lease: Lease, error: Exception) -> None:
        """Note that a lease is somebody else's, or that the server cannot keep it."""
        if not lease.decided.cancelled:
            with self._lock:
                self._drop(lease)
            lease.decided.cancel(error)
        elif isinstance(error, KeyHeld):
            self._lose(lease)
        else:
            # The lease is ours until its time is over.
            lease.renew_at = anyio.current_time() + _RETRY_AFTER

    async def watch(self) -> None:
        """Tell the holders of leases that end without being renewed. Runs until it is cancelled."""
        while True:
            self._changed = anyio.Event()
            self._lose_expired()
            until = min((lease.until for lease in self._all()), default=math.inf)
            with anyio.move_on_after(until - anyio.current_time()):
                await self._changed.wait()

    def _lose_expired(self) -> None:
        now = anyio.current_time()
        for lease in self._all():
            if lease.until <= now:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        with self._lock:
            self._drop(lease)
        lease.lost.cancel(KeyLost())

    def _drop(self, lease: Lease) -> None:
        if self._leases.get(lease.key) is lease:
            del self._leases[lease.key]

    def _all(self) -> list[Lease]:
        # A copy: leases come and go in other threads.
        with self._lock:
            return list(self._leases.values())
