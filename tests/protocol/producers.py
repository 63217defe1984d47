"""What the producers of the model do: their calls, and what may become of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import store as calls
from .state import (
    CANCELLED,
    FOUND,
    OVER,
    REFUSED,
    WRITER,
    Call,
    Producer,
    Scenario,
    World,
    publish,
    record_end,
    with_fault,
    with_producer,
)
from .store import Message, Told

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps_of_producer(
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
