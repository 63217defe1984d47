"""
Interruptions in the event loop of the test itself, one case after another.

Each case is held in a task of its own, and is torn down when the next one is asked for. The body of
the loop is the check.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from .backend import on_trio, running_backend
from .campaign import UNDISTURBED
from .everywhere import check_names
from .findings import Undisturbed, findings, of_undisturbed
from .folding import Folding
from .lasting import Lasting
from .leftovers import collected, hearing
from .once import Strikes, Terms, one_run
from .points import Point, merged
from .record import Fault, Record, says_that_it_fails
from .report import Interrupted, Report
from .run import KINDS, OF_FUNCTIONS, Kind, Run


class Case:
    """
    One case of :func:`interruptions`: a run that is over but not yet torn down.

    ``with case:`` around the assertions keeps their failures for the end, with the point.
    """

    def __init__(self, run: Run, given: tuple[Any, ...], record: Record) -> None:
        #: The run.
        self.run: Run = run
        #: What ``make`` gave besides the source, or ``None``.
        self.given: Any = given[0] if given else None
        self._record = record

    def __repr__(self) -> str:
        return f"<Case {self.run}>"

    def __enter__(self) -> Self:
        """Begin the assertions."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Keep an exception for the end of all cases."""
        if exc is None or not says_that_it_fails(exc):
            return False
        self._record.check_error = Fault.of(exc)
        return True


def interruptions(
    make: Callable[[], Any],
    *,
    kinds: Collection[Kind] = KINDS,
    at: str | None = None,
    steps: int = 10_000,
    max_runs: int = 5_000,
    max_seconds: float = 30.0,
    ignore: Collection[str] = (),
) -> Interruptions:
    """
    Interrupt a source at each of its waits, in the event loop and on the clock of the test.

    This is for objects that belong to that loop, such as a pool in a fixture. The body of the loop
    is the check, and nothing that ``make`` holds is torn down before it is over::

        async for case in interruptions(make):
            with case:
                assert case.given.open_connections == 0

    Each run has a task of its own in that loop, so ``"native"`` does not cancel a task of the test.

    :param make: called for each run. Here as for the other parameters, :func:`interrupt_everywhere`
        says more
    :param kinds: the ways to interrupt it
    :param at: only the points with this name, as in a report
    :param steps: how often the source may wait after it was told
    :param max_runs: how many runs there may be
    :param max_seconds: real seconds after which no further run begins
    :param ignore: qualified names of tasks, generators, streams and exceptions that are intended
    :return: an async iterator of :class:`Case`, which raises :exc:`Interrupted` at its end, if
        anything was wrong. After a ``break``, call its ``aclose()``, or enter it as a block
    """
    check_names("kind", kinds, KINDS)
    return Interruptions(
        Terms(make, steps, "real", patience=math.inf, owns_loop=False),
        tuple(kind for kind in KINDS if kind in kinds),
        at,
        max_runs,
        max_seconds,
        frozenset(ignore),
    )


class Interruptions:
    """What :func:`interruptions` returns."""

    def __init__(
        self,
        terms: Terms,
        kinds: tuple[Kind, ...],
        at: str | None,
        max_runs: int,
        max_seconds: float,
        ignore: frozenset[str],
    ) -> None:
        #: What was done. Complete at the end.
        self.report: Report = Report()
        self._terms = terms
        self._kinds = kinds
        self._at = at
        self._max_runs = max_runs
        self._max_seconds = max_seconds
        self._folding = Folding(ignore)
        self._began: float | None = None
        self._first: list[Record] = []
        self._undisturbed: Undisturbed | None = None
        self._todo: list[Strikes] = []
        self._points: list[Point] = []
        self._held: Lasting[Any] | None = None
        self._unclosed: AbstractContextManager[Any] | None = None
        self._found: list[str] = []
        self._record: Record | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Tear down what the last case holds."""
        await self.aclose()

    async def aclose(self) -> None:
        """Tear down what the last case holds, unless that was done."""
        held, self._held = self._held, None
        if held is not None:
            await held.__aexit__(None, None, None)
            assert self._unclosed is not None
            assert self._record is not None
            with hearing(self._record.heard):
                self._unclosed.__exit__(None, None, None)
            self._record.left += [*self._record.heard, *self._found]

    async def __anext__(self) -> Case:
        """
        Tear down the last case, and make the next one.

        :raises Interrupted: at the end, if anything was wrong
        """
        await self._end_last()
        strikes = self._next_strikes()
        if strikes is None:
            self._end()
            raise StopAsyncIteration
        self._unclosed = collected()
        self._found = self._unclosed.__enter__()
        held = Lasting(one_run(self._terms, strikes))
        self._record, given = await held.__aenter__()
        self._held = held
        self.report.runs += 1
        return Case(self._record.run, given, self._record)

    async def _end_last(self) -> None:
        record, self._record = self._record, self._record
        await self.aclose()
        if record is None:
            return
        self._record = None
        if self._undisturbed is None:
            self._first.append(record)
        elif not record.was_asked:
            self.report.left_out.append(f"{record.strikes[0][0]}: it did not come there")
        else:
            count = self.report.counts.setdefault((running_backend(), record.strikes[0][1]), [0, 0])
            count[0] += 1
            count[1] += self._folding.add(record, [*findings(record, self._undisturbed)])

    def _next_strikes(self) -> Strikes | None:
        if self._began is None:
            self._began = time.monotonic()
            gc.collect()
        if len(self._first) < UNDISTURBED[running_backend()]:
            return ()
        if self._undisturbed is None:
            self._undisturbed = Undisturbed(self._first)
            self._folding.add(self._first[0], [*of_undisturbed(self._undisturbed)])
            self._plan(self._undisturbed)
        is_late = time.monotonic() - self._began >= self._max_seconds
        if self._todo and (is_late or self.report.runs >= self._max_runs):
            self.report.left_out += [f"{strikes[0][0]} {strikes[0][1]}" for strikes in self._todo]
            return None
        return self._todo.pop(0) if self._todo else None

    def _plan(self, undisturbed: Undisturbed) -> None:
        self._terms.undisturbed = undisturbed.items
        self._terms.own = undisturbed.cancelled_at
        points = merged(record.trace for record in undisturbed.records)
        self._points = [p for p in points if self._at is None or p.is_meant_by(self._at)]
        is_stream = undisturbed.records[0].is_stream
        for point in self._points:
            for kind in self._kinds:
                if kind == "native" and on_trio():
                    continue
                if is_stream or kind in OF_FUNCTIONS:
                    self._todo.append(((point, kind),))

    def _end(self) -> None:
        report = self.report
        report.points = [*map(str, self._points)]
        report.failures = self._folding.failures(self._points)
        assert self._began is not None
        report.seconds = time.monotonic() - self._began
        if report.failures:
            raise Interrupted(report)
