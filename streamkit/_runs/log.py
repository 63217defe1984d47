"""
What a log must do: the protocol between runs and the store that keeps them.

A log keeps bytes, and knows nothing of what is in them. Its calls are few, and made so that a store
in another process can answer them:

* **Each call names the epoch**, and does nothing to a run of another one. So two runs of the same
  id never mix, and a producer that was taken for dead can no longer write: it is *fenced*.
* **A call may come twice**, because a reply can be lost. ``create`` with the same epoch is the same
  run. ``append`` names the position of its first entry: existing entries are not written again.
* **A producer names what it knows to be written** when it writes, renews and ends. A store that
  has less has lost something.
* **All or nothing.** Everything is checked before anything is written.
* **A watch is a hint, a read is the truth.** A watcher that is woken reads; a superfluous wake-up
  costs a read.
* **A call may be cancelled at any await**, and leaves no connection and no lock behind. A cancelled
  write may have happened or not.
* A call that cannot reach its store tries again for as long as :attr:`RunLog.outage` says, then
  raises :exc:`LogUnavailable`.

The conformance suite in :mod:`streamkit.testing` says the same as tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

#: The most entries that a log returns at once.
PAGE = 200

#: Entries that a log may keep longer than it was told to.
SLACK = 100

#: Seconds for which a cancellation that comes before its run is remembered.
REMEMBER = 30.0

#: Seconds for which an ended run is kept after it was read, at least.
AFTER_READ = 60.0

#: Seconds between the two looks that bury a run.
DOUBT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a log is told of a run at its creation."""

    #: Who may read and cancel it, or ``None``.
    owner: str | None = None
    #: Bytes that every :class:`Record` gives back.
    data: bytes = b"null"
    #: Seconds for which the run is kept after its end.
    keep: float = 600.0
    #: Seconds after which a run that nobody reads is cancelled, or ``None``. The log only passes
    #: this on to readers.
    unwatched: float | None = None
    #: In seconds since 1970.
    started_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What a producer is told when it writes or renews: what others have asked of its run."""

    #: The reason of the first cancellation, as bytes, or ``None`` if there was none.
    cancel: bytes | None = None
    #: The run no longer belongs to this producer: others have ended or removed it, or it is gone.
    fenced: bool = False
    #: Seconds since anybody was known to read the run. Stands still while the store is away.
    unwatched_for: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a log knows of a run, besides its entries."""

    terms: Terms
    epoch: str
    #: The position of the first entry that is kept, or ``last + 1`` if there is none.
    first: int
    #: The position of the last entry, or 0.
    last: int
    #: The status that the run began with, if its source has given one.
    head: int | None
    #: How it ended, as bytes, or ``None`` while it goes on.
    outcome: bytes | None
    #: Whether it was asked to stop.
    cancel_requested: bool
    #: Whether it goes on, and its producer has not been heard of for as long as the lease is.
    lapsed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a run, and how it is at that moment."""

    #: Those after the position that was asked for, in order. Empty if the next one is no longer
    #: kept.
    entries: Sequence[bytes]
    #: As in :class:`Record`, like what follows.
    first: int
    last: int
    epoch: str
    head: int | None
    outcome: bytes | None
    lapsed: bool = False


class Watch(Protocol):
    """Tells a reader when to read again."""

    async def wait(self) -> None:
        """
        Wait until there may be something new since the last wait, or since the watch was entered.

        Returns too often rather than too late. It also returns after :attr:`RunLog.reconcile`
        seconds without news, if the log may not hear everything, and when a lease may end, which
        nobody announces.
        """
        ...


class RunLog(Protocol):
    """
    Where runs are kept. Used in the event loop in which it was opened.

    The top of ``streamkit/_runs/log.py`` says what a call must do, and what may happen to it.
    """

    #: Seconds for which a producer counts as alive without a sign of life, or ``math.inf``.
    lease: float
    #: Seconds after which a watch looks by itself, and a reader reports that it is there.
    reconcile: float
    #: Seconds for which a call tries to reach the store.
    outage: float
    #: Items of a run that may be on their way to the log.
    max_held: int

    def open(self) -> AbstractAsyncContextManager[object]:
        """
        Return the block in which the log is used, by one :class:`Runs` or by several.

        Tasks of this block do what the log does besides its calls. Leaving it removes nothing that
        is kept.
        """
        ...

    async def create(
        self, run_id: str, epoch: str, terms: Terms, notify: Callable[[Requests], object]
    ) -> Requests:
        """
        Create a run, which then goes on. A second call with the same epoch finds the same run, and
        is a sign of life of its producer.

        :param notify: called in the event loop when the log hears of a request, without waiting for
            the producer to write: a hint, which may never come
        :return: the requests. Among them is a cancellation that was remembered for the first run of
            this id (with the same owner, if it named one); it is forgotten now
        :raises RunExists: if the id is taken
        :raises LogFull: if there is no room

        """
        ...

    async def append(
        self,
        run_id: str,
        epoch: str,
        position: int,
        entries: Sequence[bytes],
        *,
        acknowledged: int,
        first: int,
        head: int | None = None,
    ) -> Requests:
        """
        Add entries, and renew the lease.

        :param position: the position of the first entry
        :param entries: may be empty, if there is only a status to write
        :param acknowledged: the position up to which the producer knows that entries were written.
            A store that has less has lost some, and must have them written again or fence the
            producer
        :param first: the first position to keep. Up to 100 more may be kept
        :param head: the status, once it is known
        :return: the requests. If the producer is fenced, nothing was written
        :raises LogFull: if there is no room, and nothing was written

        """
        ...

    async def renew(self, run_id: str, epoch: str, *, acknowledged: int = 0) -> Requests:
        """
        Say that the producer is alive.

        :param acknowledged: as in :meth:`append`: a run that yields nothing for long should learn
            that the store has lost its last entries, because readers wait for them
        :return: the requests

        """
        ...

    async def end(self, run_id: str, epoch: str, outcome: bytes, *, acknowledged: int = 0) -> bool:
        """
        End a run. From now on its outcome can be read, and it is kept for ``keep`` seconds; if it
        is being watched, for 60 seconds at least.

        :param acknowledged: as in :meth:`append`: otherwise the last entries could be missing, and
            readers would still see an end
        :return: ``False`` if the producer is fenced, and nothing was written

        """
        ...

    async def get(self, run_id: str) -> Record:
        """
        Return what is known of a run.

        :raises RunNotFound: if there is none

        """
        ...

    async def read(self, run_id: str, after: int, limit: int = PAGE) -> Page:
        """
        Return entries after a position. An ended run is then kept for 60 seconds at least.

        :raises RunNotFound: if there is no such run

        """
        ...

    def watch(self, run_id: str) -> AbstractAsyncContextManager[Watch]:
        """
        Return a block in which the changes of a run are heard: entries, its end, its removal.

        :raises RunNotFound: on entering, if there is no such run. A log may leave that to the read

        """
        ...

    async def touch(self, run_id: str, epoch: str) -> None:
        """Say that the run is being read: :attr:`Requests.unwatched_for` begins anew."""
        ...

    async def request_cancel(
        self,
        run_id: str,
        reason: bytes,
        *,
        owner: str | None = None,
        epoch: str | None = None,
        unwatched_for: float | None = None,
    ) -> Literal["running", "ended", "unknown"]:
        """
        Ask a run to stop. The first reason stays.

        If there is no run of this id, the request is remembered for 30 seconds, unless an epoch is
        named.

        :param owner: who asks, or ``None`` if that does not matter
        :param epoch: the incarnation that is meant, or ``None`` for any
        :param unwatched_for: ask only if nobody has read the run for this many seconds
        :return: ``"running"`` if it was asked, or had been before; ``"ended"`` if it no longer goes
            on, or not in this epoch, or if it is read; ``"unknown"`` if the request was remembered
        :raises RunNotFound: if it has another owner

        """
        ...

    async def bury(
        self, run_id: str, epoch: str, outcome: bytes
    ) -> Literal["alive", "doubted", "buried", "gone"]:
        """
        End a run whose lease is over, instead of its producer. Takes two looks: the first stores a
        doubt, and one that comes 5 seconds later, with no sign of life in between, ends the run.

        :return: ``"buried"`` for the one call that has ended it, ``"doubted"`` if it is too early,
            ``"alive"`` if the lease is not over, ``"gone"`` if the run no longer goes on

        """
        ...

    async def delete(self, run_id: str, epoch: str) -> None:
        """
        Remove an ended run.

        :raises RunNotFound: if there is none, or none of this epoch
        :raises RunRunning: if it goes on

        """
        ...
