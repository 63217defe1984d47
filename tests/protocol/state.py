"""What a world of the model is made of, and what can be seen of it in every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .store import Message, Rules, Store

# What is promised, as far as it is seen in a step. The rest is in promises.py.
HOLE = "a hole is told"
DOUBLE = "no double"
MIXED = "never two incarnations in one stream"
WRITER = "at most one producer writes"
SAME_END = "every reader gets the same end"
ALIVE = "nobody who lives is buried"
REFUSED = "who is refused has no run"
FOUND = "a renewal finds what was lost"
CANCELLED = "a cancellation is told with the next reply"


@dataclass(frozen=True)
class Scenario:
    """Who is there, and what may go wrong."""

    rules: Rules = field(default_factory=Rules)
    #: The incarnations of the id.
    epochs: str = "ab"
    #: Items that each may make.
    items: int = 2
    #: Entries that are kept.
    keep: int = 9
    #: The latest items, which a producer could write again.
    ring: int = 9
    readers: int = 2
    #: How often a reader may leave and come back.
    leaves: int = 0
    #: Whether somebody may ask for a cancellation.
    cancel: bool = False
    #: Whether a run that has ended may be removed.
    delete: bool = True
    #: What may go wrong, and how often.
    faults: tuple[tuple[str, int], ...] = ()
    #: How much of it altogether.
    most_faults: int = 2
    #: Whether time passes.
    time: bool = True
    #: Whether the store may be restarted, or its clock be put, while one is in doubt that lives.
    meets: bool = False

    def allows(self, world: World, *faults: str) -> bool:
        limits = dict(self.faults)
        return len(world.faults) < self.most_faults and any(
            world.faults.count(fault) < limits.get(fault, 0) for fault in faults
        )


class Producer(NamedTuple):
    epoch: str
    #: ``new``; ``unsure`` whether it was created; ``runs``; or, at its end, ``refused`` or given
    #: up, ``fenced``, ``done``.
    phase: str = "new"
    #: The position up to which it knows that the store has all.
    acknowledged: int = 0
    #: How many items it has made.
    made: int = 0
    #: Ticks since its last sign of life.
    silent: int = 0
    is_frozen: bool = False
    #: Whether it was frozen since its last sign of life: then it may be taken for dead.
    was_frozen: bool = False
    #: Whether it was told of a cancellation.
    cancelled: bool = False
    #: How it ends, once that is decided.
    outcome: str = ""
    #: How many of its items are nowhere: others have their positions. Only without the ring.
    skipped: int = 0


class Reader(NamedTuple):
    #: ``out``; ``knows`` the epoch; has ``subscribed``; has read and ``waits``; or was told:
    #: ``end``, ``gap``, ``mismatch`` (of the epoch), ``beyond`` the tail, ``not found``.
    phase: str = "out"
    #: Its cursor.
    epoch: str = ""
    position: int = 0
    #: Messages that were not taken yet; ``None`` without a subscription.
    mail: tuple[Message, ...] | None = None
    #: Whether it was not told something, which it finds by reading now and then.
    must_look: bool = False
    #: The outcome that it was told.
    outcome: str = ""
    left: int = 0


class Call(NamedTuple):
    """A call that is late."""

    name: str
    epoch: str
    arguments: tuple[object, ...] = ()


class World(NamedTuple):
    store: Store
    producers: tuple[Producer, ...]
    #: In order of what they are: one is as good as the other.
    readers: tuple[Reader, ...]
    #: What the store will have after it was rolled back, once that is decided.
    saved: Store | None = None
    late: tuple[Call, ...] = ()
    #: What has gone wrong so far, in order of its name.
    faults: tuple[str, ...] = ()
    #: How each incarnation has ended, for all to see; forgotten if the store has lost it.
    ended: tuple[tuple[str, str], ...] = ()
    #: Whether the store has lost something.
    has_lost: bool = False
    #: Which incarnation was asked to stop; ``unknown`` if that is the next one.
    asked: str = ""
    #: A promise that was broken in the last step.
    broken: str = ""


#: Phases of a producer and of a reader in which nothing more happens.
OVER = frozenset({"refused", "fenced", "done"})
TOLD = frozenset({"end", "gap", "mismatch", "beyond", "not found"})


def publish(world: World, message: Message | None) -> World:
    if message is None:
        return world
    readers = [
        reader if reader.mail is None else reader._replace(mail=(*reader.mail, message))
        for reader in world.readers
    ]
    return world._replace(readers=tuple(sorted(readers, key=order_of)))


def record_end(world: World) -> World:
    """Take note of what can be read of an end, and see that it is the only one."""
    run = world.store.run
    if run is None:
        return world
    for epoch, outcome in world.ended:
        if epoch == run.epoch:
            if outcome != run.outcome:
                return world._replace(broken=SAME_END)
            return world
    if run.outcome:
        return world._replace(ended=(*world.ended, (run.epoch, run.outcome)))
    return world


def with_producer(world: World, producer: Producer) -> World:
    return world._replace(
        producers=tuple(
            producer if producer.epoch == other.epoch else other for other in world.producers
        )
    )


def with_reader(world: World, number: int, reader: Reader) -> World:
    readers = [*world.readers]
    readers[number] = reader
    readers.sort(key=order_of)
    return world._replace(readers=tuple(readers))


def with_fault(world: World, fault: str) -> World:
    return world._replace(faults=tuple(sorted((*world.faults, fault))))


def order_of(reader: Reader) -> tuple[object, ...]:
    mail = reader.mail
    return reader[:3], mail is not None, mail or (), reader[4:]
