"""What the servers of the tests send: items with ids, beats after them, and each kind of end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from streamkit import Outcome
from streamkit.asgi import Shutdown
from streamkit.sse import Frame, Profile, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamkit import OutcomeKind

#: How a stream may end before it is complete.
CUT: list[OutcomeKind] = ["cancelled", "timed_out", "failed"]
#: What would make an SDK crash, or see an event that is none, after an ``id:`` line.
BAD_BEAT = Frame(b": ping\n\n")


def script(
    profile: Profile,
    items: Iterable[Any],
    kind: OutcomeKind = "completed",
    *,
    reason: object = None,
    beat: Frame | None = None,
) -> list[bytes]:
    """Return the frames of a stream whose every item has an id, and two beats after it."""
    beat = profile.beat if beat is None else beat
    frames = [beat]
    for number, item in enumerate(items):
        frames += [profile.encode(with_id(item, f"evt-{number}")), beat, beat]
    outcome = Outcome(kind=kind, reason=reason, started_at=0.0, ended_at=1.0)
    return [*frames, *(profile.final(outcome, message="Sorry.") or [])]


def shut_down(profile: Profile, items: Iterable[Any]) -> list[bytes]:
    """Return the frames of a stream that a shutdown has ended."""
    return script(profile, items, "cancelled", reason=Shutdown())


def with_id(item: Any, id_: str) -> Any:
    """Return an event for a mapping, with its type as its name, or else the item itself."""
    if not isinstance(item, dict):
        return item
    return ServerSentEvent(json.dumps(item), event=item.get("type"), id=id_)


def chat(*texts: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a chat completion, up to the one that says why it stopped."""
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for number, text in enumerate(texts):
        role = {} if number else {"role": "assistant"}
        choice = {"index": 0, "delta": {**role, "content": text}, "finish_reason": None}
        yield {**chunk, "choices": [choice]}
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def responses(*texts: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a response of OpenAI, up to ``response.completed``."""
    response: dict[str, Any] = {
        "id": "resp-1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }
    message: dict[str, Any] = {
        "id": "msg-1",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    place = {"item_id": "msg-1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    done = {**message, "status": "completed", "content": [{**part, "text": "".join(texts)}]}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.content_part.added", **place, "part": part},
        *(
            {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []}
            for text in texts
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {
            "type": "response.completed",
            "response": {**response, "status": "completed", "output": [done]},
        },
    ]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def messages(*texts: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a message of Anthropic, up to ``message_stop``."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {
        "id": "msg-1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}
