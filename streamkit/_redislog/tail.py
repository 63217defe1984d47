"""
What was heard lately of a run: its last entries, as they were published.

An entry is heard once for all readers of a process, however many, and none of them has to read it
from the server. This is only for speed: what does not fit is forgotten, and readers ask the server.
What is kept is a piece of the log without a hole, of the epoch that the server named last. So a
message is believed only if it goes on exactly where the piece ends.

What is heard while the server is being asked is kept, and added to its answer. An answer that there
is nothing new is never given from here.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._runs.log import Page
from .messages import Appended, Ended

# The most that is kept of each run, and of messages until the server has answered.
_MOST_ENTRIES, _MOST_BYTES, _MOST_MESSAGES = 512, 64 * 1024, 64


class Tail:
    """The last entries of a run that is followed over one connection."""

    def __init__(self) -> None:
        #: Counts how often it was forgotten or doubted.
        self.version: int = 0
        self._know_nothing()

    def _know_nothing(self) -> None:
        #: The run's epoch, once the server was asked.
        self.epoch: str | None = None
        self._is_confirmed = False
        #: The position after which the entries begin, and that of the last one.
        self._start = 0
        self.last: int = 0
        self.outcome: bytes | None = None
        self._first = 1
        self._head: int | None = None
        self._entries: list[bytes] = []
        self._size = 0
        #: The page that was read last, and its place: many readers are at the same place.
        self._page: Page | None = None
        self._place = (-1, 0)
        #: What has been heard since the last time that everything was forgotten.
        self._heard: list[Appended | Ended] = []

    def forget(self) -> None:
        """Forget everything."""
        self.version += 1
        self._know_nothing()

    def doubt(self) -> None:
        """
        Answer nothing until the server was asked again: a new reader may have seen that the id
        belongs to another run by now.
        """
        self.version += 1
        self._is_confirmed = False

    def learn(self, page: Page, after: int, version: int) -> None:
        """
        Take an answer of the server, if it reaches the end of the log.

        :param version: the version when the server was asked

        """
        if version != self.version:
            return
        if page.epoch == self.epoch:
            self._is_confirmed = True
        if after + len(page.entries) != page.last:
            return
        new = page.entries
        if page.epoch == self.epoch and self._start <= after <= self.last:
            if page.last < self.last:
                # News came while the answer was on its way.
                return
            new = page.entries[self.last - after :]
        else:
            self._entries, self._size, self._start = [], 0, after
        self.epoch, self.outcome, self._is_confirmed = page.epoch, page.outcome, True
        self._first, self._head = page.first, page.head
        self._add(new, page.last)
        heard, self._heard = self._heard, []
        for message in heard:
            self._follow(message)

    def hear(self, message: Appended | Ended) -> None:
        """Take a message. If it does not fit, everything else is forgotten."""
        if self.epoch is not None:
            if self._follow(message):
                return
            self.forget()
        self._heard.append(message)
        del self._heard[:-_MOST_MESSAGES]

    def _follow(self, message: Appended | Ended) -> bool:
        """Take a message, and return whether it fits."""
        if message.epoch != self.epoch:
            return False
        if isinstance(message, Ended):
            if message.last != self.last:
                return False
            self.outcome, self._page = message.outcome, None
            return True
        if message.position > self.last + 1:
            return False
        new = message.entries[self.last + 1 - message.position :]
        if new:
            # A message without new entries may be older than what is known.
            self._first, self._head = message.first, message.head
            self._add(new, self.last + len(new))
        return True

    def page(self, after: int, limit: int) -> Page | None:
        """Return what there is after a position, or ``None`` if that is not known here."""
        if not self._is_confirmed or self.epoch is None or after + 1 < self._first:
            return None
        if not self._start <= after <= self.last or (after == self.last and self.outcome is None):
            return None
        if self._page is None or self._place != (after, limit):
            start = after - self._start
            self._page = Page(
                self._entries[start : start + limit],
                self._first,
                self.last,
                self.epoch,
                self._head,
                self.outcome,
            )
            self._place = after, limit
        return self._page

    def _add(self, new: Sequence[bytes], last: int) -> None:
        self._entries += new
        self._size += sum(map(len, new))
        self.last = last
        self._page = None
        if len(self._entries) > _MOST_ENTRIES or self._size > _MOST_BYTES:
            self._drop()

    def _drop(self) -> None:
        """Drop the oldest entries until half of the limits is left."""
        number = 0
        while number < len(self._entries) and (
            len(self._entries) - number > _MOST_ENTRIES // 2 or self._size > _MOST_BYTES // 2
        ):
            self._size -= len(self._entries[number])
            number += 1
        del self._entries[:number]
        self._start += number
