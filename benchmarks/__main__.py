"""Run the measurements: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

from . import cancel_latency, cost_per_item, growth, many_streams
from .report import Result, machine, text, write_json

#: Each is a module with a ``measure(*, quick)`` that returns a :class:`~.report.Result`.
MEASUREMENTS: dict[str, ModuleType] = {
    "B1": cost_per_item,
    "B2": growth,
    "B3": many_streams,
    "B4": cancel_latency,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that all of it runs")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="these measurements")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    arguments = parser.parse_args()

    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()), end="\n\n", flush=True)
    results: list[Result] = []
    for key in arguments.only or MEASUREMENTS:
        results.append(MEASUREMENTS[key].measure(quick=arguments.quick))
        print(text(results[-1]), flush=True)
    if arguments.json:
        write_json(arguments.json, about, results)


if __name__ == "__main__":
    main()
