"""The bugs that are found, with their lines; and that nothing is found where nothing is wrong."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from _testing.planted import BUGS, CLEAN, FUNCTION_BUGS, Bug, Source, World, make_of
from streamkit.testing import Interrupted, interrupt_everywhere


def lines_of(source: Source, text: str) -> tuple[str, ...]:
    """Return the names of the line in which something is written: in a source, or what it calls."""
    lines, first = inspect.getsourcelines(source)
    if not any(line.strip() == text for line in lines):
        lines, first = inspect.getsourcelines(World)
    found = [first + at for at, line in enumerate(lines) if line.strip() == text]
    assert found
    return tuple(f"planted.py:{number}#" for number in found)


@pytest.mark.parametrize("planted", [*BUGS, *FUNCTION_BUGS], ids=lambda planted: planted.__name__)
@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_found(planted: Bug, name: Any) -> None:
    """A bug is found on each backend, once, at its line, and nothing else is."""
    with pytest.raises(Interrupted) as caught:
        interrupt_everywhere(make_of(planted.source), planted.check, backends=[name], steps=200)
    failures = caught.value.report.failures
    assert [planted.found in failure.message for failure in failures] == [True], str(caught.value)
    [failure] = failures
    lines = lines_of(planted.source, planted.line)
    assert any(point.startswith(lines) for point in failure.points), str(caught.value)


def test_left_open_by_one_that_raises() -> None:
    """An exception that the run has ended with does not keep what it has left."""
    bug = next(bug for bug in BUGS if "open Memory" in bug.found)
    with pytest.raises(Interrupted) as caught:
        interrupt_everywhere(make_of(bug.source), kinds=["stop"])
    assert [bug.found in failure.message for failure in caught.value.report.failures] == [True]


@pytest.mark.parametrize("source", CLEAN, ids=lambda source: source.__name__)
def test_silent(source: Source) -> None:
    """Nothing is found in a clean source, on asyncio and in 20 orders of tasks on trio."""

    def check(run: Any, world: Any) -> None:
        assert world.connections == 0
        assert not world.lock.locked()

    for options in (
        {"backends": ["asyncio", "trio"]},
        {"backends": ["trio"], "kinds": ["stop", "cancel", "leave"], "seeds": 20},
    ):
        report = interrupt_everywhere(make_of(source), check, max_seconds=600, **options)
        assert report.failures == []
        assert report.left_out == []
        assert report.unresolved == []
        assert report.notes == []
