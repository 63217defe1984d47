"""Visits all worlds that can be reached, those with the fewest steps first."""

from __future__ import annotations

import gc
from dataclasses import dataclass

from . import promises
from .state import Scenario, World
from .world import begin, steps

# More steps than any way to the end has.
_FAR = 100


@dataclass(frozen=True)
class Found:
    """What was found."""

    #: The worlds that were visited.
    worlds: int
    #: The steps between them.
    steps: int
    #: The steps from the first world to the farthest that was visited.
    depth: int
    #: Whether these are all that there are.
    is_all: bool
    #: The promise that is broken, and the fewest steps that lead there.
    broken: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = f"{self.worlds:,} worlds, {self.steps:,} steps, depth {self.depth}"
        size += ", all" if self.is_all else ""
        if not self.broken:
            return size
        lines = (f"{number:3} {line}" for number, line in enumerate(self.trace, start=1))
        return "\n".join((f"broken: {self.broken} ({size})", *lines))


def explore(scenario: Scenario, most: int = 10**9, *, only: str = "") -> Found:
    """
    Visit all worlds that are at most so many steps away, until a promise is broken.

    :param most: steps
    :param only: the one promise that matters

    """
    # Worlds have no cycles, and there are many.
    gc.disable()
    try:
        return _explore(scenario, most, only)
    finally:
        gc.enable()


def _explore(scenario: Scenario, most: int, only: str) -> Found:
    first = begin(scenario)
    came: dict[World, tuple[World, str] | None] = {first: None}
    frontier = [first]
    depth = count = 0
    #: Worlds that come to a good end, and from where that was seen.
    ending: dict[World, list[str]] = {}

    while frontier and depth < most:
        depth += 1
        reached: list[World] = []
        for world in frontier:
            for line, after in steps(scenario, world):
                count += 1
                step = world, line
                if came.setdefault(after, step) is not step:
                    continue
                way: list[str] = []
                broken = promises.broken(scenario, after) or _later(scenario, after, ending, way)
                if broken and only in ("", broken):
                    trace = (*_trace(came, after), *(f"then {line}" for line in way))
                    return Found(len(came), count, depth, False, broken, trace)
                reached.append(after)
        frontier = reached
    return Found(len(came), count, depth if frontier else depth - 1, not frontier)


def _later(scenario: Scenario, world: World, ending: dict[World, list[str]], way: list[str]) -> str:
    """Let a world go on to its end, and return which promise was broken on the way."""
    while ending.setdefault(world, way) is way:
        if len(way) > _FAR:
            # It goes round.
            return promises.END
        step = promises.go_on(scenario, world)
        if step is None:
            return promises.broken_at_end(scenario, world)
        line, world = step
        way.append(line)
        if found := promises.broken(scenario, world):
            return found
    return ""


def _trace(came: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    lines = []
    while (step := came[world]) is not None:
        world, line = step
        lines.append(line)
    return tuple(reversed(lines))
