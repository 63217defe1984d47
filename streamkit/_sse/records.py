"""
Records of JSON, one a line. The last one has the kind of the end, under a key of its own.

No item may have that key, or a reader would take it for the end. Most items cannot have it, which
shows in their text without parsing it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

from .._core.arguments import check_made
from .._core.outcome import Outcome, OutcomeKind
from .._core.stage import SKIP
from .._http.outlet import Outlet
from .events import Frame, utf8
from .json import encoding_with
from .profile import Profile

MEDIA_TYPE = "application/x-ndjson; charset=utf-8"


class Records:
    """
    Makes lines of what a source yields.

    :param end: the key of the last record
    :param encoder: called with a value for which there would be no JSON

    """

    __slots__ = ("_end", "_marks", "as_json")

    def __init__(self, end: str, encoder: Callable[[Any], object] | None) -> None:
        #: Makes JSON of an item.
        self.as_json = encoding_with(_refuse if encoder is None else encoder)
        self._end = end
        # How the key is written, if it is one.
        self._marks = self.as_json(end) + ":"

    def encode(self, item: object) -> Frame:
        """
        Return an item as a line.

        :raises TypeError: if there is no JSON for it
        :raises ValueError: if it is not valid JSON, or the item has the key of the end

        """
        text = self.as_json(item)
        if self._marks in text and self._is_end(text):
            raise ValueError(
                f"an item has the key {self._end!r}, which marks the end: write "
                f"JsonLines(source, end_key='...') with a key that no item has"
            )
        return _line(text)

    def _is_end(self, text: str) -> bool:
        read = json.loads(text)
        return isinstance(read, dict) and self._end in read

    def encode_last(self, item: object) -> Frame:
        """Return an item that may be the end."""
        return _line(self.as_json(item))

    def final(self, outcome: Outcome) -> list[Frame] | None:
        """Return the record that says how a stream has ended."""
        # It knows the message for the public. Made here, because keeping it would be a cycle.
        profile = Profile(
            "JsonLines",
            tail=lambda kind, message: [self._last(kind, message)],
            shutdown=lambda message: [self._last("shutdown", message)],
        )
        return profile.final(outcome)

    def _last(self, kind: OutcomeKind | str, message: str) -> Frame:
        return self.encode_last({self._end: {"kind": kind, "message": message}})

    def encoded_final(
        self, final: Callable[[Outcome], object]
    ) -> Callable[[Outcome], list[Frame] | None]:
        """Return a ``final`` of a user, with its items turned into lines."""
        return partial(self._encoded, final)

    def _encoded(self, final: Callable[[Outcome], object], outcome: Outcome) -> list[Frame] | None:
        last: Any = final(outcome)
        check_made("final", last)
        if last is None:
            return None
        several = isinstance(last, list | tuple | Iterator)
        items = cast("Iterable[object]", last) if several else (last,)
        return [self.encode_last(item) for item in items]

    def encode_beat(self, beat: object) -> Frame:
        """
        Return a beat as a line.

        :raises TypeError: if it is not an object
        :raises ValueError: if it has the key of the end

        """
        line = self.encode(beat)
        if not line.startswith(b"{"):
            raise TypeError(
                f"beat must be an object of JSON, got {type(beat).__qualname__}: write "
                "beat={'type': 'ping'}, for instance"
            )
        return line


class RecordOutlet(Outlet):
    """
    Makes bytes of items as lines.

    :param beat: that of the response, already as a line

    """

    def __init__(self, records: Records, beat: bytes) -> None:
        super().__init__()
        self._encode = records.encode
        self._as_json = records.as_json
        self._beat = beat

    def on_item(self, item: Any) -> bytes:
        if type(item) is str:
            # Most items are text, which has no keys.
            return utf8(self._as_json(item)) + b"\n"
        return bytes(self._encode(item))

    def on_beat(self, beat: Any) -> Any:
        if not self.has_body:
            return SKIP
        return bytes(beat if beat is self._beat else self._encode(beat))


def _line(text: str) -> Frame:
    return Frame(utf8(text) + b"\n")


def _refuse(value: object) -> object:
    raise TypeError(
        f"there is no JSON for {type(value).__qualname__}: yield what json.dumps() takes, a "
        "dataclass or a model of pydantic, or write JsonLines(source, encoder=...) with a function "
        "that returns one of these for it"
    )
