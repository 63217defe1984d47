"""Which runs there are. The id of a case says all of it, and runs it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

# They put their sources on the list.
from . import sources_holding, sources_merged, sources_nested  # noqa: F401
from .consumers import CONSUMERS, NEEDS_BEATS, NEEDS_HEAD
from .faults import FAULTS
from .sources import SOURCES
from .streams import STREAMS, WITH_BEATS

if TYPE_CHECKING:
    from random import Random

#: How far the second of two faults may be from the first, and how far behind the end it may come:
#: the first one makes a run longer.
NEAR, BEHIND = 12, 25


@dataclass(frozen=True)
class Case:
    """
    One run.

    :ivar faults: which are injected, and before which step
    :ivar seed: of the order of tasks

    """

    backend: str
    source: str
    chain: str
    consumer: str
    faults: tuple[tuple[str, int], ...] = ()
    seed: int = 0

    def __str__(self) -> str:
        faults = "+".join(f"{name}@{step}" for name, step in self.faults) or "none"
        parts = (self.backend, self.source, self.chain, self.consumer, faults, str(self.seed))
        return "/".join(parts)

    @classmethod
    def parse(cls, text: str) -> Case:
        """Return the case with an id."""
        backend, source, chain, consumer, faults, seed = text.strip().split("/")
        pairs = [fault.split("@") for fault in faults.split("+") if fault != "none"]
        planned = tuple((name, int(step)) for name, step in pairs)
        return cls(backend, source, chain, consumer, planned, int(seed))

    @property
    def causes(self) -> tuple[str, ...]:
        """What ends the stream early: the faults, whatever their steps, or the consumer itself."""
        names = [name for name, _ in self.faults]
        if self.consumer.startswith("leaving"):
            names.append(self.consumer)
        return tuple(sorted(names))


def fits(chain: str, consumer: str) -> bool:
    """Tell whether a consumer can do in a chain what it is for."""
    if consumer in NEEDS_HEAD:
        return chain == "full"
    return consumer not in NEEDS_BEATS or chain in WITH_BEATS


def without_faults(backend: str) -> list[Case]:
    """Return all combinations of a source, a chain and a consumer."""
    return [
        Case(backend, source, chain, consumer)
        for source, chain, consumer in product(SOURCES, STREAMS, CONSUMERS)
        if fits(chain, consumer)
    ]


def faults_for(case: Case) -> list[str]:
    """Return the names of the faults that mean something in a case."""
    return [
        name
        for name, fault in FAULTS.items()
        if not (fault.asyncio_only and case.backend == "trio")
        and (not fault.sources or case.source in fault.sources)
        and (not fault.consumers or case.consumer in fault.consumers)
    ]


def draw(case: Case, steps: int, random: Random) -> Case:
    """Return a case with one or two faults, somewhere in the steps that it has without them."""
    names = faults_for(case)
    first = random.choice(names), random.randint(1, steps)
    faults: tuple[tuple[str, int], ...] = (first,)
    if random.random() < 0.6:
        if random.random() < 0.5:
            # In the same step, or soon after: this is where things meet.
            step = first[1] + random.randint(0, NEAR)
        else:
            step = random.randint(1, steps + BEHIND)
        faults = (first, (random.choice(names), step))
    return replace(case, faults=faults, seed=random.randrange(1000))


def singles(case: Case, steps: int) -> Iterator[Case]:
    """Return the cases with one fault, at each of the steps."""
    for name, step in product(faults_for(case), range(1, steps + 1)):
        yield replace(case, faults=((name, step),))
