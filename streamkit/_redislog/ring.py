"""
What a producer has written lately, kept to be written again if the server loses it.

A server that is killed loses what it had not yet written to disk. A replica that takes over lacks
what the primary had not yet sent to it. Either is a second or two. More than that is kept here,
within bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

# The most that is kept of each run, and for how many seconds.
_MOST_ENTRIES, _MOST_BYTES, _SECONDS = 2_000, 512 * 1024, 10.0


class Ring:
    """The last entries of one run that the server has acknowledged."""

    def __init__(self) -> None:
        #: The position of the last entry.
        self.last: int = 0
        self._entries: deque[tuple[float, bytes]] = deque()
        self._size = 0

    @property
    def oldest(self) -> int:
        """The position of the first entry, or ``last + 1`` if there is none."""
        return self.last + 1 - len(self._entries)

    def has(self, acknowledged: int) -> tuple[int, int]:
        """
        Return the position up to which the server should have all entries, and that of the first
        entry that is kept here.

        :param acknowledged: the last position that the producer knows to be written

        """
        if acknowledged > self.last:
            # Written by another process, or earlier: none of that is kept here.
            return acknowledged, acknowledged + 1
        return self.last, self.oldest

    def add(self, position: int, entries: Sequence[bytes], now: float) -> None:
        """Keep entries that were written. No entry is kept twice."""
        if position > self.last + 1:
            self._entries.clear()
            self._size = 0
        elif position + len(entries) <= self.last + 1:
            return
        else:
            entries = entries[self.last + 1 - position :]
            position = self.last + 1
        self.last = position + len(entries) - 1
        self._entries.extend((now, entry) for entry in entries)
        self._size += sum(map(len, entries))
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop what is too old, and what is beyond the limits."""
        entries = self._entries
        while entries and (
            len(entries) > _MOST_ENTRIES
            or self._size > _MOST_BYTES
            or entries[0][0] < now - _SECONDS
        ):
            self._size -= len(entries.popleft()[1])

    def between(self, first: int, last: int) -> list[bytes]:
        """Return the entries at some positions, all of which must be kept."""
        start = first - self.oldest
        return [entry for _, entry in islice(self._entries, start, last + 1 - self.oldest)]
