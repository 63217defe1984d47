"""Every way to leave a stream, from every place, at every depth: the matrix of these tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import pytest

from . import endings
from .visit import DEPTHS, Library, Place, Visit

if TYPE_CHECKING:
    from streamkit import OutcomeKind

# What ends it, and how the outcome calls that.
ENDINGS: dict[str, tuple[Callable[[Visit], Awaitable[None]], OutcomeKind | None]] = {
    "token": (endings.by_token, "cancelled"),
    "limit": (endings.by_limit, "timed_out"),
    "break": (endings.by_break, "closed"),
    "beat": (endings.on_a_beat, "closed"),
    "error": (endings.by_error, "closed"),
    "aclose": (endings.by_aclose, "closed"),
    "aclose elsewhere": (endings.by_aclose_elsewhere, "closed"),
    "scope": (endings.by_scope, "closed"),
    "task cancel": (endings.by_task_cancel, "closed"),
    # No stream at all: what the library can do when it is told once.
    "plain": (endings.of_a_plain_generator, None),
}
ASYNCIO_ONLY = {"task cancel", "plain"}


@dataclass(frozen=True)
class Way:
    """One way to leave a stream."""

    place: Place
    depth: str
    ending: str

    def __str__(self) -> str:
        return f"{self.place}, {self.depth}, {self.ending}"

    @property
    def asyncio_only(self) -> bool:
        return self.ending in ASYNCIO_ONLY

    @property
    def is_plain(self) -> bool:
        return self.ending == "plain"

    async def leave(self, library: Library, caplog: pytest.LogCaptureFixture) -> None:
        """Open a stream, leave it in this way, and check that nothing is left."""
        visit = Visit(library, self.place, self.depth)
        end, kind = ENDINGS[self.ending]
        await end(visit)
        found = await visit.leftovers()
        if visit.outcome is not None and visit.outcome.kind != kind:
            found["kind of the outcome"] = visit.outcome.kind
        # The event loop may call it slow, which says nothing of what is left.
        said = [r.getMessage() for r in caplog.records if r.name != "asyncio"]
        if said:
            found["said"] = said
        if found:
            pytest.fail(f"left behind: {found}")


def ways() -> Iterator[Way]:
    for place in get_args(Place):
        for depth in DEPTHS:
            for ending in ENDINGS:
                # There is no beat while the consumer has an item.
                if ending == "beat" and place == "at a yield":
                    continue
                # Once is enough: it shows what the library is able to do.
                if ending == "plain" and (place, depth) != ("blocked", "direct"):
                    continue
                yield Way(place, depth, ending)
