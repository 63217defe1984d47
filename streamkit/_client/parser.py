"""
Lines as events, by the rules of the standard.

https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 (parsing) and 9.2.6
(interpretation). One thing follows the browsers: the id is kept over connections, so that an event
without one, after a reconnect, does not make a reader forget where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import TooLong
from .event import Event
from .lines import Lines

# Digits of a time that is of use; any longer time is as good as for ever.
_DIGITS = 15


@dataclass(slots=True)
class Position:
    """Where a reader is, across all of its connections."""

    #: The last id that the server has sent.
    last_event_id: str = ""
    #: Milliseconds that the server wants its clients to wait before they reconnect, if it said so.
    retry: int | None = None


class EventParser:
    """
    Takes the bytes of an event stream and gives its events.

    :param position: is kept up to date
    :param max_size: the most bytes in a line, and in the data of an event

    """

    __slots__ = ("_data", "_id", "_lines", "_max_size", "_position", "_size", "_type")

    def __init__(self, position: Position, max_size: int) -> None:
        self._position = position
        self._max_size = max_size
        self._lines = Lines(max_size, cr=True)
        self._data: list[str] = []
        self._size = 0
        self._type = ""
        self._id = position.last_event_id

    def feed(self, piece: bytes) -> Iterator[Event]:
        """
        Take a piece, and yield the events that end in it.

        :raises TooLong: if a line or an event is too long

        """
        for line in self._lines.feed(piece):
            if line:
                self._read(line)
            elif (event := self._dispatch()) is not None:
                yield event

    @property
    def is_cut(self) -> bool:
        """Whether the end of the stream cannot be here: events do not tell that."""
        return False

    def close(self) -> Iterator[Event]:
        """Yield what the end of the stream completes: nothing, as an empty line ends an event."""
        return iter(())

    def _read(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > self._max_size:
                raise TooLong(self._max_size)
            self._data.append(value.decode(errors="replace"))
        elif field == b"event":
            self._type = value.decode(errors="replace")
        elif field == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            self._position.retry = int(digits[:_DIGITS])

    def _dispatch(self) -> Event | None:
        self._position.last_event_id = self._id
        data, type_ = self._data, self._type
        self._data, self._size, self._type = [], 0, ""
        if not data:
            return None
        return Event("\n".join(data), event=type_ or "message", id=self._id)
