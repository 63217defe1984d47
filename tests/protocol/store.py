"""
The store of the model: each call of the protocol is one function, which a log does in one step.

A function takes the store as it is, and returns the store as it is then, what the caller is told,
and what is published. Nothing is written before all was checked. A script of a log in a store can
be held against these functions line by line.

Two keys are kept for a run, as in a store that may evict one of them alone: what is known of it
(:class:`Run`), and its entries. Time is in ticks, and relative: a lease counts down, a doubt up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

#: Ticks for which a producer counts as alive without a word.
LEASE = 3

#: Ticks between the two looks that it takes to bury a run.
DOUBT = 2

#: A lease that the clock of the store cannot have given, after it was put back.
FAR = 99

#: There is no doubt; and: there is one from a time that is yet to come.
NO_DOUBT = -1
LATER = -2

#: An item: who made it, and which of its items it is.
Item = tuple[str, int]


@dataclass(frozen=True)
class Rules:
    """The rules that logs follow. Each can be taken out, to see what it is there for."""

    #: A call names the epoch, and does nothing to a run of another one.
    epoch: bool = True
    #: A run that has ended takes nothing more.
    fence: bool = True
    #: Created twice with the same epoch, it is the same run.
    idempotent_create: bool = True
    #: Its producer is there: that is a sign of life.
    alive_again: bool = True
    #: Who gives up to create a run, of which it does not know if it is there, removes it.
    undo: bool = True
    #: What is written at a position that is there already is not written again.
    idempotent_append: bool = True
    #: What a producer writes names the position that was acknowledged, and a store that has less
    #: says so, and writes nothing.
    acknowledged: bool = True
    #: So does the end: or the last items would be missing, and nobody would be told.
    acknowledged_end: bool = True
    #: So does a renewal: or who waits beyond the tail of a silent run would wait for ever.
    acknowledged_renewal: bool = True
    #: What a store has lost is written again, the same items at the same positions.
    ring: bool = True
    #: It takes two looks, with some time in between, to bury a run.
    doubt: bool = True
    #: A sign of life removes the doubt.
    sign_of_life: bool = True
    #: A doubt at which nobody has looked for a while begins anew: the store was away, or its clock
    #: was put. An option: it is for what goes wrong twice within a doubt.
    patience: bool = False
    #: A lease that is longer than any, or a doubt from a time to come, tells of a clock that was
    #: put back, and is none.
    sane_clock: bool = True
    #: A producer gives a sign of life more often than twice in the time of a doubt.
    often: bool = True
    #: The last position is kept beside the entries, which may be evicted alone.
    last: bool = True
    #: A run that is created removes the entries that an evicted one has left behind.
    clean_create: bool = True
    #: What was deleted, or given up, is not created again, however late the call comes.
    buried_epochs: bool = True
    #: A reader subscribes first, and reads then.
    read_after_subscribe: bool = True
    #: A message bears the epoch, and a reader takes none of another.
    epoch_in_messages: bool = True
    #: A reader drops what it knows of a message, and reads where one is missing.
    position_in_messages: bool = True
    #: A cancellation before its run is remembered, and told to it also when it is created again.
    remembered: bool = True
    #: Who has a cursor beyond the tail of a run that goes on waits.
    beyond: bool = True
    #: A reader is told that entries are missing.
    gap: bool = True

    @classmethod
    def without(cls, *names: str) -> Rules:
        return cls(**dict.fromkeys(names, False))


#: The names of the rules.
NAMES = tuple(field.name for field in fields(Rules) if field.default)


class Run(NamedTuple):
    """What is known of a run, beside its entries."""

    epoch: str
    last: int = 0
    lease: int = LEASE
    doubt: int = NO_DOUBT
    #: Ticks since somebody looked whether it is dead.
    looked: int = 0
    cancel: bool = False
    #: Whether it takes nothing more, for its producer could not write again what was lost.
    fenced: bool = False
    outcome: str = ""


class Store(NamedTuple):
    """All that is kept for one id."""

    run: Run | None = None
    #: The entries, each with its position, in order.
    entries: tuple[tuple[int, Item], ...] = ()
    #: Whether a cancellation is remembered that came before its run.
    early: bool = False
    #: Epochs that were deleted or given up, for as long as a call may be under way.
    gone: str = ""


class Page(NamedTuple):
    """What a reader is told."""

    entries: tuple[tuple[int, Item], ...]
    first: int
    last: int
    epoch: str
    outcome: str


class Message(NamedTuple):
    """What is published: entries, or that there is something to read."""

    epoch: str
    entries: tuple[tuple[int, Item], ...] = ()


class Told(NamedTuple):
    """What a producer is told."""

    #: ``""``, ``"exists"``, ``"fenced"``, or ``"behind"``: the store has less than it had.
    refused: str = ""
    cancel: bool = False
    #: Up to which position the store has the entries.
    last: int = 0


EMPTY = Store()
FENCED = Told("fenced")


def create(rules: Rules, store: Store, epoch: str) -> tuple[Store, Told]:
    """Create a run."""
    run = store.run
    if run is not None:
        if rules.idempotent_create and run.epoch == epoch and not run.outcome:
            if rules.alive_again:
                run = alive(rules, run)
            return store._replace(run=run), Told("", run.cancel, run.last)
        return store, Told("exists")
    if rules.buried_epochs and epoch in store.gone:
        return store, FENCED
    entries = () if rules.clean_create else store.entries
    cancel = store.early and rules.remembered
    run = Run(epoch, cancel=cancel)
    return Store(run, entries, False, store.gone), Told("", cancel)


def append(
    rules: Rules,
    store: Store,
    epoch: str,
    position: int,
    entries: tuple[Item, ...],
    acknowledged: int,
    oldest: int,
    first: int,
) -> tuple[Store, Told, Message | None]:
    """Add entries from a position on, and renew the lease."""
    run = running(rules, store, epoch)
    if run is None:
        return store, FENCED, None
    last = run.last if rules.last else (store.entries[-1][0] if store.entries else 0)
    if last < acknowledged and rules.acknowledged:
        return *behind(store, run, oldest), None
    if not rules.idempotent_append:
        position = last + 1
    # What is there already is not written again.
    new = tuple(
        (number, item) for number, item in enumerate(entries, start=position) if number > last
    )
    kept = tuple(entry for entry in store.entries + new if entry[0] >= first)
    last = new[-1][0] if new else last
    run = alive(rules, run)._replace(last=last)
    message = Message(run.epoch, new) if new else None
    return store._replace(run=run, entries=kept), Told("", run.cancel, last), message


def renew(
    rules: Rules, store: Store, epoch: str, acknowledged: int, oldest: int
) -> tuple[Store, Told]:
    """Say that the producer is alive."""
    run = running(rules, store, epoch)
    if run is None:
        return store, FENCED
    if run.last < acknowledged and rules.acknowledged_renewal:
        return behind(store, run, oldest)
    return store._replace(run=alive(rules, run)), Told("", run.cancel, run.last)


def end(
    rules: Rules, store: Store, epoch: str, acknowledged: int, oldest: int, outcome: str
) -> tuple[Store, Told, Message | None]:
    """End a run, if all is there that was acknowledged."""
    run = running(rules, store, epoch)
    if run is None:
        return store, FENCED, None
    if run.last < acknowledged and rules.acknowledged_end:
        return *behind(store, run, oldest), None
    run = run._replace(outcome=outcome, lease=0, doubt=NO_DOUBT, looked=0)
    return store._replace(run=run), Told("", run.cancel, run.last), Message(run.epoch)


def undo(rules: Rules, store: Store, epoch: str) -> tuple[Store, Message | None]:
    """Remove a run whose producer has given up to create it, and has written nothing."""
    store = store._replace(gone="".join(sorted({*store.gone, epoch})))
    run = store.run
    if run is None or run.epoch != epoch or run.last or not rules.undo:
        return store, None
    return store._replace(run=None, entries=()), Message(epoch)


def read(rules: Rules, store: Store, after: int) -> Page | None:
    """Return the entries after a position, or ``None`` if there is no such run."""
    run = store.run
    if run is None:
        return None
    entries = store.entries
    if rules.last:
        last = run.last
        # Of what was evicted, nothing is kept.
        first = entries[0][0] if entries else last + 1
    else:
        last = entries[-1][0] if entries else 0
        first = entries[0][0] if entries else 1
    after_it = () if first > after + 1 else tuple(entry for entry in entries if entry[0] > after)
    return Page(after_it, first, last, run.epoch, run.outcome)


def request_cancel(rules: Rules, store: Store) -> tuple[Store, str, Message | None]:
    """Ask a run to stop, also one that is yet to come."""
    run = store.run
    if run is None:
        return store._replace(early=True), "unknown", None
    if run.outcome:
        return store, "ended", None
    return store._replace(run=run._replace(cancel=True)), "running", None


def bury(rules: Rules, store: Store, epoch: str, outcome: str) -> tuple[Store, str, Message | None]:
    """End a run whose lease is over, in place of its producer, at the second look."""
    run = store.run
    if run is None or (run.epoch != epoch and rules.epoch) or run.outcome:
        return store, "gone", None
    if not has_lapsed(rules, run):
        return store, "alive", None
    doubt = run.doubt
    is_stale = (rules.sane_clock and doubt == LATER) or (rules.patience and run.looked > 1)
    if doubt == NO_DOUBT or is_stale:
        doubt = 0
    if doubt < DOUBT and rules.doubt:
        return store._replace(run=run._replace(doubt=doubt, looked=0)), "doubted", None
    run = run._replace(outcome=outcome, lease=0, doubt=NO_DOUBT, looked=0)
    return store._replace(run=run), "buried", Message(run.epoch)


def delete(rules: Rules, store: Store, epoch: str) -> tuple[Store, str, Message | None]:
    """Remove a run that has ended. When it is kept no more, the same happens."""
    run = store.run
    if run is None or (run.epoch != epoch and rules.epoch):
        return store, "not found", None
    if not run.outcome:
        return store, "running", None
    gone = "".join(sorted({*store.gone, run.epoch}))
    return store._replace(run=None, entries=(), gone=gone), "", Message(run.epoch)


# What the calls have in common


def running(rules: Rules, store: Store, epoch: str) -> Run | None:
    """Return a run if it goes on in this epoch; else who asks is fenced."""
    run = store.run
    if run is None or (run.epoch != epoch and rules.epoch):
        return None
    return None if (run.outcome or run.fenced) and rules.fence else run


def behind(store: Store, run: Run, oldest: int) -> tuple[Store, Told]:
    """
    Tell a producer from where to write again what was lost. If it has that no more, which begins
    with ``oldest``, its run takes nothing more, and is dead at once.
    """
    if oldest <= run.last + 1:
        return store, Told("behind", run.cancel, run.last)
    return store._replace(run=run._replace(fenced=True, lease=0)), FENCED


def alive(rules: Rules, run: Run) -> Run:
    """Take note of a sign of life."""
    if not rules.sign_of_life:
        return run._replace(lease=LEASE)
    return run._replace(lease=LEASE, doubt=NO_DOUBT, looked=0)


def has_lapsed(rules: Rules, run: Run) -> bool:
    return not run.outcome and (run.lease == 0 or (run.lease > LEASE and rules.sane_clock))


# What happens to a store


def pass_time(store: Store) -> Store:
    """Let a tick pass."""
    run = store.run
    if run is None or run.outcome:
        return store
    lease = run.lease - 1 if 0 < run.lease <= LEASE else run.lease
    doubt = run.doubt + 1 if 0 <= run.doubt < DOUBT else run.doubt
    looked = run.looked if run.doubt == NO_DOUBT else min(run.looked + 1, 2)
    return store._replace(run=run._replace(lease=lease, doubt=doubt, looked=looked))


def put_clock(store: Store, forward: bool) -> Store:
    """Put the clock of the store forward, or back, by an hour."""
    run = store.run
    if run is None or run.outcome:
        return store
    run = run._replace(lease=0 if forward else FAR)
    if run.doubt != NO_DOUBT:
        run = run._replace(doubt=DOUBT if forward else LATER, looked=2)
    return store._replace(run=run)
