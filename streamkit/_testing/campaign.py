"""
All runs of one subject: undisturbed, then interrupted at each point by each kind, on each backend.

Two undisturbed runs show what is normal; five on trio, which chooses the order of tasks. A point in
any of them is a point.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .backend import Backend, Clock
from .findings import Undisturbed, findings, of_undisturbed
from .folding import Folding
from .leftovers import collected, frozen
from .loops import run_fresh
from .once import Strikes, Terms, check_run, one_run
from .points import Point, merged
from .record import Record
from .report import Report
from .run import OF_FUNCTIONS, Kind
from .watchdog import Watchdog

UNDISTURBED: dict[Backend, int] = {"asyncio": 2, "trio": 5}


@dataclass
class Campaign:
    """
    What to do.

    :ivar make: makes what is interrupted
    :ivar check: looks at each run
    """

    make: Callable[[], Any]
    check: Callable[..., Any] | None
    kinds: tuple[Kind, ...]
    backends: tuple[Backend, ...]
    clock: Clock
    again: bool
    at: str | None
    seeds: int
    steps: int
    max_runs: int
    max_seconds: float
    ignore: frozenset[str]
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self._folding = Folding(self.ignore)
        self._began = time.monotonic()
        self._points: list[Point] = []
        self._unresolved: dict[str, None] = {}

    def run(self) -> Report:
        """Do all runs, and return what was found."""
        with frozen(), Watchdog() as self._watchdog:
            for backend in self.backends:
                for seed in range(self.seeds if backend == "trio" else 1):
                    self._run_on(backend, seed)
        report = self.report
        report.points = [*map(str, self._points)]
        report.failures = self._folding.failures(self._points)
        report.unresolved = [*self._unresolved]
        report.seconds = time.monotonic() - self._began
        return report

    def _run_on(self, backend: Backend, seed: int) -> None:
        terms = Terms(self.make, self.steps, self.clock, self.max_seconds)
        records: list[Record] = []
        while len(records) < UNDISTURBED[backend] and not any(each.stuck_at for each in records):
            records.append(self._one(terms, (), backend, seed + len(records)))
        undisturbed = Undisturbed(records)
        terms.undisturbed, terms.own = undisturbed.items, undisturbed.cancelled_at
        # Whatever these runs have imported and cached is frozen, because it stays anyway. Done
        # after later runs, this would keep the runs themselves, with their event loops: cycles in
        # frozen objects are not collected.
        gc.freeze()
        wrong = [*of_undisturbed(undisturbed)]
        self._folding.add(undisturbed.records[0], wrong)
        if records[-1].stuck_at is not None:
            return
        if undisturbed.order == "different":
            note = f"the items, for each run has others ({backend})"
            if note not in self.report.notes:
                self.report.notes.append(note)
        for record in undisturbed.records:
            self._note_unresolved(record)
        todo = list(self._todo(undisturbed, backend))
        while todo and not self._must_end:
            strikes = todo.pop(0)
            record = self._one(terms, strikes, backend, seed)
            self._look_at(record, undisturbed)
            # The first kind is enough: the clean-up that follows is the same for all kinds.
            if self.again and len(strikes) == 1 and strikes[0][1] == self._kinds(undisturbed)[0]:
                second: Kind = strikes[0][1] if not record.is_stream else "cancel"
                points = dict.fromkeys(record.trace_after)
                todo[:0] = [(strikes[0], (point, second)) for point in points]
        self._leave_out(todo, backend)

    def _todo(self, undisturbed: Undisturbed, backend: Backend) -> Iterator[Strikes]:
        points = merged(record.trace for record in undisturbed.records)
        outside = {point for record in undisturbed.records for point in record.outside}
        points = [point for point in points if point not in outside]
        if self.at is not None:
            points = [point for point in points if point.is_meant_by(self.at)]
        known = set(self._points)
        self._points += [point for point in points if point not in known]
        for point in points:
            for kind in self._kinds(undisturbed):
                if kind != "native" or backend == "asyncio":
                    yield ((point, kind),)

    def _kinds(self, undisturbed: Undisturbed) -> list[Kind]:
        is_stream = undisturbed.records[0].is_stream
        return [kind for kind in self.kinds if is_stream or kind in OF_FUNCTIONS]

    def _one(self, terms: Terms, strikes: Strikes, backend: Backend, seed: int) -> Record:
        records: list[Record] = []

        async def main() -> None:
            async with one_run(terms, strikes) as (record, given):
                records.append(record)
                await check_run(self.check, record, given)

        with self._watchdog.watching(terms), collected() as unclosed:
            run_fresh(main, backend, self.clock, seed)
        record = records[0]
        record.left += [*record.heard, *unclosed]
        self.report.runs += 1
        return record

    def _look_at(self, record: Record, undisturbed: Undisturbed) -> None:
        kind = record.strikes[0][1]
        if not record.was_asked:
            where = ", then ".join(str(point) for point, _ in record.strikes)
            self.report.left_out.append(
                f"{where} {kind} ({record.run.backend}): this time, it did not come there"
            )
            return
        if self._note_unresolved(record):
            return
        count = self.report.counts.setdefault((record.run.backend, kind), [0, 0])
        count[0] += 1
        count[1] += self._folding.add(record, [*findings(record, undisturbed)])

    def _note_unresolved(self, record: Record) -> bool:
        for point, what in record.outside.items():
            text = f"{point} waits for {what}, which takes real time: use clock='real'"
            self._unresolved.setdefault(text)
        return bool(record.outside)

    @property
    def _must_end(self) -> bool:
        is_late = time.monotonic() - self._began >= self.max_seconds
        return is_late or self.report.runs >= self.max_runs

    def _leave_out(self, rest: list[Strikes], backend: Backend) -> None:
        why = "max_runs" if self.report.runs >= self.max_runs else "max_seconds"
        for strikes in rest:
            point, kind = strikes[0]
            self.report.left_out.append(f"{point} {kind} ({backend}): beyond {why}")
