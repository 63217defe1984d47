"""
The names of keys and channels on the server.

All names of a run have the same hash tag, its id. So in a cluster they are in one slot, and runs
are spread over all nodes. A database number separates keys, but not channels, so it is added to the
names of channels. That number, and how to publish, are known once there is a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

# An id may be any text. Characters that mean something in a name, or do not print, are escaped.
_SAFE = "!$&'()*+,-./:;=?@_~"


@dataclass(frozen=True, slots=True)
class RunNames:
    """The names of one run."""

    #: A hash: what is known about the run.
    meta: str
    #: A stream: its entries.
    entries: str
    #: A hash: cancellations that came before the run, and the epochs of runs that were removed.
    early: str
    #: Where its entries and its end are published.
    news: str
    #: Where its producer is told what others ask for.
    requests: str


class Names:
    """
    The names under a prefix.

    :param prefix: what all of them begin with

    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        #: A run that does not exist, to check the permissions. No id is empty.
        self.probe: RunNames = self.of("")

    def of(self, run_id: str) -> RunNames:
        """Return the names of a run."""
        name = quote(run_id, _SAFE, errors="surrogatepass") or "%"
        key = f"{self._prefix}:run:{{{name}}}"
        return RunNames(
            f"{key}:meta",
            f"{key}:entries",
            f"{key}:early",
            f"{key}:news",
            f"{key}:requests",
        )


class Wire:
    """
    How names are written over a connection.

    :param database: the number of the database
    :param in_cluster: whether the connection is to a cluster

    """

    def __init__(self, database: int, *, in_cluster: bool) -> None:
        self._number = f"@{database}" if database else ""
        #: The publishing command: in a cluster, it publishes within a shard.
        self.publish: bytes = b"SPUBLISH" if in_cluster else b"PUBLISH"

    def channel(self, name: str) -> str:
        """Return the name of a channel on the server."""
        return f"{name}{self._number}"

    def name(self, channel: str) -> str:
        """Return the channel that has this name on the server."""
        return channel.removesuffix(self._number)
