"""What is known about one run when it is over."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from .._core.exceptions import first_leaf
from .places import Place, Spot, is_users, raised_at
from .points import Point
from .run import Kind, Run


@dataclass(frozen=True)
class Fault:
    """
    An exception, without its frames.

    :ivar name: the qualified name of its class
    :ivar at: the innermost line of the user's code that it came from
    """

    name: str
    text: str
    at: Spot | None
    is_assertion: bool

    @classmethod
    def of(cls, exc: BaseException) -> Fault:
        """Return the fault of an exception, or of the first one in a group."""
        leaf = first_leaf(exc)
        # The first line only: the lines that pytest adds are the same for each run.
        text = str(leaf).strip().partition("\n")[0]
        is_assertion = isinstance(leaf, AssertionError)
        return cls(type(leaf).__qualname__, text, raised_at(leaf), is_assertion)

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.text else self.name


def says_that_it_fails(exc: BaseException) -> bool:
    """Tell whether a check has failed. What ``pytest.fail()`` raises is no :exc:`Exception`."""
    pytest: Any = sys.modules.get("pytest")
    return isinstance(exc, Exception) or (
        pytest is not None and isinstance(exc, pytest.fail.Exception)
    )


@dataclass
class Record:
    """One run, and what was seen of it."""

    run: Run
    strikes: tuple[tuple[Point, Kind], ...] = ()
    trace: list[Point] = field(default_factory=list[Point])
    #: The points after the interruption arrived.
    trace_after: list[Point] = field(default_factory=list[Point])
    #: The points at which it was interrupted.
    asked_at: list[Point] = field(default_factory=list[Point])
    #: The place of the first of them.
    asked_in: Place | None = None
    #: Where a function was cancelled, for whatever reason.
    cancelled_at: set[Point] = field(default_factory=set[Point])
    #: What it waited for outside of the event loop, by the point.
    outside: dict[Point, str] = field(default_factory=dict[Point, str])
    was_told: bool = False
    let_out: bool = False
    #: How many items the source had made when it was told.
    made_before: int = 0
    swallowed_at: Place | None = None
    stuck_at: Place | None = None
    #: What it has left behind, by name.
    left: list[str] = field(default_factory=list[str])
    #: What is heard of the run until its garbage was collected, by name.
    heard: list[str] = field(default_factory=list[str])
    #: What was raised, if that is not part of the interruption.
    unexpected: Fault | None = None
    has_lost_error: bool = False
    check_error: Fault | None = None
    teardown_error: Fault | None = None
    #: Where the source was when its time to clean up was over.
    cut_at: str | None = None
    is_stream: bool = False
    has_raised: bool = False

    @property
    def was_asked(self) -> bool:
        """Whether it reached all points at which it should be interrupted."""
        return len(self.asked_at) == len(self.strikes)

    @property
    def has_returned(self) -> bool:
        """Whether this is a function, was told, and has raised nothing."""
        return self.was_told and not (self.is_stream or self.has_raised)

    def forget(self) -> None:
        """Let go of what was raised: its frames hold everything that the run has left."""
        run = self.run
        self.is_stream, self.has_raised = run.outcome is not None, run.error is not None
        if run.outcome is not None and run.outcome.grace_exceeded:
            self.cut_at = str(run.outcome.stuck_at)
        run.error = run.outcome = run.result = None

    def goes_on(self, undisturbed: list[Any]) -> bool:
        """Tell whether it was told, and then gave the next item as if it had not been."""
        made, items = self.made_before, self.run.items
        if not self.was_told or not made < min(len(items), len(undisturbed)):
            return False
        # An equal item from a line that has not yielded before does not count: it is a last word.
        before = self.trace[: len(self.trace) - len(self.trace_after)]
        known = {p.spot for p in before if p.at_yield and is_users(p.spot[0])}
        after = [point.spot for point in self.trace_after if point.at_yield]
        return bool(after and after[0] in known and items[made] == undisturbed[made])
