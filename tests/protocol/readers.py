"""What the readers of the model do, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import store as calls
from .state import DOUBLE, HOLE, MIXED, TOLD, Reader, Scenario, World, with_fault, with_reader
from .store import Item

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps_of_reader(
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
