"""``Shutdown``: the reason that sources are told when the program ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The reason that a source is told when the program ends."""
