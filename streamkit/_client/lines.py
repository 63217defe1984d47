"""
Bytes as lines, however they are cut, and none of them too long.

Each byte is looked at once. A CR ends a line as soon as it is there; an LF that comes after it,
even in the next piece, belongs to the same end. A byte order mark at the beginning is not part of
the first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .errors import TooLong

_BOM = b"\xef\xbb\xbf"
_ANY_END = re.compile(rb"\r\n|\r|\n")
_LF = re.compile(rb"\n")


class Lines:
    """
    Takes bytes and gives lines, without their ends.

    :param max_size: the most bytes in a line
    :param cr: whether a CR ends a line

    """

    __slots__ = ("_after_cr", "_cr", "_end", "_is_first", "_max_size", "_rest")

    def __init__(self, max_size: int, *, cr: bool) -> None:
        self._max_size = max_size
        self._cr = cr
        self._end = _ANY_END if cr else _LF
        self._rest = bytearray()
        self._after_cr = False
        self._is_first = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """
        Take a piece, and yield the lines that end in it.

        :raises TooLong: if a line is too long

        """
        if not piece:
            return
        start = 1 if self._after_cr and piece.startswith(b"\n") else 0
        self._after_cr = self._cr and piece.endswith(b"\r")
        for end in self._end.finditer(piece, start):
            self._add(piece[start : end.start()])
            start = end.end()
            yield self.rest()
        self._add(piece[start:])

    def _add(self, part: bytes) -> None:
        if len(self._rest) + len(part) > self._max_size:
            self._rest.clear()
            raise TooLong(self._max_size)
        self._rest += part

    def rest(self) -> bytes:
        """Return what came after the last end of a line, and begin a new one."""
        line = bytes(self._rest)
        self._rest.clear()
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        return line
