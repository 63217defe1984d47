"""
``VERCEL_UI``: the UI message stream of the AI SDK, which its chats read.

It is so because of what the clients (npm ``ai``, 5 to 7) do with a stream:

* A part that is not closed is shown as streaming for ever. So everything open is closed before any
  end, and what a step has opened at the end of the step, where the clients forget it.
* ``abort`` changes nothing that they show, and a cut looks like the end of a complete answer. So a
  transient part of data tells of a cancellation, and there is always a last word.
* They cannot go on in the middle. They ask again, read everything from its beginning, and know by
  the id of the message that it is the one they have: so the id is derived from the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import uuid4

from .events import Frame, ServerSentEvent, utf8
from .inside import DONE, Chunk, chunks_of, frame_of, pass_on
from .items import SHORT_WAYS, makes_json, quoted, takes_events
from .json import ToJSON, fields_of, to_json as _to_json
from .profile import HEADERS, Profile

# The part that text is put into.
_ID = "text"
_DELTA = f'data: {{"type":"text-delta","id":"{_ID}","delta":'

# What ends a message.
_ENDS = frozenset(("finish", "abort", "error", DONE["type"]))

_UNFINISHED = "The input is not complete."


class _State(NamedTuple):
    """What the clients know of a message."""

    #: Whether text goes on in the part that is open for it.
    has_text: bool = False
    #: The chunks that close the open parts, by the kind of part and its id.
    open: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()
    #: Which of the chunks that are sent only once were sent.
    said: frozenset[str] = frozenset()

    def opened(self, kind: str, id_: str, end: Chunk) -> _State:
        return self.closed(kind, id_)._replace(open=(*self.open, (kind, id_, end)))

    def closed(self, kind: str, id_: str) -> _State:
        left = tuple(part for part in self.open if part[:2] != (kind, id_))
        return self if len(left) == len(self.open) else self._replace(open=left)

    def after(self, type_: str) -> _State:
        return self._replace(said=self.said | {type_})


_NOTHING = _State()
_TEXT_END = {"type": "text-end", "id": _ID}


def _begin(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    message_id = about.get("messageId")
    if message_id is None:
        run = [about[name] for name in ("run_id", "epoch") if name in about]
        message_id = ".".join(run) or uuid4().hex
    return [{"type": "start", "messageId": message_id}]


@takes_events
@makes_json
def _event_of(item: object, state: _State | None, to_json: ToJSON = _to_json) -> Frame:
    if isinstance(item, str | bytes) and not isinstance(item, Frame):
        text = item if isinstance(item, str) else item.decode("utf-8", "replace")
        delta = utf8(f"{_DELTA}{quoted(text)}}}\n\n")
        if state is not None and state.has_text:
            return Frame(delta)
        return Frame(frame_of({"type": "text-start", "id": _ID}) + delta)
    state = _NOTHING if state is None else state
    passed = pass_on(item, state, _passing, _after, to_json)
    if passed is not None:
        return passed
    chunk = fields_of(item)
    if not isinstance(chunk.get("type"), str):
        raise TypeError(
            "a chunk of VERCEL_UI has a type, but there is none in "
            f"{type(item).__qualname__}: yield {{'type': 'data-...', 'data': ...}}, or text"
        )
    before, said = _passing(state, chunk)
    frames = [frame_of(each) for each in before]
    # A model itself knows how it becomes JSON.
    frames.append(frame_of(item if said is chunk else said, to_json))
    return Frame(b"".join(frames))


def _passing(state: _State, chunk: Chunk) -> tuple[Iterable[Chunk], Chunk]:
    type_ = chunk["type"]
    if type_ == "start" and "start" in state.said:
        # A different id would be a different message.
        return (), {name: value for name, value in chunk.items() if name != "messageId"}
    if type_ == "finish-step":
        return _ends(state, _UNFINISHED, step=True), chunk
    return _ends(state, _UNFINISHED) if type_ in _ENDS else (), chunk


def _ends(state: _State, message: str, *, step: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the chunks that close the open parts: in a step, all but the inputs of tools."""
    for kind, _, end in state.open:
        if kind != "tool":
            yield dict(end)
        elif not step:
            yield {**end, "errorText": message}


