"""The table of scenarios: each row has a test, and who names a row names one that exists."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def scenarios(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What makes the page of them, which is no part of the package."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.delitem(sys.modules, "_scenarios", raising=False)
    return __import__("_scenarios")


def test_page(scenarios: Any) -> None:
    """Docs: each row is shown by a test, and the page says by which."""
    page = scenarios.page(scenarios.groups())
    assert "| C12 | source waiting in a task group's `__aexit__`; token fires |" in page
    assert "](#tests-c12) |" in page
    tests = scenarios.tests_page(scenarios.groups())
    assert "(tests-l1)=\n### L1\n" in tests
    assert "`_testing/test_ourselves.py`: `test_combinators`" in tests


def test_names(scenarios: Any) -> None:
    """Docs: each test that is named is one of the suite, in the file that is named with it."""
    for group in scenarios.groups():
        for row in group.rows:
            for file, names in row.tests.items():
                source = (ROOT / "tests" / file).read_text(encoding="utf-8")
                assert all(f"def {name.rpartition('.')[2]}(" in source for name in names)


def test_row_without_a_test(scenarios: Any) -> None:
    """Docs: a row that no test shows fails the build, by its id."""
    groups = scenarios.groups()
    groups[0].rows.append(scenarios.Row("C99", "", "something new"))
    with pytest.raises(ValueError, match="no test shows C99"):
        scenarios.page(groups)


def test_ids_exist(scenarios: Any) -> None:
    """Docs: who names a row of one of these groups names one that is there."""
    rows = {row.id for group in scenarios.groups() for row in group.rows}
    letters = {id[0] for id in rows}
    tests = ROOT / "tests"
    named = {
        id
        for path in tests.rglob("test_*.py")
        for _, ids, _ in scenarios.shown_in(path)
        for id in ids
    }
    assert {id for id in named if id[0] in letters} <= rows


def test_ids(scenarios: Any) -> None:
    """Docs: a docstring names one row, several, or a range."""
    assert scenarios.ids_in("C1: what") == ["C1"]
    assert scenarios.ids_in("C1, L2 and G3: what") == ["C1", "L2", "G3"]
    assert scenarios.ids_in("C1 to C3: what") == ["C1", "C2", "C3"]
    assert scenarios.ids_in("What C1: is") == []


def test_backends(scenarios: Any, tmp_path: Path) -> None:
    """Docs: a marker of a test, of its class or of its module says where it runs."""
    test = (
        "import pytest\nclass TestIt:\n    @pytest.mark.trio_only\n    async def test_it(self):\n"
    )
    path = tmp_path / "test_it.py"
    path.write_text(test + '        """C1: it"""\n', encoding="utf-8")
    assert list(scenarios.shown_in(path)) == [("TestIt.test_it", ["C1"], {"Trio"})]
    marked = "pytestmark = pytest.mark.asyncio_only\n" + 'def test_it():\n    """C1: it"""\n'
    path.write_text(marked, encoding="utf-8")
    assert list(scenarios.shown_in(path)) == [("test_it", ["C1"], {"asyncio"})]
