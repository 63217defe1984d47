"""One failure for each cause, whatever the interruption and the backend."""

from __future__ import annotations

from dataclasses import dataclass

from .backend import Backend
from .findings import Finding
from .places import Place, name_of
from .points import Point
from .record import Record
from .report import Failure
from .run import Kind


@dataclass(frozen=True)
class _Sight:
    """A finding in one run, without what the run holds."""

    what: str
    backend: Backend
    strikes: tuple[tuple[Point, Kind], ...]
    asked_in: Place | None


class Folding:
    """
    Collects findings.

    :param ignored: names of what is not reported
    """

    def __init__(self, ignored: frozenset[str]) -> None:
        self._ignored = ignored
        self._sights: dict[str, list[_Sight]] = {}

    def add(self, record: Record, findings: list[Finding]) -> bool:
        """Add the findings of one run. Returns whether any of them is reported."""
        found = [finding for finding in findings if not self._ignored.intersection(finding.names)]
        for finding in found:
            sight = _Sight(finding.what, record.run.backend, record.strikes, record.asked_in)
            self._sights.setdefault(finding.cause, []).append(sight)
        return bool(found)

    def failures(self, points: list[Point]) -> list[Failure]:
        """
        Return one failure for each cause.

        :param points: all points, in the order in which the source comes there
        """
        order = {point: number for number, point in enumerate(points)}
        return [_failure(sights, order) for sights in self._sights.values()]


def _failure(sights: list[_Sight], order: dict[Point, int]) -> Failure:
    # First what takes fewer interruptions: it says more.
    sights = sorted(
        sights, key=lambda s: (len(s.strikes), [order.get(point, 0) for point, _ in s.strikes])
    )
    shown = sights[0]
    struck = [sight for sight in sights if len(sight.strikes) == len(shown.strikes)]
    all_backends: list[Backend] = [sight.backend for sight in sights]
    backends = tuple(dict.fromkeys(all_backends))
    if not shown.strikes:
        return Failure(shown.what, backends=backends, runs=len(sights))
    inner = None if shown.asked_in is None else shown.asked_in.inner
    return Failure(
        shown.what,
        points=tuple(dict.fromkeys(str(sight.strikes[0][0]) for sight in struck)),
        text=shown.strikes[0][0].text,
        inner=None if inner is None else name_of(inner),
        kinds=tuple(dict.fromkeys(sight.strikes[0][1] for sight in struck)),
        backends=backends,
        again_at=str(shown.strikes[1][0]) if len(shown.strikes) > 1 else None,
        runs=len(sights),
    )
