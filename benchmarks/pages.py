"""The parts of the documentation that are measured: one file for each result, to be included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .report import Result, Table

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "measured"


def write(about: dict[str, str], results: Sequence[Result], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    libraries = ", ".join(f"{name} {value}" for name, value in about.items())
    (folder / "machine.inc").write_text(f"Measured with {libraries}.\n", encoding="utf-8")
    for result in results:
        for name, tables in ("tables", result.tables), ("ratios", result.ratio_tables()):
            text = "\n".join(_markdown(table) for table in tables)
            (folder / f"{result.key}-{name}.inc").write_text(text, encoding="utf-8")


def _markdown(table: Table) -> str:
    ruler = ["---", *("--:" for _ in table.columns[1:])]
    # A number and its sign stay on one line.
    cells = [[what, *(cell.replace(" ", "\u00a0") for cell in row)] for what, *row in table.rows]
    rows = [f"| {' | '.join(row)} |" for row in (table.columns, ruler, *cells)]
    return "\n".join([f"**{table.title}**", "", *rows, ""])
