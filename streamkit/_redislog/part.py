"""What a log is to the link: its work, over each connection."""

from __future__ import annotations

from .._redis.channels import Channels
from .._redis.server import Server
from .desk import Desk
from .names import RunNames
from .session import Session


class LogPart:
    """
    The part of a log.

    :param desk: what is to be done
    :param probe: the names of a run that there is none of
    :param reconcile: seconds between two looks

    """

    def __init__(self, desk: Desk, probe: RunNames, reconcile: float) -> None:
        self._probe = probe
        self._desk = desk
        self._reconcile = reconcile

    def use(self, server: Server, channels: Channels) -> Session:
        """Return what is to be done over a new connection."""
        return Session(server, channels, self._desk, self._probe, self._reconcile)

    def given_up(self) -> None:
        """Note that there will be no other connection: nobody waits for an answer."""
        self._desk.give_up()
