"""
``AG_UI``: the protocol of agents and their user interfaces, which ``HttpAgent`` reads.

The client checks the order of the events, and throws if it is wrong: a run begins with the ids of
its request, and must not finish while anything in it is open. So everything open is closed first.
Nothing comes after the end, and no event of another protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from .events import Frame, utf8
from .inside import DONE, Chunk, chunks_of, frame_of, pass_on
from .items import SHORT_WAYS, makes_json, quoted, takes_events
from .json import ToJSON, fields_of, to_json as _to_json
from .profile import Profile

# By the type that opens something: the type that closes it, and the field that identifies it.
_OPENS: dict[str, tuple[str, str | None]] = {
    "TEXT_MESSAGE_START": ("TEXT_MESSAGE_END", "messageId"),
    "TOOL_CALL_START": ("TOOL_CALL_END", "toolCallId"),
    "STEP_STARTED": ("STEP_FINISHED", "stepName"),
    "REASONING_START": ("REASONING_END", "messageId"),
    "REASONING_MESSAGE_START": ("REASONING_MESSAGE_END", "messageId"),
    "THINKING_START": ("THINKING_END", None),
    "THINKING_TEXT_MESSAGE_START": ("THINKING_TEXT_MESSAGE_END", None),
}
_CLOSES = dict(_OPENS.values())
_ENDS = ("RUN_FINISHED", "RUN_ERROR")


class _State(NamedTuple):
    """What the client knows of a run."""

    thread_id: str = ""
    run_id: str = ""
    #: The events that close what is open.
    open: tuple[Mapping[str, Any], ...] = ()
    has_ended: bool = False
    #: The number of the message that text goes to, and whether that has begun.
    message: int = 0
    has_text: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether a run has begun and has not ended. After its end, another one may begin."""
        return bool(self.run_id) and not self.has_ended

    @property
    def ids(self) -> dict[str, str]:
        return {"threadId": self.thread_id, "runId": self.run_id}


def _begin(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return [{"type": "RUN_STARTED", "threadId": about["threadId"], "runId": about["runId"]}]
    except KeyError:
        raise ValueError(
            "a run of AG_UI needs the ids of its request: write about={'threadId': "
            "body['threadId'], 'runId': body['runId']}"
        ) from None


def _prefix(state: _State) -> str:
    start = {
        "type": "TEXT_MESSAGE_CHUNK",
        "messageId": f"{state.run_id}.{state.message}",
        "role": "assistant",
    }
    return f'data: {_to_json(start)[:-1]},"delta":'


@takes_events
@makes_json
def _event_of(item: object, state: _State | None, to_json: ToJSON = _to_json) -> Frame:
    state = _State() if state is None else state
    if isinstance(item, str | bytes) and not isinstance(item, Frame):
        text = item if isinstance(item, str) else item.decode("utf-8", "replace")
        # The client rejects a piece without text.
        return Frame(utf8(f"{_prefix(state)}{quoted(text)}}}\n\n") if text else b"")
    passed = pass_on(item, state, _passing, _after, to_json)
    if passed is not None:
        return passed
    event = fields_of(item)
    if not isinstance(event.get("type"), str):
        raise TypeError(
            f"the events of AG_UI have a type, but there is none in {type(item).__qualname__}: "
            "yield {'type': 'CUSTOM', 'name': ..., 'value': ...}, or text"
        )
    before, said = _passing(state, event)
    frames = [frame_of(each) for each in before]
    if said is not None:
        # A model itself knows how it becomes JSON.
        frames.append(frame_of(item, to_json))
    return Frame(b"".join(frames))


def _passing(state: _State, event: Chunk) -> tuple[Iterable[Chunk], Chunk | None]:
    type_ = event["type"]
    if event is DONE or (type_ == "RUN_STARTED" and state.goes_on):
        # The client does not know the first, and already has the second.
        return (), None
    return reversed(state.open) if type_ in _ENDS else (), event


def _fold(state: _State | None, item: object) -> _State:
    state = _State() if state is None else state
    if isinstance(item, str | bytes) and not isinstance(item, Frame):
        return state if state.has_text or not item else state._replace(has_text=True)
    for event in chunks_of(item):
        state = _after(state, event)
    return state


def _after(state: _State, event: Chunk) -> _State:
    type_ = event["type"]
    if event is DONE:
        return state
    if state.has_text:
        # To the client, a message is complete when something else comes.
        state = state._replace(has_text=False, message=state.message + 1)
    if type_ == "RUN_STARTED" and not state.goes_on:
        ids = str(event.get("threadId", "")), str(event.get("runId", ""))
        return state._replace(thread_id=ids[0], run_id=ids[1], has_ended=False)
    if type_ in _ENDS:
        return state._replace(open=(), has_ended=True)
    if type_ in _OPENS:
        end, name = _OPENS[type_]
        which = {} if name is None else {name: event.get(name)}
        return state._replace(open=(*state.open, {"type": end, **which}))
    if type_ in _CLOSES:
        name = _CLOSES[type_]
        which = {} if name is None else {name: event.get(name)}
        closed = {"type": type_, **which}
        return state._replace(open=tuple(end for end in state.open if end != closed))
    return state


def _begins_with(state: _State | None) -> str | None:
    return _prefix(state) if state is not None and state.has_text else None


SHORT_WAYS[_event_of, _fold] = _begins_with


def _tail(kind: str, message: str, state: _State | None, *, by_error: bool) -> Iterator[Any]:
    state = _State() if state is None else state
    if state.has_ended:
        return
    # The end itself closes what is open.
    if kind == "completed":
        yield {"type": "RUN_FINISHED", **state.ids}
    elif kind == "cancelled" and not by_error:
        yield {"type": "RUN_FINISHED", **state.ids, "outcome": {"type": "cancelled"}}
    else:
        yield {"type": "RUN_ERROR", "message": message, "code": kind}


#: For clients of AG-UI, 1.0 (``HttpAgent`` of npm ``@ag-ui/client``).
#:
#: A run begins with the ids of the request: ``about={"threadId": ..., "runId": ...}``. Text becomes
#: a message of the assistant, and a new one after anything else. Mappings and models are events,
#: and so is what is in a :class:`ServerSentEvent` or in the whole events of a :class:`Frame`.
#: Everything open is closed at the end. A cancelled run is finished with the ``outcome``
#: ``{"type": "cancelled"}``; any other end is a ``RUN_ERROR`` with the kind as its ``code``.
#: Nothing is added if the source has sent the end itself. The client cannot come back to a run.
AG_UI = Profile(
    "AG_UI",
    event_of=_event_of,
    begin=_begin,
    fold=_fold,
    tail=partial(_tail, by_error=False),
    resumes=False,
    notices_cuts=False,
)

#: Like :data:`AG_UI`, for clients before 1.0: they throw for an ``outcome``, so a cancelled run is
#: a ``RUN_ERROR`` with the code ``cancelled``.
AG_UI_0 = Profile(
    "AG_UI_0",
    event_of=_event_of,
    begin=_begin,
    fold=_fold,
    tail=partial(_tail, by_error=True),
    resumes=False,
    notices_cuts=False,
)
