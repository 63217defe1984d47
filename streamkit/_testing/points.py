"""
The points of a run: each line at which a source waits, with the count of its waits there.

A count over the whole run would differ after each change, on each backend and in each order of
tasks. A reader can find a line, and count the waits there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from .places import Place, Spot, name_of, text_of


class Point(NamedTuple):
    """
    A line of the user's code, and which of the waits there.

    :ivar at_yield: whether it is a ``yield``

    """

    spot: Spot
    number: int
    at_yield: bool = False

    def __str__(self) -> str:
        return f"{name_of(self.spot)}#{self.number}"

    @property
    def text(self) -> str:
        """The source text of the line."""
        return text_of(self.spot)

    def is_meant_by(self, name: str) -> bool:
        """Tell whether it has this name, which may have any part of the path before it."""
        full = f"{self.spot[0]}:{self.spot[1]}#{self.number}".replace(os.sep, "/")
        name = name.replace(os.sep, "/")
        return full == name or full.endswith(f"/{name}")


class Points:
    """Numbers the waits of one run."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Spot, bool], int] = {}

    def next(self, place: Place) -> Point:
        """Return the point of a wait."""
        key = place.spot, place.at_yield
        number = self._counts[key] = self._counts.get(key, 0) + 1
        return Point(place.spot, number, place.at_yield)


def merged(traces: Iterable[Iterable[Point]]) -> list[Point]:
    """Return the points of several runs, each once, in the order in which they come."""
    return list(dict.fromkeys(point for trace in traces for point in trace))
