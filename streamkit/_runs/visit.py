"""What telemetry is told of a reader: which run it reads, and what it finds on its return."""

from __future__ import annotations

from typing import Literal

from .._core.telemetry import Resumed, RunsTold
from .cursor import Cursor
from .errors import CursorMismatch, Gap
from .log import Page, Record
from .records import note_of


class Visit:
    """
    One reader, from its first look at a run.

    :param told: hears of the reader
    :param record: the run
    :param after: what the reader has seen
    :param is_new: whether the reader has not looked at a run before

    """

    __slots__ = ("_comes_back", "_note", "_told")

    def __init__(
        self,
        told: RunsTold,
        record: Record,
        after: Cursor | Literal["now"] | None,
        *,
        is_new: bool,
    ) -> None:
        self._told = told
        self._note = note_of(record.terms)
        self._comes_back = isinstance(after, Cursor) and after.position > 0 and not after.is_end
        if is_new:
            told.read(self._note)

    def has_found(self, page: Page, position: int, epoch: str) -> None:
        """Note the first page after what the reader has seen."""
        if page.epoch == epoch and page.first <= position + 1:
            is_there = page.outcome is None and page.last <= position
            self._tell("live" if is_there else "log")

    def has_failed(self, error: Exception) -> None:
        """Note that the reader cannot go on."""
        if isinstance(error, Gap | CursorMismatch):
            self._tell("gap")

    def _tell(self, found: Resumed) -> None:
        if self._comes_back:
            self._comes_back = False
            self._told.resumed(self._note, found)
