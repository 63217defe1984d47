"""
The items of a run as server-sent events that say where in the run they are.

A frame has its cursor as ``id``, after which its client goes on. For clients that count, its
position is in a field of its JSON. The id is in the last event of a frame: a client that has seen
it has seen all of the frame. Anything that is not an event, such as a comment, has no id: a client
that comes back may get it once more, and ignores it.

All readers of a run with the same kind of client share the frames: an item is encoded for the first
of them, and kept for those that are not far behind. So is the state after it, if the profile has a
fold. For a reader that begins where no state is known, the state is computed from the earlier kept
items.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from .._sse.events import ServerSentEvent
from .._sse.items import data_event
from .._sse.json import to_json
from .._sse.profile import Profile
from .codec import decode, line_of
from .entry import Entry
from .errors import CursorMismatch
from .log import Page

# Bytes of frames that are kept, for one run and one kind of client.
_KEPT = 256 * 1024

# Bytes from which on nothing is added to a message: a client has to take it at once.
_MESSAGE = 32 * 1024


class Stretch(NamedTuple):
    """Consecutive entries, as they are kept."""

    #: The position of the first of them.
    position: int
    entries: Sequence[bytes]
    epoch: str

    @classmethod
    def of(cls, position: int, entries: Sequence[bytes], epoch: str) -> tuple[Stretch, int]:
        """Return all the entries, and how many they are."""
        return cls(position, entries, epoch), len(entries)


class Frames:
    """
    The frames of the items of one run for one kind of client.

    :param profile: the profile of the client
    :param about: the data for the beginning

    """

    __slots__ = (
        "__weakref__",
        "_first",
        "_fold",
        "_frames",
        "_furthest",
        "_has_short_way",
        "_last",
        "_profile",
        "_size",
        "_states",
        "opening",
    )

    def __init__(self, profile: Profile, about: Mapping[str, Any] | None = None) -> None:
        self._profile = profile
        self._fold = profile.fold
        self._has_short_way = (
            profile.event_of is data_event
            and profile.position_field is None
            and profile.fold is None
        )
        #: The bytes before the first item, and the state after them.
        self.opening: bytes
        self._first: Any
        self.opening, self._first = profile.begun(about or {})
        self._frames: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0
        # The states after the items whose frames are kept, and after the furthest one.
        self._states: dict[int, Any] = {}
        self._furthest: tuple[int, Any] = 0, self._first
        # The last result: most readers are at the same place.
        self._last: tuple[tuple[int, int], bytes, int, Any] = (0, 0), b"", 0, None

    async def state_after(
        self, position: int, epoch: str, read: Callable[[int], Awaitable[Page]]
    ) -> Any:
        """
        Return the state after an item, computed from the items before if it is not known.

        If the first items of a run are no longer kept, the state is computed from the kept ones.

        :param epoch: that of the run
        :param read: returns a page of the entries after a position
        :raises CursorMismatch: if there is another run of this id by now
        :raises Exception: what ``read`` raises

        """
        if self._fold is None:
            return None
        if position in self._states:
            return self._states[position]
        at, state = self._furthest if self._furthest[0] <= position else (0, self._first)
        while at < position:
            page = await read(at)
            if page.epoch != epoch:
                raise CursorMismatch
            if page.first > at + 1:
                at = page.first - 1
                continue
            if not page.entries:
                # The log has lost what the reader has seen.
                raise CursorMismatch
            for data in page.entries[: position - at]:
                state = self._fold(state, decode(data))
                at += 1
        if at > self._furthest[0] and at == position:
            self._furthest = at, state
        return state

    def message(self, stretch: Stretch, start: int, state: Any = None) -> tuple[bytes, int, Any]:
        """
        Return several items as they go on the wire, in one piece.

        :param start: the index of the first of them in the stretch
        :param state: the state before that item
        :return: as many as fit into one message, but at least one; where the next one starts; and
            the state before that one
        :raises UnknownVersion: if the first of them was written by a later release
        :raises TypeError: if there is no event for it
        :raises ValueError: if it has an id of its own, or is not a whole event

        """
        position = stretch.position + start
        place = position, len(stretch.entries) - start
        found, message, count, after = self._last
        if found != place:
            pieces: list[bytes] = []
            size = count = 0
            for data in stretch.entries[start:]:
                try:
                    piece = self._frame(position + count, data, stretch.epoch, state)
                except Exception:
                    if not pieces:
                        raise
                    # The items before it are not withheld.
                    break
                if self._fold is not None:
                    state = self._states[position + count]
                pieces.append(piece)
                count += 1
                size += len(piece)
                if size >= _MESSAGE:
                    break
            message, after = b"".join(pieces), state
            self._last = place, message, count, after
        return message, start + count, after

    def _frame(self, position: int, data: bytes, epoch: str, state: Any) -> bytes:
        frame = self._frames.get(position)
        if frame is None:
            # As in a response of events, there is a shorter way to the same bytes for most items.
            line = line_of(data) if self._has_short_way else None
            if line:
                frame = b"data: %b\nid: %b:%d\n\n" % (line, epoch.encode(), position)
            else:
                frame = self._made(Entry(position, decode(data), epoch), state)
            self._frames[position] = frame
            self._size += len(frame)
            while self._size > _KEPT and len(self._frames) > 1:
                dropped, content = self._frames.popitem(last=False)
                self._size -= len(content)
                self._states.pop(dropped, None)
        return frame

    def _made(self, entry: Entry[Any], state: Any) -> bytes:
        item, position = entry.item, entry.position
        if isinstance(item, ServerSentEvent) and item.id is not None:
            raise ValueError(_own_id(item.id))
        frame = located(
            self._profile.encode_in(state, item),
            entry.cursor,
            self._profile.position_field,
            position,
        )
        if self._fold is not None:
            after = self._states[position] = self._fold(state, item)
            if position > self._furthest[0]:
                self._furthest = position, after
        return frame


def located(frame: bytes, cursor: str | None, field: str | None, position: int) -> bytes:
    """
    Return a frame with its place.

    Advice when to come back goes to the end. A client obeys it on arrival, but a client that is cut
    off within the frame should come back for the frame soon.

    :param frame: whole events, and what may be between them
    :param cursor: becomes the id of the last event, or ``None`` for no id
    :param field: a field for the JSON of each event, or ``None``
    :param position: becomes the value of that field
    :raises ValueError: if there is an id, or an event is not whole

    """
    if b"\r" in frame:
        frame = frame.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, rest = frame.split(b"\n")
    last = -1
    is_within = bool(rest)
    for number, line in enumerate(lines):
        name = line.partition(b":")[0]
        if name == b"id":
            raise ValueError(_own_id(line.decode("utf-8", "replace")))
        if name == b"data":
            last = number
        if not line:
            is_within = False
        elif name not in (b"", b"retry"):
            is_within = True
    if is_within or rest:
        raise ValueError(
            "an item of a run must be whole events, because a client may come back after any of "
            "them: write whole_events(response.aiter_bytes()), for instance"
        )
    if last < 0:
        # Not an event, so there is nothing to come back after.
        return frame
    advice = [line for line in lines if line.startswith(b"retry:")]
    if cursor is not None:
        lines.insert(last + 1, b"id: " + cursor.encode())
    if field is not None:
        lines = _numbered(lines, field, position)
    if advice:
        lines = [line for line in lines if not line.startswith(b"retry:")] + advice
    return b"\n".join([*lines, b""])


def _numbered(lines: list[bytes], field: str, position: int) -> list[bytes]:
    """Return the lines of events with a number in the JSON of each."""
    numbered: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
            continue
        if not line and data:
            numbered.append(b"data: " + _with_number(b"\n".join(data), field, position))
            data = []
        numbered.append(line)
    return numbered


def _with_number(data: bytes, field: str, position: int) -> bytes:
    try:
        value: Any = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"the events of this profile have their position in the field {field!r}, and are JSON "
            "objects: yield mappings"
        )
    fields = cast("dict[str, object]", value)
    return to_json({**fields, field: position}).encode("utf-8", "replace")


def _own_id(found: str) -> str:
    return (
        f"an event of a run has its cursor as its id, and this one has its own, {found[:40]!r}: "
        "put that into the data"
    )
