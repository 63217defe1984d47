"""``Shutdown``: the reason that is told when the program ends, whoever tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The reason that a source is told when the program ends."""
