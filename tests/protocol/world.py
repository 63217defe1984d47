"""
The world of the model: producers, readers and a burier around a store, and what may go wrong.

A world is a value. :func:`steps` yields what may happen next, each with a line that says so. What a
call does in the store and that its reply arrives is one step, unless something goes wrong: who
waits for a reply does nothing meanwhile that others could see. For the same reason, an item is made
when it is written.

Three things may go wrong with a call of a producer. It is lost, which is as if it was made later;
its reply is lost; or it is *late*: the producer gives it up and makes it again, and one day it
arrives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from . import store as calls
from .store import DOUBT, EMPTY, NO_DOUBT, Item, Message, Rules, Store, Told

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def begin(scenario: Scenario) -> World:
    producers = tuple(map(Producer, scenario.epochs))
    return World(EMPTY, producers, (Reader(),) * scenario.readers)


def steps(scenario: Scenario, world: World) -> Iterator[tuple[str, World]]:
    """Yield all that may happen next."""
    for number, producer in enumerate(world.producers):
        yield from _steps_of_producer(scenario, world, number, producer)
    seen: set[Reader] = set()
    for number, reader in enumerate(world.readers):
        if reader not in seen:
            seen.add(reader)
            yield from _steps_of_reader(scenario, world, number, reader)
    for number, call in enumerate(world.late):
        late = world.late[:number] + world.late[number + 1 :]
        line = f"late: {call.epoch}.{call.name}{call.arguments} arrives"
        yield line, make_call(scenario, world._replace(late=late), call)[0]
    yield from _steps_of_store(scenario, world)
    run = world.store.run
    if run is not None:
        if not run.outcome:
            if calls.has_lapsed(scenario.rules, run):
                for producer in world.producers:
                    yield f"somebody buries {producer.epoch}", bury(scenario, world, producer)
            if scenario.time and can_pass(scenario, world):
                yield "a tick passes", tick(world)
        elif scenario.delete:
            store, _, message = calls.delete(scenario.rules, world.store, run.epoch)
            yield f"{run.epoch} is deleted", publish(world._replace(store=store), message)
    if scenario.cancel and not world.asked:
        store, answer, message = calls.request_cancel(scenario.rules, world.store)
        asked = run.epoch if run is not None and answer == "running" else answer
        yield (
            f"a cancellation: {answer}",
            publish(world._replace(store=store, asked=asked), message),
        )


# Producers


def _steps_of_producer(
    scenario: Scenario, world: World, number: int, producer: Producer
) -> Iterator[tuple[str, World]]:
    if producer.phase in OVER:
        return
    epoch = producer.epoch
    if producer.is_frozen:
        yield f"{epoch} is woken", with_producer(world, producer._replace(is_frozen=False))
        return
    for call, then in calls_of(scenario, producer):
        line = f"{epoch}.{call.name}{call.arguments}"
        after, told = make_call(scenario, world, call)
        yield f"{line} -> {told}", hear(scenario, after, then, call, told)
        unsure = then._replace(phase="unsure") if then.phase == "new" else then
        if scenario.allows(world, "reply lost"):
            lost = with_fault(with_producer(after, unsure), "reply lost")
            yield f"{line}, the reply is lost", lost
        if scenario.allows(world, "late"):
            late = with_fault(with_producer(world, unsure), "late")
            yield f"{line} is late", late._replace(late=tuple(sorted((*late.late, call))))
    if producer.phase == "unsure":
        yield f"{epoch} gives up", give_up(scenario, world, producer)
    if producer.phase == "runs" and scenario.allows(world, "freeze"):
        frozen = producer._replace(is_frozen=True, was_frozen=True)
        yield f"{epoch} is frozen", with_fault(with_producer(world, frozen), "freeze")


def calls_of(scenario: Scenario, producer: Producer) -> Iterator[tuple[Call, Producer]]:
    """Yield the calls that a producer may make now, with the producer that waits for the reply."""
    epoch, acknowledged, made = producer.epoch, producer.acknowledged, producer.made
    if producer.phase in ("new", "unsure"):
        yield Call("create", epoch), producer
        return
    oldest = max(acknowledged - scenario.ring + 1, 1)
    has_ended = producer.cancelled or producer.outcome
    room = 0 if has_ended else min(scenario.items - made, 2)
    yield Call("renew", epoch, (acknowledged, oldest)), producer
    for more in reversed(range(acknowledged == made, room + 1)):
        all_made = made + more
        positions = range(acknowledged + 1, all_made + 1)
        items = tuple((epoch, position + producer.skipped) for position in positions)
        first = max(all_made - scenario.keep + 1, 1)
        arguments = acknowledged + 1, items, acknowledged, oldest, first
        yield Call("append", epoch, arguments), producer._replace(made=all_made)
    if acknowledged == made:
        outcome = producer.outcome or ("cancelled" if producer.cancelled else "completed")
        yield (
            Call("end", epoch, (acknowledged, oldest, outcome)),
            producer._replace(outcome=outcome),
        )


def make_call(scenario: Scenario, world: World, call: Call) -> tuple[World, Told]:
    """Let a call of a producer arrive in the store."""
    before = world.store
    message: Message | None = None
    rules = scenario.rules
    if call.name == "create":
        store, told = calls.create(rules, before, call.epoch)
    elif call.name == "append":
        store, told, message = calls.append(rules, before, call.epoch, *call.arguments)  # type: ignore[arg-type]
    elif call.name == "renew":
        store, told = calls.renew(rules, before, call.epoch, *call.arguments)  # type: ignore[arg-type]
    else:
        store, told, message = calls.end(rules, before, call.epoch, *call.arguments)  # type: ignore[arg-type]
    if store == before and message is None:
        return world, told
    world = world._replace(store=store)
    run = before.run
    if call.name == "create" and world.asked == "unknown":
        # It is for the first run of this id.
        world = world._replace(asked=call.epoch)
    if call.name != "create" and run is not None and (run.epoch != call.epoch or run.outcome):
        world = world._replace(broken=WRITER)
    return publish(record_end(world), message), told


def give_up(scenario: Scenario, world: World, producer: Producer) -> World:
    """Let a producer try to create its run no more."""
    store, message = calls.undo(scenario.rules, world.store, producer.epoch)
    world = world._replace(store=store)
    if store.run is not None and store.run.epoch == producer.epoch:
        world = world._replace(broken=REFUSED)
    return publish(with_producer(world, Producer(producer.epoch, "refused")), message)


def hear(scenario: Scenario, world: World, producer: Producer, call: Call, told: Told) -> World:
    """Let a producer have the reply to its call."""
    refused = told.refused
    if not (refused or told.cancel or world.has_lost) and world.asked == producer.epoch:
        world = world._replace(broken=CANCELLED)
    if refused == "exists":
        if producer.phase == "unsure":
            producer = producer._replace(phase="refused")
            run = world.store.run
            if run is not None and run.epoch == producer.epoch and not run.outcome:
                world = world._replace(broken=REFUSED)
    elif refused == "fenced":
        producer = producer._replace(phase="fenced")
    elif refused == "behind":
        if not scenario.rules.ring:
            # What it makes next gets the positions that are free.
            skipped = producer.skipped + producer.made - told.last
            producer = producer._replace(acknowledged=told.last, made=told.last, skipped=skipped)
        else:
            producer = producer._replace(acknowledged=told.last)
    elif call.name == "create":
        producer = producer._replace(phase="runs")
    elif call.name == "end":
        producer = producer._replace(phase="done")
    elif call.name == "append":
        producer = producer._replace(acknowledged=producer.made)
    elif call.name == "renew" and told.last < producer.acknowledged:
        world = world._replace(broken=FOUND)
    if producer.phase in OVER:
        # Nobody asks any more.
        producer = Producer(producer.epoch, producer.phase, made=producer.made)
    else:
        producer = producer._replace(cancelled=producer.cancelled or told.cancel)
        if refused != "behind":
            producer = producer._replace(silent=0, was_frozen=False)
    return with_producer(world, producer)


# Readers


def _steps_of_reader(
    scenario: Scenario, world: World, number: int, reader: Reader
) -> Iterator[tuple[str, World]]:
    phase = reader.phase
    if phase in TOLD:
        return
    line = f"reader at {reader.epoch}{reader.position}"
    if phase == "out":
        if reader.epoch or world.store.run is not None:
            yield f"{line} looks for the run", look(scenario, world, number)
        return
    if reader.left < scenario.leaves:
        out = Reader(epoch=reader.epoch, position=reader.position, left=reader.left + 1)
        yield f"{line} leaves", with_reader(world, number, out)
    if phase == "knows":
        if scenario.rules.read_after_subscribe:
            yield f"{line} subscribes", subscribe(world, number, "subscribed")
        else:
            yield f"{line} reads", read(scenario, world, number, "read")
    elif phase == "read":
        yield f"{line} subscribes", subscribe(world, number, "waits")
    elif phase == "subscribed":
        yield f"{line} reads", read(scenario, world, number, "waits")
    else:
        if reader.mail:
            yield f"{line} takes {reader.mail[0]}", take(scenario, world, number)
            if scenario.allows(world, "message lost"):
                lost = reader._replace(mail=reader.mail[1:], must_look=True)
                lost_world = with_fault(with_reader(world, number, lost), "message lost")
                yield f"{line} loses {reader.mail[0]}", lost_world
        yield f"{line} looks again", read(scenario, world, number, "waits")


def look(scenario: Scenario, world: World, number: int) -> World:
    """Let a reader find out which incarnation there is."""
    reader, run = world.readers[number], world.store.run
    if run is None:
        return tell(world, number, "not found")
    if reader.epoch not in ("", run.epoch):
        return tell(world, number, "mismatch")
    return with_reader(world, number, reader._replace(phase="knows", epoch=run.epoch))


def subscribe(world: World, number: int, phase: str) -> World:
    return with_reader(world, number, world.readers[number]._replace(phase=phase, mail=()))


def read(scenario: Scenario, world: World, number: int, phase: str) -> World:
    """Let a reader read what there is after its cursor."""
    rules = scenario.rules
    reader = world.readers[number]
    page = calls.read(rules, world.store, reader.position)
    if page is None:
        return tell(world, number, "not found")
    if page.epoch != reader.epoch and rules.epoch:
        return tell(world, number, "mismatch")
    if page.last < reader.position:
        if page.outcome or not rules.beyond:
            return tell(world, number, "beyond")
        return with_reader(world, number, reader._replace(phase=phase, must_look=False))
    if page.first > reader.position + 1 and rules.gap:
        return tell(world, number, "gap")
    world, reader = deliver(world, reader, page.entries)
    if page.outcome:
        return tell_end(world, number, reader.position, page.outcome)
    return with_reader(world, number, reader._replace(phase=phase, must_look=False))


def take(scenario: Scenario, world: World, number: int) -> World:
    """Let a reader take a message: what it has of it, it drops; what it misses, it reads."""
    rules = scenario.rules
    reader = world.readers[number]
    assert reader.mail is not None
    message, mail = reader.mail[0], reader.mail[1:]
    reader = reader._replace(mail=mail)
    entries = message.entries
    if message.epoch != reader.epoch and rules.epoch_in_messages:
        entries = ()
    elif entries and rules.position_in_messages:
        if entries[-1][0] <= reader.position:
            return with_reader(world, number, reader)
        entries = tuple(entry for entry in entries if entry[0] > reader.position)
        if entries[0][0] > reader.position + 1:
            entries = ()
    if not entries:
        # It has to read: there is an end, or another run, or something that it has missed.
        return with_reader(world, number, reader._replace(phase="subscribed"))
    world, reader = deliver(world, reader, entries)
    return with_reader(world, number, reader)


def deliver(
    world: World, reader: Reader, entries: tuple[tuple[int, Item], ...]
) -> tuple[World, Reader]:
    """Hand entries to the consumer of a reader, who sees what is wrong with them."""
    position = reader.position
    for number, (epoch, item) in entries:
        if epoch != reader.epoch:
            world = world._replace(broken=MIXED)
        elif item <= position or number <= position:
            world = world._replace(broken=DOUBLE)
        elif item > position + 1 or number > position + 1:
            world = world._replace(broken=HOLE)
        position = number
    return world, reader._replace(position=position)


def tell(world: World, number: int, what: str) -> World:
    """Let the stream of a reader end, for it cannot go on."""
    _, epoch, position, *_ = world.readers[number]
    return with_reader(world, number, Reader(what, epoch, position))


def tell_end(world: World, number: int, position: int, outcome: str) -> World:
    """Let the stream of a reader end as the run did."""
    epoch = world.readers[number].epoch
    made = next(producer.made for producer in world.producers if producer.epoch == epoch)
    if outcome != "lost" and position < made:
        world = world._replace(broken=HOLE)
    return with_reader(world, number, Reader("end", epoch, position, outcome=outcome))


# The store, and time


def _steps_of_store(scenario: Scenario, world: World) -> Iterator[tuple[str, World]]:
    allows, store, run = scenario.allows, world.store, world.store.run
    if not scenario.meets and (_is_wronged(world, store) or _is_wronged(world, world.saved)):
        # One thing goes wrong at a time.
        return
    if allows(world, "rollback"):
        if world.saved is None:
            yield "the store saves", world._replace(saved=store)
        elif world.saved != store:
            yield "the store is rolled back", lose(world, world.saved, "rollback")
    if run is None:
        return
    if allows(world, "flush"):
        yield "the store is restarted empty", lose(world, EMPTY, "flush")
    if allows(world, "evict"):
        yield "the meta is evicted", lose(world, store._replace(run=None), "evict")
        if store.entries:
            yield "the entries are evicted", lose(world, store._replace(entries=()), "evict")
    if not run.outcome and allows(world, "clock"):
        for where, is_forward in (("forward", True), ("back", False)):
            changed = world._replace(store=calls.put_clock(store, is_forward))
            yield f"the clock is put {where}", with_fault(changed, "clock")


def _is_wronged(world: World, store: Store | None) -> bool:
    """Tell whether a store has a doubt about somebody who lives."""
    run = None if store is None else store.run
    return (
        run is not None
        and run.doubt != NO_DOUBT
        and calls.has_lapsed(Rules(), run)
        and any(
            producer.epoch == run.epoch and producer.phase == "runs" and not producer.was_frozen
            for producer in world.producers
        )
    )


def lose(world: World, store: Store, fault: str) -> World:
    """Let the store have something else than it had. Subscriptions end, where it was restarted."""
    readers = world.readers
    if fault == "evict":
        readers = tuple(
            reader if reader.mail is None else reader._replace(must_look=True) for reader in readers
        )
    else:
        readers = tuple(
            reader if reader.mail is None else reader._replace(phase="knows", mail=None)
            for reader in readers
        )
    run = store.run
    ended = ((run.epoch, run.outcome),) if run is not None and run.outcome else ()
    world = world._replace(
        store=store, readers=tuple(sorted(readers, key=_order)), ended=ended, has_lost=True
    )
    return with_fault(world, fault)._replace(saved=None)


def can_pass(scenario: Scenario, world: World) -> bool:
    """Tell whether time may pass: who lives has given a sign of life, as often as it must."""
    most = 1 if scenario.rules.often else DOUBT
    return all(
        producer.phase != "runs" or producer.is_frozen or producer.silent < most
        for producer in world.producers
    )


def tick(world: World) -> World:
    producers = tuple(
        producer._replace(silent=producer.silent + 1)
        if producer.phase == "runs" and not producer.is_frozen
        else producer
        for producer in world.producers
    )
    saved = world.saved
    return world._replace(
        store=calls.pass_time(world.store),
        saved=None if saved is None else calls.pass_time(saved),
        producers=producers,
    )


def bury(scenario: Scenario, world: World, producer: Producer) -> World:
    store, answer, message = calls.bury(scenario.rules, world.store, producer.epoch, "lost")
    world = record_end(world._replace(store=store))
    if answer == "buried" and producer.phase == "runs" and not producer.was_frozen:
        world = world._replace(broken=ALIVE)
    return publish(world, message)


def publish(world: World, message: Message | None) -> World:
    if message is None:
        return world
    readers = [
        reader if reader.mail is None else reader._replace(mail=(*reader.mail, message))
        for reader in world.readers
    ]
    return world._replace(readers=tuple(sorted(readers, key=_order)))


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
    readers.sort(key=_order)
    return world._replace(readers=tuple(readers))


def with_fault(world: World, fault: str) -> World:
    return world._replace(faults=tuple(sorted((*world.faults, fault))))


def _order(reader: Reader) -> tuple[object, ...]:
    mail = reader.mail
    return reader[:3], mail is not None, mail or (), reader[4:]
