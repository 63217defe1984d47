"""Many runs: which, how fast, and what was found, each kind once."""

from __future__ import annotations

import gc
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

# These put their checks on the list.
from . import error_checks, outcome_checks, stop_checks  # noqa: F401
from .cases import Case, draw, singles, without_faults
from .checks import Finding, find
from .engine import execute, listening
from .loops import late

# A collection takes as long as some runs do. Within so many there is little garbage.
RUNS_PER_COLLECTION = 500


def look(case: Case) -> list[Finding]:
    """Run a case and return what is wrong with it."""
    return find(case, execute(case))


@dataclass
class Report:
    """What a campaign has found."""

    runs: int = 0
    seconds: float = 0.0
    #: The first finding of each kind, and how many there were.
    first: dict[tuple[str, ...], Finding] = field(default_factory=dict)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, findings: Iterable[Finding]) -> None:
        """Count findings, and keep those of a new kind."""
        for finding in findings:
            known = self.first.setdefault(finding.kind, finding)
            # What takes fewer faults says more.
            if len(finding.case.faults) < len(known.case.faults):
                self.first[finding.kind] = finding
            self.counts[finding.kind] += 1

    def _is_covered(self, finding: Finding) -> bool:
        """Tell whether less has the same effect on the same source."""
        causes = Counter(finding.case.causes)
        return any(
            other.check == finding.check
            and other.case.source == finding.case.source
            and Counter(other.case.causes) < causes
            for other in self.first.values()
        )

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind of finding, with the id that shows it again."""
        for kind, finding in sorted(self.first.items()):
            if self._is_covered(finding):
                continue
            yield f"{self.counts[kind]:6} {finding.check}: {finding.details}\n       {finding.case}"
        per_second = self.runs / self.seconds if self.seconds else math.inf
        yield f"{self.runs} runs, {per_second:.0f} a second, {len(self.first)} kinds of findings"


def sample(backend: str, runs: int, seed: int) -> Iterator[Case]:
    """
    Yield so many cases: all combinations without a fault as often as the number allows, and with
    one or two.
    """
    random = Random(seed)
    lengths: dict[Case, int] = {}
    combinations = without_faults(backend)
    while runs > 0:
        random.shuffle(combinations)
        for case in combinations[:runs]:
            if case not in lengths:
                lengths[case] = execute(case).steps.number
                yield case
            else:
                yield draw(case, lengths[case], random)
        runs -= len(combinations)


def every_single(backend: str) -> Iterator[Case]:
    """Yield each combination with each fault before each of its steps."""
    for case in without_faults(backend):
        yield case
        yield from singles(case, execute(case).steps.number)


def _collect(batch: list[Case], report: Report) -> None:
    """
    Collect the garbage of some runs. If it complains, see which of them it was.

    :param batch: those in which nothing was found, for garbage of the others is no wonder

    """
    if _complaint() is not None:
        _search(batch, report)


def _search(cases: list[Case], report: Report) -> None:
    for case in cases:
        execute(case)
    complaint = _complaint()
    if complaint is None:
        return
    if len(cases) == 1:
        report.add([Finding("garbage", cases[0], complaint)])
        return
    middle = len(cases) // 2
    _search(cases[:middle], report)
    _search(cases[middle:], report)


def _complaint() -> str | None:
    with listening() as heard:
        gc.collect()
    complaints = [details for _, details in heard] + late
    late.clear()
    return complaints[0] if complaints else None


def campaign(cases: Iterable[Case]) -> Report:
    """
    Run cases, and report what was found.


    """
    report = Report()
    began = time.perf_counter()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        batch: list[Case] = []
        for case in cases:
            found = look(case)
            report.add(found)
            report.runs += 1
            if not found:
                batch.append(case)
            if report.runs % RUNS_PER_COLLECTION == 0:
                _collect(batch, report)
                batch.clear()
        _collect(batch, report)
    finally:
        if was_enabled:
            gc.enable()
    report.seconds = time.perf_counter() - began
    return report
