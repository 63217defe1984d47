"""What becomes JSON beside what ``json`` takes, and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given

from odd_text import texts
from streamkit._sse.json import to_json
from streamkit.sse import ANTHROPIC, BROWSER, OPENAI_CHAT, OPENAI_RESPONSES, RAW, Profile
from support.event_stream import parse


class Color(Enum):
    RED = "red"


class Word(StrEnum):
    A = "a"


class Number(IntEnum):
    ONE = 1


@dataclass
class Point:
    x: Any


@attrs.define
class Attrs:
    x: Any
    _hidden: int = 2


class Struct(msgspec.Struct, rename="camel", tag="struct", omit_defaults=True):
    some_field: Any
    left_out: Any = None


class Model(pydantic.BaseModel):
    x: datetime


def sent(item: object, profile: Profile = BROWSER) -> Any:
    """Return what a client reads out of the data of an item."""
    [event] = parse(profile.encode(item)).events
    return json.loads(event.data)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (time(1, 2), "01:02:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a/b"), "/a/b"),
        (ip_address("10.0.0.1"), "10.0.0.1"),
        (ip_address("::1"), "::1"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (ip_network("::/8"), "::/8"),
        (ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
        (ip_interface("::1/8"), "::1/8"),
        (Color.RED, "red"),
        (Word.A, "a"),
        (Number.ONE, 1),
        ({7}, [7]),
        (frozenset({7}), [7]),
        (Attrs(1), {"x": 1, "_hidden": 2}),
        (Struct(1), {"type": "struct", "someField": 1}),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+400"), "1E+400"),
        (Model(x=datetime(2026, 1, 2, tzinfo=UTC)), {"x": "2026-01-02T00:00:00Z"}),
        (MappingProxyType({"a": {1}}), {"a": [1]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_fixed_list(value: object, expected: object) -> None:
    """JSON: a value of each type of the list has one form, alone and in any nesting."""
    assert sent({"value": value}) == {"value": expected}
    assert sent([value]) == [expected]
    assert sent(Point([Attrs(Point(value))])) == {"x": [{"x": {"x": expected}, "_hidden": 2}]}


def test_in_a_struct() -> None:
    """JSON: what msgspec does not know is taken as it is elsewhere, and its keys are text."""
    item = Struct({7: Decimal(1), UUID(int=1): 2}, Model(x=datetime(2026, 1, 2, tzinfo=UTC)))
    assert sent(item) == {
        "type": "struct",
        "someField": {"7": "1", str(UUID(int=1)): 2},
        "leftOut": {"x": "2026-01-02T00:00:00Z"},
    }


@pytest.mark.parametrize(
    "value",
    [timedelta(1), object(), b"bytes", range(3), Color, Attrs, Struct, Model, Point],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_all_else(value: object) -> None:
    """JSON: what is not on the list is refused by its name, and so is a class."""
    with pytest.raises(TypeError, match=f"no JSON for {type(value).__qualname__}: yield what json"):
        sent({"x": [value]})


@pytest.mark.parametrize("value", [object(), range(3), Color, Struct, Model])
@pytest.mark.parametrize("around", [Struct, Attrs, Point])
def test_all_else_in_a_class(value: object, around: Callable[[Any], object]) -> None:
    """JSON: so it is as the attribute of what is on the list."""
    with pytest.raises(TypeError, match=f"no JSON for {type(value).__qualname__}: yield what json"):
        sent(around(value))


@pytest.mark.parametrize(
    "profile", [BROWSER, OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC], ids=lambda profile: profile.name
)
class TestEncoder:
    def test_for_others(self, profile: Profile) -> None:
        """JSON: the encoder of a profile is asked for what is not on the list, wherever it is."""

        def encoder(value: object) -> object:
            assert isinstance(value, timedelta)
            return {value.total_seconds()}

        mine = replace(profile, encoder=encoder)
        item = {"type": "a", "x": [Point(timedelta(1)), UUID(int=1)]}
        expected = {"type": "a", "x": [{"x": [86400.0]}, str(UUID(int=1))]}
        assert sent(item, mine) == expected
        # A copy has it, too, and the profile that it was made of has none.
        assert sent(item, replace(mine, headers={})) == expected
        with pytest.raises(TypeError, match="no JSON for timedelta"):
            profile.encode(item)

    def test_refuses(self, profile: Profile) -> None:
        """JSON: what an encoder raises is raised."""

        def encoder(value: object) -> object:
            raise TypeError("not this")

        mine = replace(profile, encoder=encoder)
        with pytest.raises(TypeError, match="not this"):
            mine.encode({"type": "a", "x": object()})


@pytest.mark.parametrize("mine", [RAW, Profile("mine", event_of=lambda item: BROWSER.encode(item))])
def test_encoder_of_nothing(mine: Profile) -> None:
    """Misuse: an encoder where the profile makes no JSON would never be asked."""
    with pytest.raises(ValueError, match="but event_of makes its own: write ServerSentEvent"):
        replace(mine, encoder=str)


@given(texts)
def test_one_line_for_every_reader(text: str) -> None:
    """Web: JSON has no end of a line in it, not even one that ``str.splitlines()`` knows."""
    [line] = to_json({"text": text, "\u2028": ["\x85"]}).splitlines()
    assert json.loads(line) == {"text": text, "\u2028": ["\x85"]}
