"""What a file says about one run."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .._runs.log import Requests, Terms
from .._runs.state import RunState
from .clock import Clock

# Seconds by which the clocks of two processors may differ.
_SKEW = 1.0

_NONE = Requests()


@dataclass(slots=True)
class Row(RunState):
    """The clock by which a run is judged, and its row in the table of runs, column by column."""

    clock: Clock
    number: int
    id: bytes
    epoch: str
    owner: bytes | None
    data: bytes
    keep: float
    unwatched: float | None
    started_at: float
    #: The position of the first entry that can be read. Earlier ones, from :attr:`stored` on, are
    #: removed a little later.
    first: int
    stored: int
    last: int
    head: int | None
    outcome: bytes | None
    cancel: bytes | None
    #: The boot of the machine to which the monotonic times belong.
    boot: str
    lease: float
    seen_at: float
    #: The same as :attr:`seen_at`, by the wall clock.
    seen_on: float
    doubted_at: float | None
    watched_at: float
    #: Until when a reader in another process counts as there, waiting to see its end.
    followed_until: float
    #: Its number in the order in which runs have ended.
    ended: int | None
    #: By the wall clock.
    expires_at: float | None
    size: int
    #: Counts the changes that others may want to hear about.
    changes: int

    @property
    def terms(self) -> Terms:
        return Terms(
            owner=None if self.owner is None else to_text(self.owner),
            data=self.data,
            keep=self.keep,
            unwatched=self.unwatched,
            started_at=self.started_at,
        )

    def has_lapsed(self, now: float) -> bool:
        if self.outcome is not None:
            return False
        # A time later than now is from before a restart of the machine.
        return self.boot != self.clock.boot or not -_SKEW <= now - self.seen_at < self.lease

    def requests(self, now: float) -> Requests:
        if self.cancel is None and self.unwatched is None:
            # The case for nearly every item.
            return _NONE
        return Requests(cancel=self.cancel, unwatched_for=max(now - self.watched_at, 0.0))


#: All except the clock.
COLUMNS = [field.name for field in fields(Row)][1:]


def to_bytes(text: str) -> bytes:
    """Return any text as bytes, even if it is not valid Unicode."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Return the text of bytes that :func:`to_bytes` has made."""
    return data.decode("utf-8", "surrogatepass")
