"""
How much of a run is kept. The producer knows the sizes, so it decides what to drop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Literal

# Items that a source may still yield once it was told that the log is full.
_LAST_WORDS = 100


class Budget(ABC):
    """
    The limits of one run.

    :param max_items: entries that are kept
    :param max_bytes: bytes of all kept entries

    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        #: The first position to keep.
        self.first: int = 1
        #: Whether to tell the source that there is no more room.
        self.is_full: bool = False
        #: Whether an entry was dropped, so that none may follow.
        self.has_dropped: bool = False

    @abstractmethod
    def admit(self, entries: list[bytes]) -> list[bytes]:
        """Note further entries, and return those to write."""


def budget(when_full: Literal["trim", "end"], max_items: int, max_bytes: int) -> Budget:
    """Return the limits of one run, as given."""
    return (_Trim if when_full == "trim" else _End)(max_items, max_bytes)


class _Trim(Budget):
    """The oldest entries are dropped."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        super().__init__(max_items, max_bytes)
        self._sizes: deque[int] = deque()

    def admit(self, entries: list[bytes]) -> list[bytes]:
        sizes = self._sizes
        for entry in entries:
            size = len(entry)
            sizes.append(size)
            self._bytes += size
        while len(sizes) > self._max_items or self._bytes > self._max_bytes:
            self._bytes -= sizes.popleft()
            self.first += 1
        return entries


class _End(Budget):
    """The run ends: what the source yields on its way out is kept, up to a limit."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        super().__init__(max_items, max_bytes)
        self._items = 0

    def admit(self, entries: list[bytes]) -> list[bytes]:
        admitted: list[bytes] = []
        for entry in entries:
            items, size = self._items + 1, self._bytes + len(entry)
            self.is_full = self.is_full or items > self._max_items or size > self._max_bytes
            if items > self._max_items + _LAST_WORDS or size > 2 * self._max_bytes:
                self.has_dropped = True
            if self.has_dropped:
                break
            self._items, self._bytes = items, size
            admitted.append(entry)
        return admitted
