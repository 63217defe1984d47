"""Lines of JSON as events: one record each, without a place to go on from."""

from __future__ import annotations

from collections.abc import Iterator

from .event import Event
from .lines import Lines


class RecordParser:
    """
    Takes the bytes of JSON lines and gives their records.

    :param max_size: the most bytes in a line

    """

    __slots__ = ("_lines", "is_cut")

    def __init__(self, max_size: int) -> None:
        #: Whether the end of the body cannot be here: it is within a record.
        self.is_cut: bool = False
        self._lines = Lines(max_size, cr=False)

    def feed(self, piece: bytes) -> Iterator[Event]:
        """
        Take a piece, and yield the records that end in it.

        :raises TooLong: if a line is too long

        """
        for line in self._lines.feed(piece):
            yield from _record(line)

    def close(self) -> Iterator[Event]:
        """Yield the record that the end of the body completes, unless it was cut there."""
        for event in _record(self._lines.rest()):
            try:
                event.json()
            except (ValueError, RecursionError):
                self.is_cut = True
                return
            yield event


def _record(line: bytes) -> Iterator[Event]:
    text = line.strip()
    if text:
        yield Event(text.decode(errors="replace"), event=None)
