"""Run the injector: ``nox -s inject -- --backend trio --runs 1000``; ``--help`` says more."""

from __future__ import annotations

import argparse
import logging
import sys

from .campaign import campaign, every_single, sample
from .cases import Case
from .checks import find
from .engine import execute
from .loops import BACKENDS

# anyio has its scopes in a set on asyncio: which of them is cancelled first is not in the id.
TRIES = 30


def main() -> int:
    """Do what the command line says. Returns 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="nox -s inject --", description=__doc__)
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="default: all")
    parser.add_argument("--runs", type=int, default=100_000, help="on each backend")
    parser.add_argument("--seed", type=int, default=1, help="which runs are drawn")
    parser.add_argument(
        "--every-single", action="store_true", help="one fault before each step, nothing drawn"
    )
    parser.add_argument("--replay", metavar="ID", help="run one case and tell what happens in it")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(Case.parse(arguments.replay))
    # Many a source is cut in these runs, and says so.
    logging.getLogger("streamkit").addHandler(logging.NullHandler())
    found = False
    for backend in arguments.backend or BACKENDS:
        if arguments.every_single:
            cases = every_single(backend)
        else:
            cases = sample(backend, arguments.runs, arguments.seed)
        report = campaign(cases)
        print(f"{backend}:")
        for line in report.lines():
            print(line)
        sys.stdout.flush()
        found = found or bool(report.first)
    return int(found)


def replay(case: Case) -> int:
    """Print what happens in a run, step by step, and what is wrong with it."""
    for _ in range(TRIES):
        record = execute(case)
        findings = find(case, record)
        if findings:
            break
    for step, time, text in record.notes:
        print(f"step {step:3}  {time - record.notes[0][1]:8.2f} s  {text}")
    print(f"received {record.received} of {record.produced}; {record.outcome}")
    for finding in findings:
        print(f"{finding.check}: {finding.details}")
    if not findings:
        print("nothing is wrong")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
