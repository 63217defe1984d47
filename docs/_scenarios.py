"""
The table of scenarios, as two pages: each row with what holds and on which backends, and the tests
that show it, by name.

The rows are in ``tests/scenarios.toml``. A test names those that it shows at the beginning of its
docstring, as in ``C12: ...`` or ``L1, L3: ...``. A row that no test names fails the build.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

TESTS = Path(__file__).resolve().parents[1] / "tests"

_NAMED = re.compile(r"((?:[A-Z]\d+(?: to [A-Z]\d+)?(?:, | and )?)+):")
_ID = re.compile(r"([A-Z])(\d+)(?: to [A-Z](\d+))?")
_ONLY = {"asyncio_only": "asyncio", "trio_only": "Trio"}


@dataclass
class Row:
    """One scenario."""

    id: str
    steps: str
    holds: str
    #: The names of the tests that show it, by their file.
    tests: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    #: The backends on which one of them runs.
    backends: set[str] = field(default_factory=set[str])


@dataclass
class Group:
    """The scenarios of one subject."""

    title: str
    text: str
    rows: list[Row]


def groups() -> list[Group]:
    """Read the table, and who shows what is in it."""
    read = tomllib.loads((TESTS / "scenarios.toml").read_text(encoding="utf-8"))
    found = [
        Group(
            group["title"],
            group.get("text", ""),
            [Row(id, row.get("steps", ""), row["holds"]) for id, row in group["rows"].items()],
        )
        for group in read.values()
    ]
    rows = {row.id: row for group in found for row in group.rows}
    for path in sorted(TESTS.rglob("test_*.py")):
        file = path.relative_to(TESTS).as_posix()
        for name, ids, backends in shown_in(path):
            for row in (rows[id] for id in ids if id in rows):
                row.tests.setdefault(file, []).append(name)
                row.backends |= backends
    return found


Shown: TypeAlias = tuple[str, list[str], set[str]]


def shown_in(path: Path) -> Iterator[Shown]:
    """Yield the name of each test in a file, its scenarios, and the backends on which it runs."""
    yield from _shown_by(ast.parse(path.read_text(encoding="utf-8")), "")


def _shown_by(node: ast.Module | ast.ClassDef, marks: str, prefix: str = "") -> Iterator[Shown]:
    marks += " ".join(
        ast.unparse(each)
        for each in node.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "pytestmark"
    )
    for each in node.body:
        if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            own = marks + " ".join(map(ast.unparse, each.decorator_list))
            if isinstance(each, ast.ClassDef):
                yield from _shown_by(each, own, f"{prefix}{each.name}.")
            elif each.name.startswith("test"):
                only = {name for mark, name in _ONLY.items() if mark in own}
                ids = ids_in(ast.get_docstring(each) or "")
                yield prefix + each.name, ids, only or {*_ONLY.values()}


def ids_in(docstring: str) -> list[str]:
    """Return the ids that a docstring begins with."""
    named = _NAMED.match(docstring)
    ids: list[str] = []
    for letter, first, last in _ID.findall(named[1] if named else ""):
        ids += [f"{letter}{number}" for number in range(int(first), int(last or first) + 1)]
    return ids


def page(found: list[Group]) -> str:
    """
    Return the tables.

    :raises ValueError: if a row has no test
    """
    missing = [row.id for group in found for row in group.rows if not row.tests]
    if missing:
        raise ValueError(f"no test shows {', '.join(missing)}: begin its docstring with the id")
    return "\n".join(line for group in found for line in _table(group))


def _table(group: Group) -> Iterator[str]:
    yield from (f"## {group.title}", "")
    if group.text:
        yield from (group.text, "")
    yield "| | what happens | what holds | backends | tests |"
    yield "| --- | --- | --- | --- | --- |"
    for row in group.rows:
        backends = "both" if len(row.backends) > 1 else row.backends.copy().pop()
        count = sum(map(len, row.tests.values()))
        cells = [row.id, row.steps, row.holds, backends, f"[{count}](#tests-{row.id.lower()})"]
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def tests_page(found: list[Group]) -> str:
    """Return the names of the tests, row by row: what the numbers in the tables lead to."""
    return "\n".join(line for group in found for line in _names(group))


def _names(group: Group) -> Iterator[str]:
    yield from (f"## {group.title}", "")
    for row in group.rows:
        yield from (f"(tests-{row.id.lower()})=", f"### {row.id}", "", row.steps or row.holds, "")
        for file, names in row.tests.items():
            yield f"- `{file}`: {', '.join(f'`{name}`' for name in names)}"
        yield ""


def write(folder: Path) -> None:
    """Write the tables, and the names of the tests, into files that pages include."""
    folder.mkdir(parents=True, exist_ok=True)
    found = groups()
    (folder / "scenarios.inc").write_text(page(found), encoding="utf-8")
    (folder / "scenario-tests.inc").write_text(tests_page(found), encoding="utf-8")
