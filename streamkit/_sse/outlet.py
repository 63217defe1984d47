"""How a response gets its bytes: an item, a beat and the last ones are encoded by a profile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from .._core.arguments import check_made
from .._core.outcome import Outcome
from .._core.stage import SKIP
from .._http.outlet import Outlet, encode
from .events import Frame
from .items import data_event
from .profile import Profile


class EventOutlet(Outlet):
    """Makes bytes of items as a profile does."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self._encode = profile.encode
        self._has_short_way = profile.event_of is data_event
        # Whether the next item may take it. Not after the middle of a line, to find its end.
        self._takes_text = self._has_short_way
        # Whether what was said last ends in the middle of a line, where a beat would be lost, and
        # would take the rest of the line with it. After a CR, the LF of the same line end may come.
        self._is_in_line = False

    def on_item(self, item: Any) -> bytes:
        # Most items are text of one line, for which there is a shorter way to the same bytes.
        if type(item) is str and self._takes_text and item and not ("\n" in item or "\r" in item):
            try:
                return f"data: {item}\n\n".encode()
            except UnicodeEncodeError:
                # Half of a surrogate pair: the longer way knows what to do.
                pass
        content = encode(self._encode(item))
        if self._is_in_line or not content.endswith(b"\n"):
            self._note_end(content)
        return content

    def _note_end(self, content: bytes) -> None:
        if content:
            self._is_in_line = not content.endswith(b"\n")
            self._takes_text = self._has_short_way and not self._is_in_line

    def on_beat(self, beat: Any) -> Any:
        return SKIP if self._is_in_line else super().on_beat(self._encode(beat))


def encoded_final(
    final: Callable[[Outcome], object], profile: Profile
) -> Callable[[Outcome], list[Frame] | None]:
    """Return a ``final`` of a user, whose items are encoded by a profile."""

    def encoded(outcome: Outcome) -> list[Frame] | None:
        last: Any = final(outcome)
        check_made("final", last)
        if last is None:
            return None
        several = isinstance(last, list | tuple | Iterator)
        items = cast("Iterable[object]", last) if several else (last,)
        return [profile.encode(item) for item in items]

    return encoded
