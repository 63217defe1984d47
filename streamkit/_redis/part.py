"""A registry, as the link sees it: ledger, leases and waiters, over each connection."""

from __future__ import annotations

from uuid import uuid4

from .channels import Channels
from .lease import Leases
from .ledger import Ledger
from .server import Server
from .session import Session
from .store import Store
from .waiter import Waiters
from .wire import Names
from .work import Work


class RegistryPart:
    """
    The part of a registry.

    Made when the registry is entered, not before: a forked process must not have the name of
    another.

    :param prefix: the prefix of names on the server
    :param milliseconds: how long the server remembers what it stores

    """

    def __init__(
        self,
        prefix: str,
        milliseconds: int,
        ledger: Ledger,
        leases: Leases,
        waiters: Waiters,
        work: Work,
    ) -> None:
        self._prefix = prefix
        self._process = uuid4().hex
        self._milliseconds = milliseconds
        self._ledger = ledger
        self._leases = leases
        self._waiters = waiters
        self._work = work

    def use(self, server: Server, channels: Channels) -> Session:
        """Return the work to do over a new connection."""
        names = Names(self._prefix, self._process, server.database, in_cluster=server.is_cluster)
        store = Store(server, names, self._milliseconds)
        return Session(store, self._ledger, self._leases, self._waiters, self._work, names)

    def given_up(self) -> None:
        """Note that there will be no further connection: nobody need wait for what is unsent."""
        self._work.close()
