"""
The chunks in an event, or in a frame of several: each is JSON with a type.

A source that passes on what another server says yields events, not mappings. A protocol with a
memory still reads what is in them: an end is the end, and closes everything open. Unchanged events
go on the wire as they were, except that lines end in LF: some clients need that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from .events import Frame, ServerSentEvent, utf8
from .foreign import event_from
from .json import ToJSON, encoding_with, fields_of, to_json as _to_json

Chunk: TypeAlias = Mapping[str, Any]
State = TypeVar("State")

#: The last word of many protocols, which is not JSON, as a chunk.
DONE: Chunk = {"type": "[DONE]"}

#: From a state and a chunk, tells what is sent before the chunk, and what is sent for it: the chunk
#: itself, another one, or nothing.
Passing: TypeAlias = Callable[[State, Chunk], tuple[Iterable[Chunk], Chunk | None]]

# Types that are not an event of any library.
_PLAIN: tuple[type[Any], ...] = (dict,)

# For items that are inspected, not sent: a field without JSON does not matter there.
_lenient = encoding_with(lambda value: None)


class _Part(NamedTuple):
    """One event, or what is between two events."""

    lines: list[bytes]
    chunk: Chunk | None

    @property
    def frame(self) -> bytes:
        return b"\n".join(self.lines)

    def saying(self, data: str) -> bytes:
        """Return the event with other data."""
        others = [line for line in self.lines if _name_of(line) != b"data"]
        return b"\n".join([b"data: " + utf8(data), *others])


def pass_on(
    item: object,
    state: State,
    passing: Passing[State],
    after: Callable[[State, Chunk], State],
    to_json: ToJSON,
) -> Frame | None:
    """
    Return an event, or a frame, as it goes on the wire in a state.

    :param item: anything
    :param passing: decides what is sent for a chunk
    :param after: the state after a chunk
    :return: ``None`` if the item is neither

    """
    parts = _parts_of(item, to_json)
    if parts is None:
        return None
    said: list[bytes] = []
    for part in parts:
        chunk = part.chunk
        if chunk is None:
            said.append(part.frame)
            continue
        before, passed = passing(state, chunk)
        said += map(frame_of, before)
        if passed is not None:
            said.append(part.frame if passed is chunk else part.saying(to_json(passed)))
        state = after(state, chunk)
    return Frame(b"".join(said))


def frame_of(chunk: object, to_json: ToJSON = _to_json) -> bytes:
    """Return a chunk as an event."""
    return b"data: %b\n\n" % utf8(to_json(chunk))


def chunks_of(item: object) -> list[Chunk]:
    """Return the chunk that an item is, or the chunks in it, leaving out those without a type."""
    parts = _parts_of(item, _lenient)
    if parts is not None:
        return [part.chunk for part in parts if part.chunk is not None]
    chunk = fields_of(item)
    return [chunk] if isinstance(chunk.get("type"), str) else []


def _parts_of(item: object, to_json: ToJSON) -> list[_Part] | None:
    """Return the events in an item, or ``None`` if it has none."""
    if isinstance(item, _PLAIN):
        return None
    if isinstance(item, Frame):
        return list(_parts_in(item))
    event = item if isinstance(item, ServerSentEvent) else event_from(item, to_json)
    return None if event is None else list(_parts_in(event.encode()))


def _parts_in(frame: bytes) -> Iterator[_Part]:
    # Not if the LF of the last line end may still come.
    if b"\r" in frame and (frame.endswith(b"\r\r") or not frame.endswith(b"\r")):
        frame = frame.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines: list[bytes] = []
    data: list[bytes] = []
    *complete, rest = frame.split(b"\n")
    for line in complete:
        lines.append(line)
        if line:
            if _name_of(line) == b"data":
                data.append(line.partition(b":")[2].removeprefix(b" "))
            continue
        yield _Part([*lines, b""], _chunk_in(b"\n".join(data)) if data else None)
        lines, data = [], []
    if lines or rest:
        # Nothing is known of an event whose end comes later.
        yield _Part([*lines, rest], None)


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0]


def _chunk_in(data: bytes) -> Chunk | None:
    if data == b"[DONE]":
        return DONE
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("Chunk", said) if isinstance(said.get("type"), str) else None
