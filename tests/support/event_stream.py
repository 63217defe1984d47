"""A parser of event streams, written from the text of the standard and from nothing else.

https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 (parsing) and
9.2.6 (interpretation). It is plain rather than fast, and also takes notes of comments and of
``retry``, so that a test sees everything that was in the stream.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """What a page receives as a ``MessageEvent``."""

    data: str
    type: str = "message"
    last_event_id: str = ""


class EventStreamParser:
    """Takes a stream in chunks, cut at any byte."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.retries: list[int] = []
        #: Lines whose field is unknown, or whose value the standard says to ignore.
        self.ignored: list[str] = []
        #: What a browser sends as Last-Event-ID when it connects again.
        self.last_event_id = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._data = ""
        self._type = ""
        self._id = ""

    def feed(self, chunk: bytes) -> None:
        """Interpret some more bytes."""
        self._characters(self._decoder.decode(chunk))

    def close(self) -> None:
        """End the stream. An event that no empty line has ended is dropped."""
        self._characters(self._decoder.decode(b"", final=True))

    def _characters(self, text: str) -> None:
        if self._is_at_start and text:
            self._is_at_start = False
            # One byte order mark, and only one, is no part of the stream.
            text = text.removeprefix("\ufeff")
        for character in text:
            if character == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = character == "\r"
            if character in "\r\n":
                line = "".join(self._line)
                self._line.clear()
                self._process(line)
            else:
                self._line.append(character)

    def _process(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:].removeprefix(" "))
        else:
            field, _, value = line.partition(":")
            self._field(line, field, value.removeprefix(" "))

    def _field(self, line: str, field: str, value: str) -> None:
        if field == "event":
            self._type = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retries.append(int(value))
        else:
            self.ignored.append(line)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            data = self._data.removesuffix("\n")
            self.events.append(Event(data, self._type or "message", self._id))
        self._data = ""
        self._type = ""


def parse(*chunks: bytes) -> EventStreamParser:
    """Return a parser that has seen a whole stream."""
    parser = EventStreamParser()
    for chunk in chunks:
        parser.feed(chunk)
    parser.close()
    return parser
