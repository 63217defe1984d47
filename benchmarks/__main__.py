"""Measure what streamkit costs, as ratios between things that are measured side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

from . import (
    cancel_latency,
    cost_per_item,
    growth,
    imports,
    interruptions,
    many_streams,
    over_sockets,
    pages,
    protocols,
    responses,
    runs,
    shared_logs,
    telemetry,
)
from .report import Result, machine, read_json, text, write_json

#: Each is a module with a ``measure(*, quick)`` that returns a :class:`~.report.Result`.
MEASUREMENTS: dict[str, ModuleType] = {
    "B1": cost_per_item,
    "B2": growth,
    "B3": many_streams,
    "B4": cancel_latency,
    "B5": responses,
    "B5-protocols": protocols,
    "B6": over_sockets,
    "B7": runs,
    "B8": shared_logs,
    "B9": imports,
    "B10": telemetry,
    "B11": interruptions,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that all of it runs")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="these measurements")
    parser.add_argument("--load", type=Path, metavar="FILE", help="take numbers that --json wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the plots there, as SVG")
    parser.add_argument("--docs", action="store_true", help="write what docs/cost.md includes")
    arguments = parser.parse_args()
    if arguments.docs and arguments.quick:
        parser.error("numbers of --quick mean nothing: leave it out, to write the documentation")

    about, loaded = read_json(arguments.load) if arguments.load else (machine(), [])
    print(", ".join(f"{name} {value}" for name, value in about.items()), end="\n\n", flush=True)
    results: list[Result] = []
    for key in arguments.only or MEASUREMENTS:
        if arguments.load is None:
            measured = [MEASUREMENTS[key].measure(quick=arguments.quick)]
        else:
            measured = [result for result in loaded if result.key == key]
        for result in measured:
            print(text(result), flush=True)
        results += measured
        if arguments.json:
            # After each: it may be stopped before the last.
            write_json(arguments.json, about, results)
    if arguments.quick:
        print("These numbers mean nothing: --quick only sees that all of it runs.")

    if arguments.docs:
        pages.write(about, results, pages.FOLDER)
    for folder in filter(None, (arguments.plots, pages.FOLDER if arguments.docs else None)):
        # Here, so that the tables need no library for plots.
        from . import plots

        for path in plots.draw(results, folder):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
