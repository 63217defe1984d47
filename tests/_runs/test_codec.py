"""Items as bytes, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import fastapi.sse
import pytest
import sse_starlette
from hypothesis import example, given, strategies as st

from odd_text import texts
from streamkit._runs.codec import decode, encode
from streamkit.client import Event
from streamkit.runs import Runs, UnknownVersion
from streamkit.sse import Frame, ServerSentEvent
from support import aiter_of

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
events = st.builds(
    ServerSentEvent,
    st.text() | st.binary(),
    event=st.none() | st.sampled_from(["", "a b", "\u00fc"]),
    id=st.none() | st.sampled_from(["", "17"]),
    retry=st.none() | st.integers(0, 100),
    comment=st.none() | st.text(),
)


@example(item=ServerSentEvent(b"\xff"))
@given(item=st.text() | st.binary() | json_values | events | st.binary().map(Frame))
def test_comes_back(item: Any) -> None:
    """Text, bytes, frames, events and what JSON can say come back as they were."""
    data = encode(item)
    assert type(data) is bytes
    assert decode(data) == item
    assert type(decode(data)) is type(item)


@given(text=texts)
def test_odd_text(text: str) -> None:
    """Text that is no text comes back, too, alone and inside of JSON."""
    assert decode(encode(text)) == text
    assert decode(encode({text: [text]})) == {text: [text]}


@pytest.mark.parametrize(
    ("item", "event"),
    [
        (
            fastapi.sse.ServerSentEvent(data={"a": 1}, event="e", id="7", retry=5, comment="c"),
            ServerSentEvent('{"a":1}', event="e", id="7", retry=5, comment="c"),
        ),
        (sse_starlette.ServerSentEvent("a", event="e"), ServerSentEvent("a", event="e")),
        # What was read elsewhere has no place there any more.
        (Event("a", event="e", id="7"), ServerSentEvent("a", event="e")),
        (Event("a", event=None), ServerSentEvent("a")),
    ],
)
def test_events_of_others(item: Any, event: ServerSentEvent) -> None:
    """Foreign: an event of another library comes back as the event that it is."""
    assert decode(encode(item)) == event


@dataclass
class Point:
    x: int
    y: int


class Model:
    """What pydantic's models look like."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return {"model": options["mode"]}


@pytest.mark.parametrize(
    ("item", "back"),
    [
        (Point(1, 2), {"x": 1, "y": 2}),
        (Model(), {"model": "json"}),
        ((1, (2,)), [1, [2]]),
        ({1: 2}, {"1": 2}),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
    ],
)
def test_comes_back_as_something_else(item: object, back: object) -> None:
    """What is like JSON comes back as JSON, and what is like bytes as bytes."""
    assert decode(encode(item)) == back


def cycle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("item", "error", "name"),
    [
        (object(), TypeError, "object"),
        ([{1, object()}], TypeError, "list"),
        (math.nan, ValueError, "float"),
        (cycle(), ValueError, "list"),
        ({(1,): 2}, TypeError, "dict"),
    ],
)
def test_has_no_form(item: object, error: type[Exception], name: str) -> None:
    """What cannot be kept is refused by its type, with what to yield instead."""
    with pytest.raises(error, match=rf"cannot keep an item of {name}, .*: yield text") as caught:
        encode(item)
    assert "profile" not in str(caught.value)


async def test_data_has_no_form() -> None:
    """Nor can a run be started with data that have none."""
    async with Runs() as runs:
        with pytest.raises(
            TypeError, match=r"cannot keep data of object, .*: write data="
        ) as caught:
            await runs.start(aiter_of("a"), data=object())
    assert "item" not in str(caught.value)


def test_of_a_later_release() -> None:
    """An entry of an unknown form is an error that says what to do."""
    with pytest.raises(
        UnknownVersion, match=r"the form 2, but .* up to 1: update streamkit"
    ) as caught:
        decode(b"\2tabc")
    assert (caught.value.version, caught.value.known) == (2, 1)
