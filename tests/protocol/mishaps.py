"""What happens to the store of the model: what it loses, who is buried, and that time passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import store as calls
from .state import ALIVE, Producer, Scenario, World, order_of, publish, record_end, with_fault
from .store import DOUBT, EMPTY, NO_DOUBT, Rules, Store

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps_of_store(scenario: Scenario, world: World) -> Iterator[tuple[str, World]]:
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
        store=store, readers=tuple(sorted(readers, key=order_of)), ended=ended, has_lost=True
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
