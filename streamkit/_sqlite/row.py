"""What a file says of one run."""

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
    #: The position of the first entry that can be read. Those before it go a little later, from
    #: :attr:`stored` on.
    first: int
    stored: int
    last: int
    head: int | None
    outcome: bytes | None
    cancel: bytes | None
    #: Which start of the machine the times of its clock are of.
    boot: str
    lease: float
    seen_at: float
    #: The same, by the clock on the wall.
    seen_on: float
    doubted_at: float | None
    watched_at: float
    #: Until when somebody in another process than its own will have been there to see its end.
    followed_until: float
    #: Of all that have ended, the how manieth.
    ended: int | None
    #: By the clock on the wall.
    expires_at: float | None
    size: int
    #: Counts what others may want to hear of.
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
        # One that was heard of later than now was so before the machine was started again.
        return self.boot != self.clock.boot or not -_SKEW <= now - self.seen_at < self.lease

    def requests(self, now: float) -> Requests:
        if self.cancel is None and self.unwatched is None:
            # What happens for nearly every item.
            return _NONE
        return Requests(cancel=self.cancel, unwatched_for=max(now - self.watched_at, 0.0))


#: All but the clock.
COLUMNS = [field.name for field in fields(Row)][1:]


def to_bytes(text: str) -> bytes:
    """Return any text as bytes: one that is no Unicode as well."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Return the text again."""
    return data.decode("utf-8", "surrogatepass")