def _fold(state: _State | None, item: object) -> _State:
    if state is None:
        state = _NOTHING
    if isinstance(item, str | bytes) and not isinstance(item, Frame):
        if state.has_text:
            return state
        return state.opened("text", _ID, _TEXT_END)._replace(has_text=True)
    for chunk in chunks_of(item):
        state = _after(state, chunk)
    return state


def _after(state: _State, chunk: Chunk) -> _State:
    type_ = chunk["type"]
    kind, _, what = type_.partition("-")
    if kind in ("text", "reasoning"):
        return _after_text(state, kind, what, str(chunk.get("id")))
    if kind == "tool":
        return _after_tool(state, what, chunk)
    if type_ == "finish-step":
        tools = tuple(part for part in state.open if part[0] == "tool")
        return state._replace(has_text=False, open=tools)
    if type_ in _ENDS:
        return state._replace(has_text=False, open=()).after(type_)
    return state.after(type_) if type_ == "start" else state


def _begins_with(state: _State | None) -> str | None:
    return _DELTA if state is not None and state.has_text else None


SHORT_WAYS[_event_of, _fold] = _begins_with


def _after_text(state: _State, kind: str, what: str, id_: str) -> _State:
    if what == "start":
        return state.opened(kind, id_, {"type": f"{kind}-end", "id": id_})
    if what == "end":
        state = state.closed(kind, id_)
        if kind == "text" and id_ == _ID:
            return state._replace(has_text=False)
    return state


def _after_tool(state: _State, what: str, chunk: Mapping[str, Any]) -> _State:
    id_ = str(chunk.get("toolCallId"))
    if what == "input-start":
        end = {"type": "tool-input-error", "toolCallId": id_, "toolName": chunk.get("toolName")}
        for name in "dynamic", "providerExecuted":
            if name in chunk:
                end[name] = chunk[name]
        return state.opened("tool", id_, {**end, "input": None})
    return state if what == "input-delta" else state.closed("tool", id_)


def _tail(kind: str, message: str, state: _State | None) -> Iterator[Any]:
    state = _NOTHING if state is None else state
    if DONE["type"] in state.said:
        # Nobody reads on after that.
        return
    yield from _ends(state, message)
    if kind == "completed":
        if state.said.isdisjoint(_ENDS):
            yield {"type": "finish"}
    elif kind == "cancelled":
        yield {"type": "data-end", "data": {"kind": kind}, "transient": True}
        if "abort" not in state.said:
            yield {"type": "abort"}
    elif "error" not in state.said:
        yield {"type": "error", "errorText": message}
    yield ServerSentEvent("[DONE]")


#: For the chats of the AI SDK (``useChat`` and ``Chat`` of npm ``ai``, 5 to 7).
#:
#: Text becomes one part of the message, and a new one in the next step. Mappings and models are
#: chunks of the protocol, and so is what is in a :class:`ServerSentEvent` or in the whole events of
#: a :class:`Frame`. The message begins with its id: that of the run, or
#: ``about={"messageId": ...}``, or a random one. Everything open is closed at the end. The chat is
#: then ``ready``; after a failure, a time-out, a shutdown or a loss it has an ``error``. After a
#: cancellation it is ``ready``, too: only ``onData`` is told, by a part ``data-end`` with
#: ``{"kind": "cancelled"}``.
#:
#: A chat that comes back to a run reads it from its beginning, into the same message. Status 204
#: tells it that there is no such run, and 410 that the beginning of the run is no longer kept.
VERCEL_UI = Profile(
    "VERCEL_UI",
    event_of=_event_of,
    begin=_begin,
    fold=_fold,
    tail=_tail,
    resumes=False,
    nothing=204,
    notices_cuts=False,
    headers=MappingProxyType({**HEADERS, "x-vercel-ai-ui-message-stream": "v1"}),
)
