"""What a log does over each connection of the link."""

from __future__ import annotations

from .._redis.channels import Channels
from .._redis.server import Server
from .desk import Desk
from .names import RunNames
from .session import Session


class LogPart:
    """
    The part of a log.

    :param desk: the work of the log
    :param probe: the names of a run that does not exist
    :param reconcile: seconds between two looks

    """

    def __init__(self, desk: Desk, probe: RunNames, reconcile: float) -> None:
        self._probe = probe
        self._desk = desk
        self._reconcile = reconcile

    def use(self, server: Server, channels: Channels) -> Session:
        """Return the session for a new connection."""
        return Session(server, channels, self._desk, self._probe, self._reconcile)

    def given_up(self) -> None:
        """Note that there will be no other connection, so that nobody waits for an answer."""
        self._desk.give_up()
