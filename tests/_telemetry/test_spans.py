"""Which stream a span tells of, where several ask for it, or where it cannot be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan

from streamkit._telemetry import spans
from streamkit._telemetry.spans import Place
from support.telemetry import Told

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_is_held() -> Iterator[None]:
    yield
    assert not spans._taken


class Overtaken(dict[int, Any]):
    """What is asked by two threads: the other one is there first, or right after a look."""

    def __init__(self) -> None:
        self.others: list[Place] = []
        self._is_first = True

    def other(self) -> None:
        if self._is_first:
            self._is_first = False
            self.others.append(Place())

    def __contains__(self, key: object) -> bool:
        is_there = super().__contains__(key)
        self.other()
        return is_there

    def setdefault(self, key: int, default: Any = None) -> Any:
        self.other()
        return super().setdefault(key, default)


def test_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry: of two streams that two event loops open in a span at once, it tells of one."""
    taken = Overtaken()
    monkeypatch.setattr(spans, "_taken", taken)
    with Told().span() as span:
        place = Place(span)
    (other,) = taken.others
    assert [*place.spans, *other.spans] == [span]
    place.leave()
    other.leave()
    assert not taken


class Failing(NonRecordingSpan):
    """A span that cannot be asked."""

    def is_recording(self) -> bool:
        raise LookupError("of the span")


def test_one_that_fails() -> None:
    """Telemetry: where the span of a request fails, the current one tells of a later stream."""
    with Told().span() as span:
        with pytest.raises(LookupError, match="of the span"):
            Place(Failing(INVALID_SPAN_CONTEXT))
        place = Place()
        assert place.spans == [span]
        place.leave()
