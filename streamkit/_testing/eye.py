"""
What is seen of one run while it goes on: its points, what it was told, and where.

The eye is told of each wait by what stands between the source and the event loop. When the run has
come to the point that is meant, it has the strike done: right after the step that led there.
"""

from __future__ import annotations

from collections.abc import Callable

from .abandoned import Abandoned, wake
from .places import Place
from .points import Point, Points


class Eye:
    """
    Watches one run.

    :param strikes: the points, in their order, at each of which the run is interrupted
    :param strike: interrupts it, for the n-th time, beginning with 0
    :param soon: has something called right after the present step of the event loop
    :param steps: how often the run may wait after it was told
    :param outside: says what of the world outside of the event loop a wait is for, if it is
    :param own: where a function is cancelled without being asked: by a task group of its own

    """

    def __init__(
        self,
        strikes: tuple[Point, ...],
        strike: Callable[[int], object],
        soon: Callable[[Callable[[], object], bool], object],
        steps: int,
        outside: Callable[[Place, object], str | None],
        own: frozenset[Point] = frozenset(),
    ) -> None:
        #: Where it has waited.
        self.trace: list[Point] = []
        #: Whether it is not stepped any more, wherever it is.
        self.is_over: bool = False
        #: How much of it there was when the run was told for the first time.
        self.told_after: int | None = None
        #: Where it was asked to stop.
        self.asked_at: list[Point] = []
        #: The first of these places.
        self.asked_in: Place | None = None
        #: Where what it was asked arrived.
        self.arrived_at: Place | None = None
        #: Where it waited again, and for the same, after it was told.
        self.swallowed_at: Place | None = None
        #: Where it was when it had waited too often after that.
        self.stuck_at: Place | None = None
        #: Where a function was cancelled, by whatever.
        self.cancelled_at: set[Point] = set()
        #: What it waited for that is not in the event loop, by the point.
        self.outside: dict[Point, str] = {}
        #: Whether it waits for ever before its first step.
        self.never_begins: bool = False
        #: How many waits and steps there were: it grows as long as the event loop goes round.
        self.pulse: int = 0
        #: Whether the source, or the function, runs right now.
        self.is_running: bool = False
        self._last: tuple[Place, object] | None = None
        self._is_outside = False
        self._strikes = strikes
        self._strike = strike
        self._soon = soon
        self._steps = steps
        self._outside = outside
        self._own = own
        self._points = Points()

    @property
    def was_told(self) -> bool:
        """Whether what was asked has arrived."""
        return self.told_after is not None

    def suspended(self, place: Place, awaited: object, task: object) -> None:
        """
        Note a wait.

        :param task: who waits
        :raises Abandoned: if there were too many

        """
        self._last = place, task
        point = self._points.next(place)
        self.trace.append(point)
        what = self._outside(place, awaited)
        self._is_outside = what is not None
        if what is not None:
            self.outside[point] = what
        if self.told_after is not None and len(self.trace) - self.told_after > self._steps:
            self.stuck_at, self.is_over = place, True
            raise Abandoned
        done = len(self.asked_at)
        if done < len(self._strikes) and self._strikes[done] == point:
            self.asked_at.append(point)
            self.asked_in = self.asked_in or place
            self._soon(lambda: self._strike(done), point.at_yield)

    def give_up(self, *, in_virtual_time: bool) -> bool:
        """
        Abandon what waits, and will for ever.

        :return: ``False`` if virtual time has run past it, and it waits for what takes real time
        """
        if in_virtual_time and self._is_outside:
            return False
        if self._last is None:
            self.never_begins = True
            raise RuntimeError("what make gave waits for ever before its first step")
        self.is_over = True
        self.stuck_at, task = self._last
        wake(task)
        return True

    def cancelled(self, place: Place) -> bool:
        """
        Take note that a function is cancelled where it waits.

        :return: whether that is what was asked, as far as can be seen
        """
        point = self.trace[-1]
        self.cancelled_at.add(point)
        if not self.asked_at or point in self._own:
            return False
        self.told(place)
        return True

    def told(self, place: Place) -> None:
        """Note that what was asked arrives."""
        if self.told_after is None:
            self.told_after = len(self.trace)
            self.arrived_at = place
