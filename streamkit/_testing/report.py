"""What interrupting something everywhere has found, as the caller sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .backend import Backend
from .run import Kind


@dataclass(frozen=True)
class Failure:
    """What is wrong, and where it shows. One cause is one failure, at however many points."""

    #: What is wrong.
    message: str
    #: Where it shows, as ``"file:line#n"``, in the order in which the source gets there. Empty if
    #: it shows without an interruption.
    points: tuple[str, ...] = ()
    #: The source text at the first of these points.
    text: str = ""
    #: The innermost line of a library below that, or ``None``.
    inner: str | None = None
    #: The kinds of interruption with which it shows.
    kinds: tuple[Kind, ...] = ()
    #: The backends on which it shows.
    backends: tuple[Backend, ...] = ()
    #: Where a second interruption was needed, or ``None`` if one was enough.
    again_at: str | None = None
    #: How many runs showed it.
    runs: int = 0

    def __str__(self) -> str:
        backends = self.backends[0] if len(self.backends) == 1 else "both backends"
        if not self.points:
            return f"undisturbed ({backends}): {self.message}"
        first, kinds = self.points[0], ", ".join(self.kinds)
        again = f", again at {self.again_at}" if self.again_at else ""
        more = f", and at {len(self.points) - 1} more" if len(self.points) > 1 else ""
        lines = [f"{first}  {self.text}  {kinds}{again} ({backends}){more}: {self.message};"]
        if self.inner is not None:
            lines.append(f"    in {self.inner}")
        lines.append(f'    again: at="{first}", kinds={{"{self.kinds[0]}"}}')
        return "\n".join(lines)


@dataclass
class Report:
    """What :func:`interrupt_everywhere` has done, and what it has found."""

    #: How many runs there were, including the undisturbed ones.
    runs: int = 0
    #: The points at which the source was interrupted, as ``"file:line#n"``.
    points: list[str] = field(default_factory=list[str])
    failures: list[Failure] = field(default_factory=list[Failure])
    #: What could not be looked at in virtual time, with the reason.
    unresolved: list[str] = field(default_factory=list[str])
    #: What was not looked at, because there was no time, or the run never got there.
    left_out: list[str] = field(default_factory=list[str])
    #: What is not checked, and why.
    notes: list[str] = field(default_factory=list[str])
    #: How long it took, in real seconds.
    seconds: float = 0.0
    #: How many runs there were of each kind on each backend, and how many of them are failures.
    counts: dict[tuple[Backend, Kind], list[int]] = field(
        default_factory=dict[tuple[Backend, Kind], list[int]]
    )

    def __str__(self) -> str:
        return "\n".join([*map(str, self.failures), *self._table()])

    def _table(self) -> Iterator[str]:
        yield (
            f"{self.runs} runs, {len(self.points)} points, {len(self.failures)} failures, "
            f"{len(self.unresolved)} unresolved, {len(self.left_out)} left out; "
            f"{self.seconds:.1f} s"
        )
        for (backend, kind), (runs, failed) in self.counts.items():
            yield f"  {backend:8} {kind:8} {runs:5} runs  {failed:4} failed"
        for title, lines in ("unresolved", self.unresolved), ("left out", self.left_out):
            for line in lines[:_MOST]:
                yield f"  {title}: {line}"
            if len(lines) > _MOST:
                yield f"  {title}: {len(lines) - _MOST} more"
        for note in self.notes:
            yield f"  not checked: {note}"


_MOST = 10


class Interrupted(AssertionError):
    """
    Raised when something is wrong in a run that was interrupted.

    :ivar report: what was found
    """

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report: Report = report
