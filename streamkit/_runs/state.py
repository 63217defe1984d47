"""
What a log knows of one run, and what may be done to it: the rules that are the same in each log.

A log loads the state, asks it, and stores it again, in one transaction of its store. Nothing in
here waits, or knows where anything is kept. The scripts in Redis state the same rules in Lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .errors import RunExists, RunNotFound, RunRunning
from .log import AFTER_READ, DOUBT, Page, Record, Requests, Terms


class RunState:
    """
    What a log knows of one run, besides its entries: for a log of your own.

    The methods decide, and change the state; none of them blocks. The log finds the run, stores the
    state, and answers for a run that does not exist.

    :param epoch: a random name that distinguishes this run from others of the same id
    :param terms: the terms that the run was created with
    :param lease: seconds for which its producer counts as alive without a sign of life
    :param now: the time, here and in all methods, by one clock for all processes that use the store

    """

    __slots__ = (
        "_terms",
        "cancel",
        "doubted_at",
        "epoch",
        "expires_at",
        "first",
        "head",
        "last",
        "lease",
        "outcome",
        "seen_at",
        "watched_at",
    )

    def __init__(self, epoch: str, terms: Terms, *, lease: float, now: float) -> None:
        #: A random name that distinguishes this run from others of the same id.
        self.epoch: str = epoch
        self._terms = terms
        #: Seconds for which its producer counts as alive without a sign of life.
        self.lease: float = lease
        #: The position of the first entry that is kept, or ``last + 1`` if there is none.
        self.first: int = 1
        #: The position of the last entry, or 0.
        self.last: int = 0
        #: The status of the run, once it is known.
        self.head: int | None = None
        #: How it ended, or ``None`` while it goes on.
        self.outcome: bytes | None = None
        #: The reason to stop, or ``None`` if nobody has asked for that.
        self.cancel: bytes | None = None
        #: When its producer last gave a sign of life.
        self.seen_at: float = now
        #: When the producer was first taken for dead since then, or ``None``.
        self.doubted_at: float | None = None
        #: When a reader was last known to be there.
        self.watched_at: float = now
        #: When it may be removed, or ``None`` while it goes on.
        self.expires_at: float | None = None

    @property
    def terms(self) -> Terms:
        """The terms that the run was created with."""
        return self._terms

    # For producers

    def is_writable(self, epoch: str, acknowledged: int = 0) -> bool:
        """
        Tell whether a producer may write the run. If not, it is fenced.

        :param epoch: the epoch of the producer
        :param acknowledged: the position up to which it knows that all was written. If there is
            less, the store has lost something, and no producer goes on from there

        """
        return self.outcome is None and self.epoch == epoch and self.last >= acknowledged

    def create_again(self, run_id: str, epoch: str, now: float) -> Requests:
        """
        Create a run that exists already: allowed for the same epoch, as its reply can be lost.

        :return: what its producer is asked
        :raises RunExists: if the epoch is another one, or the run has ended

        """
        if not self.is_writable(epoch):
            raise RunExists(run_id)
        return self.renew(now)

    def new_entries(self, position: int, entries: Sequence[bytes]) -> Sequence[bytes]:
        """
        Return the entries that are not there yet.

        :param position: the position of the first one that is given
        :raises ValueError: if there would be a hole before them

        """
        known = self.last + 1 - position
        if known < 0 and entries:
            raise ValueError(
                f"the entry {position} cannot follow {self.last}: append what is between"
            )
        return entries[known:] if known > 0 else entries

    def append(
        self, position: int, entries: Sequence[bytes], *, first: int, head: int | None
    ) -> Sequence[bytes]:
        """
        Count entries as written, and return those that the log must add.

        :param first: the first position to keep
        :param head: the status, or ``None`` if it is not known yet
        :return: the new entries, the last of which is at :attr:`last`. Those before :attr:`first`
            may be dropped
        :raises ValueError: if there would be a hole before them

        """
        new = self.new_entries(position, entries)
        self.last += len(new)
        self.first = max(self.first, min(first, self.last + 1))
        self.head = self.head if head is None else head
        return new

    def renew(self, now: float) -> Requests:
        """Note a sign of life of the producer, and return what it is asked."""
        self.seen_at, self.doubted_at = now, None
        return self.requests(now)

    def requests(self, now: float) -> Requests:
        """Return what the producer is asked, without a sign of life."""
        return Requests(cancel=self.cancel, unwatched_for=now - self.watched_at)

    def end(self, outcome: bytes, now: float, *, is_watched: bool) -> float:
        """
        End a run that goes on.

        :param is_watched: whether a reader follows it: the run is then kept as after a read
        :return: the time until which it is kept, which is :attr:`expires_at`

        """
        keep = self.terms.keep
        self.outcome = outcome
        self.expires_at = now + (max(keep, AFTER_READ) if is_watched else keep)
        return self.expires_at

    # For readers

    def has_lapsed(self, now: float) -> bool:
        """Tell whether the run goes on, and its producer gave no sign of life for the lease."""
        return self.outcome is None and now - self.seen_at >= self.lease

    def is_over(self, now: float) -> bool:
        """Tell whether the run has ended, and may be removed."""
        return self.expires_at is not None and self.expires_at <= now

    def record(self, now: float) -> Record:
        """Return what :meth:`RunLog.get` returns."""
        return Record(
            terms=self.terms,
            epoch=self.epoch,
            first=self.first,
            last=self.last,
            head=self.head,
            outcome=self.outcome,
            cancel_requested=self.cancel is not None,
            lapsed=self.has_lapsed(now),
        )

    def page(self, entries: Sequence[bytes], *, lapsed: bool) -> Page:
        """Return entries as a page of :meth:`RunLog.read`."""
        return Page(entries, self.first, self.last, self.epoch, self.head, self.outcome, lapsed)

    def keep_read(self, now: float) -> None:
        """Keep a run that has ended for a while longer, because it was read."""
        if self.expires_at is not None:
            self.expires_at = max(self.expires_at, now + AFTER_READ)

    # For everybody

    def request_cancel(
        self,
        run_id: str,
        reason: bytes,
        now: float,
        owner: str | None,
        epoch: str | None,
        unwatched_for: float | None,
    ) -> Literal["running", "ended"]:
        """
        Ask the run to stop, as :meth:`RunLog.request_cancel` does.

        :raises RunNotFound: if it has another owner

        """
        if owner not in (None, self.terms.owner):
            raise RunNotFound(run_id)
        if self.outcome is not None or epoch not in (None, self.epoch):
            return "ended"
        if unwatched_for is not None and now - self.watched_at < unwatched_for:
            return "ended"
        if self.cancel is None:
            self.cancel = reason
        return "running"

    def doubt(self, now: float) -> Literal["alive", "doubted", "dead"]:
        """
        Tell whether the producer of a run that goes on is dead, and note a doubt.

        :return: ``"dead"`` if the lease is over, and the doubt was noted long enough ago

        """
        if not self.has_lapsed(now):
            return "alive"
        # A clock may have gone back since then.
        if self.doubted_at is None or self.doubted_at > now:
            self.doubted_at = now
        return "doubted" if now - self.doubted_at < DOUBT else "dead"

    def check_removable(self, run_id: str, epoch: str) -> None:
        """
        Check that the run may be removed.

        :raises RunNotFound: if the epoch is another one
        :raises RunRunning: if it goes on

        """
        if self.epoch != epoch:
            raise RunNotFound(run_id)
        if self.outcome is None:
            raise RunRunning(run_id)
