"""The protocol of logs, checked exhaustively in the small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from . import __doc__ as protocol_doc, promises, state
from .explorer import Found, explore
from .state import Scenario
from .store import NAMES, Rules

#: All that may go wrong, and how often.
FAULTS = (
    ("reply lost", 2),
    ("late", 1),
    ("message lost", 1),
    ("freeze", 1),
    ("rollback", 1),
    ("flush", 1),
    ("evict", 1),
    ("clock", 1),
)

#: Small worlds, each visited to its last state.
WHOLE = {
    "one fault of any kind": Scenario(epochs="a", readers=1, faults=FAULTS, most_faults=1),
    "one fault, two readers": Scenario(
        epochs="a", items=1, readers=2, faults=FAULTS, most_faults=1, time=False
    ),
    "one fault, and the id is used again": Scenario(
        epochs="ab", items=1, readers=1, faults=FAULTS, most_faults=1, time=False
    ),
    "one fault, and only the last items are there": Scenario(
        epochs="a", items=3, keep=2, ring=1, readers=1, faults=FAULTS, most_faults=1, time=False
    ),
    "one fault, and a cancellation": Scenario(
        epochs="a", items=1, readers=0, faults=FAULTS, most_faults=1, cancel=True
    ),
    "one fault, and readers that come back": Scenario(
        epochs="a", readers=1, leaves=1, faults=FAULTS, most_faults=1, time=False
    ),
    "two faults of time": Scenario(
        epochs="a",
        items=1,
        readers=0,
        faults=(("freeze", 1), ("clock", 2), ("reply lost", 1), ("late", 1), ("rollback", 1)),
    ),
}

#: All at once: two incarnations, two readers, and any two faults, so many steps deep.
LARGE = Scenario(readers=2, faults=FAULTS, cancel=True)
DEPTH = 6


@pytest.mark.parametrize("name", WHOLE)
def test_holds(name: str) -> None:
    """Whatever goes wrong, what is promised holds in every world that can be reached."""
    found = explore(WHOLE[name])
    assert not found.broken, str(found)
    assert found.is_all
    check_documented(name, found)


def test_holds_for_all_at_once() -> None:
    """Two incarnations, two readers, a burial, a cancellation and two faults, up to a depth."""
    found = explore(LARGE, DEPTH)
    assert not found.broken, str(found)
    assert found.depth == DEPTH
    check_documented("two faults, all at once", found)


def check_documented(name: str, found: Found) -> None:
    """See that what is said of how much was visited is true."""
    row = f"{name:<47} {found.worlds:>7,} {found.steps:>7,} {found.depth:>5}"
    assert row in str(protocol_doc), f"write in __init__.py:\n{row}"


ONE, AGAIN, TIME = (
    WHOLE["one fault of any kind"],
    WHOLE["one fault, and the id is used again"],
    WHOLE["two faults of time"],
)
THREE = Scenario(epochs="a", items=3, readers=1, faults=FAULTS, most_faults=1)

#: Which promise is broken without a rule, and where that is seen.
PLANTED = {
    "epoch": (state.MIXED, AGAIN),
    "fence": (state.WRITER, ONE),
    "idempotent_create": (state.REFUSED, ONE),
    "alive_again": (state.ALIVE, ONE),
    "undo": (state.REFUSED, ONE),
    "idempotent_append": (state.DOUBLE, ONE),
    "acknowledged": (state.HOLE, THREE),
    "acknowledged_end": (state.HOLE, ONE),
    "acknowledged_renewal": (state.FOUND, ONE),
    "ring": (promises.POSITION, ONE),
    "doubt": (state.ALIVE, TIME),
    "sign_of_life": (state.ALIVE, TIME),
    "sane_clock": (promises.END, TIME),
    "often": (state.ALIVE, ONE),
    "last": (state.HOLE, ONE),
    "clean_create": (state.MIXED, AGAIN),
    "buried_epochs": (state.SAME_END, ONE),
    "read_after_subscribe": (promises.WAKE_UP, ONE),
    "epoch_in_messages": (state.MIXED, AGAIN),
    "position_in_messages": (state.DOUBLE, ONE),
    "remembered": (state.CANCELLED, WHOLE["one fault, and a cancellation"]),
    "beyond": (promises.BEYOND, ONE),
    "gap": (state.HOLE, ONE),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_is_needed(name: str) -> None:
    """Without a rule, what it is there for is broken, and that is found."""
    breaks, scenario = PLANTED[name]
    found = explore(replace(scenario, rules=Rules.without(name)), only=breaks)
    print(found)
    assert found.broken == breaks


def test_two_looks_that_are_not_enough() -> None:
    """
    Where the store is away, or its clock put, twice within one doubt, one is buried that lives. It
    takes a doubt that begins anew where nobody has looked for a while.
    """
    scenario = replace(TIME, faults=(("clock", 2),), meets=True)
    found = explore(scenario)
    print(found)
    assert found.broken == state.ALIVE
    found = explore(replace(scenario, rules=Rules(patience=True)))
    assert not found.broken
    assert found.is_all
