"""Which event is the last, as what makes it makes it."""

from __future__ import annotations

from typing import Any

import pytest

from streamkit import Outcome
from streamkit._client.parser import EventParser, Position
from streamkit._sse.records import Records
from streamkit.asgi import Shutdown
from streamkit.client import (
    Event,
    ag_ui_end,
    anthropic_end,
    browser_end,
    json_lines_end,
    openai_chat_end,
    openai_responses_end,
    vercel_ui_end,
)
from streamkit.sse import ANTHROPIC, BROWSER, OPENAI_CHAT, OPENAI_RESPONSES, Profile

KINDS = ["completed", "cancelled", "timed_out", "failed"]


def outcome(kind: Any, reason: object = None) -> Outcome:
    return Outcome(kind=kind, reason=reason, error=None, items=0, started_at=0.0, ended_at=0.0)


def said(frames: list[Any] | None) -> list[Event]:
    assert frames is not None
    return list(EventParser(Position(), 1000).feed(b"".join(frames)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("profile", "last_word"),
    [
        (BROWSER, browser_end),
        (OPENAI_CHAT, openai_chat_end),
        (OPENAI_RESPONSES, openai_responses_end),
        (ANTHROPIC, anthropic_end),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_profiles(profile: Profile, last_word: Any, kind: str) -> None:
    """Web: each kind of end of each profile is the last word, and an item is none."""
    item = {"type": "content", "end": 1, "text": '[DONE] "error": RUN_FINISHED'}
    [event] = said([profile.encode(item)])
    assert last_word(event) is False
    last = said(profile.final(outcome(kind)))
    if last or kind != "completed":
        assert last_word(last[-1]) is True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["end", 'a"\u2028'])
def test_json_lines(kind: str, key: str) -> None:
    """Web: so it is of JSON lines, also with a key that is written with escapes."""
    records = Records(key, None)
    last_word = browser_end if key == "end" else json_lines_end(key)
    for frame, is_last in (
        (records.encode({"text": {key: 1}}), False),
        (records.encode([key]), False),
        (records.encode(key), False),
        ((records.final(outcome(kind)) or [])[0], True),
    ):
        assert last_word(Event(frame.decode(), event=None)) is is_last


def test_shutdown() -> None:
    """Web: a shutdown of BROWSER asks to come back; JSON lines cannot go on."""
    [event] = said(BROWSER.final(outcome("cancelled", Shutdown())))
    assert browser_end(event) is None
    [record] = Records("end", None).final(outcome("cancelled", Shutdown())) or []
    assert browser_end(Event(record.decode(), event=None)) is True


@pytest.mark.parametrize(
    ("last_word", "event", "is_last"),
    [
        (browser_end, Event('{"end":1}'), False),
        (browser_end, Event("", event="end"), True),
        (browser_end, Event("[]", event="end"), True),
        (browser_end, Event('{"kind":"gone"}', event="end"), True),
        (browser_end, Event("end of no JSON", event=None), False),
        (browser_end, Event('{"end":' + "[" * 100_000, event=None), False),
        (openai_chat_end, Event('{"error":' + "[" * 100_000), False),
        (openai_chat_end, Event('{"choices":[],"error":null}'), False),
        (openai_chat_end, Event('{"error":{"message":"x"}}'), True),
        (openai_chat_end, Event('{"error":"x"}'), True),
        (openai_responses_end, Event("{}", event="response.completed"), True),
        (openai_responses_end, Event("{}", event="response.created"), False),
        (anthropic_end, Event("{}", event="message_stop"), True),
        (vercel_ui_end, Event('{"type":"finish"}'), False),
        (vercel_ui_end, Event("[DONE]"), True),
        (ag_ui_end, Event('{"type":"RUN_STARTED"}'), False),
        (ag_ui_end, Event('{"type":"RUN_FINISHED"}'), True),
        (ag_ui_end, Event('{"type":"RUN_ERROR"}'), True),
        (ag_ui_end, Event('{"type":"CUSTOM","name":"RUN_ERROR"}'), False),
        (ag_ui_end, Event("RUN_ERROR"), False),
    ],
)
def test_words(last_word: Any, event: Event, is_last: bool) -> None:
    """Web: what is the last word of whom."""
    assert last_word(event) is is_last


def test_key() -> None:
    """M1: a key that is no text."""
    with pytest.raises(TypeError, match="got int: write last_word=json_lines_end"):
        json_lines_end(1)  # type: ignore[arg-type]
