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

from typing import TYPE_CHECKING

from . import store as calls
from .mishaps import bury, can_pass, steps_of_store, tick
from .producers import make_call, steps_of_producer
from .readers import steps_of_reader
from .state import Producer, Reader, Scenario, World, publish
from .store import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator


def begin(scenario: Scenario) -> World:
    producers = tuple(map(Producer, scenario.epochs))
    return World(EMPTY, producers, (Reader(),) * scenario.readers)


def steps(scenario: Scenario, world: World) -> Iterator[tuple[str, World]]:
    """Yield all that may happen next."""
    for number, producer in enumerate(world.producers):
        yield from steps_of_producer(scenario, world, number, producer)
    seen: set[Reader] = set()
    for number, reader in enumerate(world.readers):
        if reader not in seen:
            seen.add(reader)
            yield from steps_of_reader(scenario, world, number, reader)
    for number, call in enumerate(world.late):
        late = world.late[:number] + world.late[number + 1 :]
        line = f"late: {call.epoch}.{call.name}{call.arguments} arrives"
        yield line, make_call(scenario, world._replace(late=late), call)[0]
    yield from steps_of_store(scenario, world)
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
