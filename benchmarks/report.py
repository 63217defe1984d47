"""The form of every result: tables, ratios with what they must and aim to be, text and JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from statistics import quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = (
    "anyio-streamkit",
    "anyio",
    "trio",
    "uvloop",
    "aiostream",
    "starlette",
    "sse-starlette",
    "fastapi",
    "uvicorn",
    "httptools",
    "opentelemetry-sdk",
)


@dataclass(frozen=True)
class Ratio:
    """
    The cost of one thing relative to another: the median and the quartiles of all rounds.

    :param what: which two things
    :param must: the most that it may be
    :param aim: the most that it should be
    """

    what: str
    value: float
    low: float
    high: float
    must: float | None = None
    aim: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        costs: Sequence[float],
        others: Sequence[float],
        must: float | None = None,
        aim: float | None = None,
    ) -> Ratio:
        """Compare costs with those that were measured next to them."""
        ratios = [cost / other for cost, other in zip(costs, others, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        return cls(what, middle, low, high, must, aim)

    @classmethod
    def once(
        cls, what: str, value: float, must: float | None = None, aim: float | None = None
    ) -> Ratio:
        """Judge what is counted, and the same each time."""
        return cls(what, value, value, value, must, aim)

    @property
    def verdict(self) -> str:
        if self.aim is not None and self.value <= self.aim:
            return "aim"
        if self.must is None:
            return ""
        return "must" if self.value <= self.must else "MISSED"


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass
class Result:
    """One measurement, with all that is needed to print it and to draw it."""

    key: str
    title: str
    tables: list[Table] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    #: Numbers for the plots, by name.
    data: dict[str, Any] = field(default_factory=dict)

    def ratio_tables(self) -> list[Table]:
        """Return its ratios as a table: first those that must be something, then the others."""
        judged = [ratio for ratio in self.ratios if ratio.must is not None]
        others = [ratio for ratio in self.ratios if ratio.must is None]
        tables = [_judged(judged)] if judged else []
        return [*tables, _for_comparison(others)] if others else tables

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Result:
        tables = [Table(**table) for table in form["tables"]]
        ratios = [Ratio(**ratio) for ratio in form["ratios"]]
        return cls(form["key"], form["title"], tables, ratios, form["data"])


def number(value: float) -> str:
    """Write a number with three digits that matter."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _judged(ratios: Sequence[Ratio]) -> Table:
    rows = [
        [
            *_row(ratio),
            f"≤ {ratio.must:.3g}",
            "" if ratio.aim is None else f"≤ {ratio.aim:g}",
            ratio.verdict,
        ]
        for ratio in ratios
    ]
    return Table("Ratios", ["ratio of", "median", "quartiles", "must", "aim", "met"], rows)


def _for_comparison(ratios: Sequence[Ratio]) -> Table:
    return Table("For comparison", ["ratio of", "median", "quartiles"], [_row(r) for r in ratios])


def _row(ratio: Ratio) -> list[str]:
    quartiles = f"{number(ratio.low)} - {number(ratio.high)}" if ratio.low != ratio.high else ""
    return [ratio.what, number(ratio.value), quartiles]


def text(result: Result) -> str:
    """Write a result for a terminal."""
    lines = [f"{result.key}. {result.title}", ""]
    for table in [*result.tables, *result.ratio_tables()]:
        lines += [table.title, ""]
        cells = [table.columns, *table.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, ["-" * width for width in widths])
        for row in cells:
            first, *rest = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join([first, *rest]).rstrip())
        lines.append("")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """Tell what the numbers were measured on. No name of it."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "not installed"
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "CPUs": str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()),
        **libraries,
    }


def write_json(path: Path, about: dict[str, str], results: Sequence[Result]) -> None:
    form = {"machine": about, "results": [asdict(result) for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(form, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> tuple[dict[str, str], list[Result]]:
    form = json.loads(path.read_text(encoding="utf-8"))
    return form["machine"], [Result.from_json(result) for result in form["results"]]
