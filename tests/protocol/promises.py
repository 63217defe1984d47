"""What is promised of runs, as what must hold in every world of the model."""

from __future__ import annotations

from .mishaps import bury, tick
from .producers import calls_of, hear, make_call
from .readers import look, read, subscribe
from .state import DOUBLE, MIXED, OVER, SAME_END, TOLD, Scenario, World
from .store import has_lapsed

POSITION = "a position never gets another item"
AGAIN = "a run that has ended does not go on"
WAKE_UP = "who waits has read all there is, unless a message was lost"
BEYOND = "a cursor beyond the tail of a run that goes on waits"
END = "every reader gets an end, or is told"


def broken(scenario: Scenario, world: World) -> str:
    """Return which promise does not hold in a world, or an empty text."""
    return world.broken or _broken_in_store(world) or _broken_at_reader(world)


def _broken_in_store(world: World) -> str:
    run = world.store.run
    if run is None:
        return ""
    for position, (epoch, item) in world.store.entries:
        if epoch != run.epoch:
            return MIXED
        if item > position:
            return POSITION
        if item < position:
            return DOUBLE
    if not run.outcome and any(epoch == run.epoch for epoch, _ in world.ended):
        return AGAIN
    return ""


def _broken_at_reader(world: World) -> str:
    run = world.store.run
    for reader in world.readers:
        if reader.phase != "waits" or reader.mail or reader.must_look:
            continue
        if run is None or run.epoch != reader.epoch or run.outcome or run.last > reader.position:
            return WAKE_UP
    return ""


def go_on(scenario: Scenario, world: World) -> tuple[str, World] | None:
    """
    Return the next world on the way to the end, if nothing more goes wrong; ``None`` at the end.

    What is late arrives. Who is frozen stays so. The others write what they have, and end. Then
    time passes, whoever lies dead is buried, and the readers look.
    """
    if world.late:
        call = world.late[0]
        after = make_call(scenario, world._replace(late=world.late[1:]), call)[0]
        return f"late: {call.epoch}.{call.name}{call.arguments} arrives", after
    for producer in world.producers:
        if not (producer.phase in OVER or producer.phase == "new" or producer.is_frozen):
            # The last is the end, or what must be done before.
            *_, (call, then) = calls_of(scenario, producer)
            after, told = make_call(scenario, world, call)
            line = f"{call.epoch}.{call.name}{call.arguments} -> {told}"
            return line, hear(scenario, after, then, call, told)
    run = world.store.run
    if run is not None and not run.outcome:
        if has_lapsed(scenario.rules, run) and (run.looked or run.doubt < 0):
            dead = next(producer for producer in world.producers if producer.epoch == run.epoch)
            return f"somebody buries {run.epoch}", bury(scenario, world, dead)
        return "a tick passes", tick(world)
    for number, reader in enumerate(world.readers):
        line = f"reader at {reader.epoch}{reader.position}"
        if reader.phase == "out" and (reader.epoch or run is not None):
            return f"{line} looks for the run", look(scenario, world, number)
        if reader.phase == "knows":
            return f"{line} subscribes", subscribe(world, number, "subscribed")
        if reader.phase not in TOLD and reader.phase != "out":
            return f"{line} reads", read(scenario, world, number, "waits")
    return None


def broken_at_end(scenario: Scenario, world: World) -> str:
    """Return which promise does not hold in a world in which nothing more happens."""
    outcomes: dict[str, str] = {}
    run = world.store.run
    for reader in world.readers:
        if reader.phase == "out" and not reader.epoch:
            continue
        if reader.phase not in TOLD:
            return END
        is_there = run is not None and run.epoch == reader.epoch and run.last >= reader.position
        if reader.phase == "beyond" and is_there:
            return BEYOND
        if world.has_lost:
            continue
        if reader.phase == "end":
            if outcomes.setdefault(reader.epoch, reader.outcome) != reader.outcome:
                return SAME_END
        elif not (world.store.gone or (reader.phase == "gap" and scenario.keep < scenario.items)):
            # Without a reason.
            return END
    return ""
