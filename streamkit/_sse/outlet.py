"""
How a response gets its bytes: an item, a beat and the last ones are encoded by a profile.

A profile with a beginning or a memory has an outlet of its own, so that the others pay nothing for
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from .._core.arguments import check_made
from .._core.outcome import Outcome
from .._core.stage import SKIP
from .._http.outlet import Outlet, encode
from .events import Frame
from .items import SHORT_WAYS, data_event, quoted
from .json import to_json
from .profile import Profile, in_state

# From this status on, the answer is not a stream of the protocol.
_REFUSED = 400


class EventOutlet(Outlet):
    """Makes bytes of items as a profile does."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self._encode = profile.encode
        self._has_short_way = profile.event_of is data_event
        # Whether the next item may take it. Not after the middle of a line, whose end must be
        # found.
        self._takes_text = self._has_short_way
        # Whether the last bytes end in the middle of a line, where a beat would be lost, and would
        # take the rest of the line with it. After a CR, the LF of the same line end may come.
        self._is_in_line = False

    def on_item(self, item: Any) -> bytes:
        # Most items are text of one line, for which there is a shorter way to the same bytes.
        if type(item) is str and self._takes_text and item and not ("\n" in item or "\r" in item):
            try:
                return f"data: {item}\n\n".encode()
            except UnicodeEncodeError:
                # Half of a surrogate pair: the longer way handles it.
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


class RememberingOutlet(EventOutlet):
    """
    Sends the beginning before the first item, and keeps the state of the stream.

    If the status says that the client is refused, nothing of the protocol is sent: text is sent as
    text, and anything else as its JSON.

    :param profile: with a beginning or a fold
    :param about: the data for its beginning

    """

    def __init__(self, profile: Profile, about: Mapping[str, Any]) -> None:
        super().__init__(profile)
        self._fold = profile.fold
        self._encode_in = profile.encode_in
        self._opening, self._state = profile.begun(about)
        self._begins_with = SHORT_WAYS.get((profile.event_of, profile.fold))
        # As for text that may take the shorter way.
        self._prefix: str | None = None
        self._is_refused = False

    def expect(self, status: int) -> None:
        super().expect(status)
        self._is_refused = status >= _REFUSED

    def on_item(self, item: Any) -> bytes:
        if self._prefix is not None and item and type(item) is str:
            try:
                return f"{self._prefix}{quoted(item)}}}\n\n".encode()
            except UnicodeEncodeError:
                pass
        if self._is_refused:
            return encode(item if isinstance(item, str | bytes) else to_json(item))
        if self._fold is None:
            content = super().on_item(item)
        else:
            content = encode(self._encode_in(self._state, item))
            self._state = self._fold(self._state, item)
            if self._is_in_line or not content.endswith(b"\n"):
                self._note_end(content)
            if self._begins_with is not None:
                self._prefix = None if self._is_in_line else self._begins_with(self._state)
        if self._opening:
            content, self._opening = self._opening + content, Frame()
        return content

    def on_beat(self, beat: Any) -> Any:
        return SKIP if self._is_refused else super().on_beat(beat)

    def opening(self, beat: bytes) -> bytes:
        return b"" if self._is_refused else beat

    def last(
        self, final: Callable[[Outcome], list[Frame] | None], outcome: Outcome
    ) -> list[Frame] | None:
        """Return the last bytes, after the beginning if nothing else was sent."""
        if self._is_refused:
            return [] if outcome.kind == "completed" else None
        with in_state(self._state):
            frames = final(outcome)
        return [self._opening, *frames] if frames and self._opening else frames


def encoded_final(
    final: Callable[[Outcome], object], profile: Profile
) -> Callable[[Outcome], list[Frame] | None]:
    """Return a ``final`` of a user, with its items encoded by a profile."""

    def encoded(outcome: Outcome) -> list[Frame] | None:
        last: Any = final(outcome)
        check_made("final", last)
        if last is None:
            return None
        several = isinstance(last, list | tuple | Iterator)
        items = cast("Iterable[object]", last) if several else (last,)
        return profile.said(items)

    return encoded
