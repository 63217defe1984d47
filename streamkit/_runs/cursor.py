"""A cursor: what a reader has seen of which run, as text that it can give back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_CURSOR = re.compile(r"(?:([0-9a-f]{1,64}):)?([0-9]{1,15})(\.end)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    A position in one incarnation of a run.

    :param epoch: the name of the incarnation, or ``None`` if any will do
    :param position: of the last entry that was seen
    :param is_end: whether the end was seen, too

    """

    epoch: str | None
    position: int
    is_end: bool = False

    def __str__(self) -> str:
        end = ".end" if self.is_end else ""
        return (
            f"{self.position}{end}" if self.epoch is None else f"{self.epoch}:{self.position}{end}"
        )


def parse(after: object) -> Cursor | Literal["now"] | None:
    """
    Return what a reader has seen.

    :raises TypeError: if it is neither text, nor a number, nor ``None``
    :raises ValueError: if it is not a cursor

    """
    if after is None:
        return None
    if after == "now":
        return "now"
    advice = f"after is a cursor, a position or 'now', got {after!r}: write after=entry.cursor"
    if isinstance(after, bool) or not isinstance(after, int | str):
        raise TypeError(advice)
    found = _CURSOR.fullmatch(str(after))
    if found is None or (found[3] and not found[1]):
        raise ValueError(advice)
    return Cursor(found[1], int(found[2]), bool(found[3]))
