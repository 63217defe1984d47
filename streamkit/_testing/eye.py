"""
What is seen of one run while it goes on: its points, what it was told, and where.

The eye hears about each wait from what stands between the source and the event loop. When the run
has reached the intended point, the eye schedules the strike, right after the step that led there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .abandoned import Abandoned, wake
from .leftovers import body_of, has_ended
from .places import Place, place_of
from .points import Point, Points

# How many waits there are between two looks at the clock.
_OFTEN = 100


class Eye:
    """
    Watches one run.

    :param strikes: the points, in their order, at each of which the run is interrupted
    :param strike: interrupts it, for the n-th time, counted from 0
    :param soon: calls something right after the current step of the event loop
    :param steps: how often the run may wait after it was told
    :param patience: real seconds after which it may not wait again
    :param outside: returns what a wait is for, if that is outside of the event loop
    :param own: where a function is cancelled without an interruption, by a task group of its own

    """

    def __init__(
        self,
        strikes: tuple[Point, ...],
        strike: Callable[[int], object],
        soon: Callable[[Callable[[], object], bool], object],
        steps: int,
        patience: float,
        outside: Callable[[Place], str | None],
        own: frozenset[Point] = frozenset(),
    ) -> None:
        #: Where it has waited.
        self.trace: list[Point] = []
        #: Whether it is no longer stepped, wherever it is.
        self.is_over: bool = False
        #: How long the trace was when the run was told for the first time.
        self.told_after: int | None = None
        #: Where it was asked to stop.
        self.asked_at: list[Point] = []
        #: The first of these places.
        self.asked_in: Place | None = None
        #: Where the interruption arrived.
        self.arrived_at: Place | None = None
        #: Where it went on with the same wait after it was told.
        self.swallowed_at: Place | None = None
        #: Where it was when it had waited too many times after that.
        self.stuck_at: Place | None = None
        #: Where a function was cancelled, for whatever reason.
        self.cancelled_at: set[Point] = set()
        #: What it waited for outside of the event loop, by the point.
        self.outside: dict[Point, str] = {}
        #: Whether it waits for ever before its first step.
        self.never_begins: bool = False
        #: The number of waits and steps: it grows while the event loop goes round.
        self.pulse: int = 0
        #: Whether the source, or the function, is running right now.
        self.is_running: bool = False
        self._last: tuple[Place, object] | None = None
        self._is_outside = self._was_outside = False
        self._strikes = strikes
        self._strike = strike
        self._soon = soon
        self._steps = steps
        self._until = time.monotonic() + patience
        self._outside = outside
        self._own = own
        self._points = Points()

    @property
    def was_told(self) -> bool:
        """Whether the interruption has arrived."""
        return self.told_after is not None

    def suspended(self, place: Place, task: object) -> None:
        """
        Note a wait.

        :param task: the task that waits
        :raises Abandoned: if there were too many waits

        """
        self._last = place, task
        point = self._points.next(place)
        self.trace.append(point)
        what = self._outside(place)
        self._is_outside = what is not None
        if what is not None:
            self._was_outside = True
            self.outside[point] = what
        if self._has_waited_too_often():
            self.stuck_at, self.is_over = place, True
            raise Abandoned
        done = len(self.asked_at)
        if done < len(self._strikes) and self._strikes[done] == point:
            self.asked_at.append(point)
            self.asked_in = self.asked_in or place
            self._soon(lambda: self._strike(done), point.at_yield)

    def _has_waited_too_often(self) -> bool:
        waits = len(self.trace)
        if self.told_after is not None and waits - self.told_after > self._steps:
            return True
        # A run may also wait for ever in small steps. Asking for the time at each costs too much.
        return not waits % _OFTEN and time.monotonic() > self._until

    def took_real_time(self) -> bool:
        """Tell whether a wait since the last call took real time."""
        # Also if that wait is over: the outside may answer in the very pass in which time is up.
        took_real_time, self._was_outside = self._was_outside, self._is_outside
        return took_real_time

    def note_outside(self, what: str) -> None:
        """Note that the last wait is for something outside, which could not be seen there."""
        if self.trace:
            self.outside.setdefault(self.trace[-1], what)

    def give_up(self, consumer: object) -> None:
        """
        Abandon a run that would wait for ever.

        :param consumer: the task that waits if the source has ended

        """
        if self._last is None:
            self.never_begins = True
            raise RuntimeError("what make gave waits for ever before its first step")
        self.is_over = True
        self.stuck_at, task = self._last
        if has_ended(task):
            task = consumer
            self.stuck_at = place_of(body_of(task))
        wake(task)

    def cancelled(self, place: Place) -> bool:
        """
        Note that a function is cancelled where it waits.

        :return: whether this is the interruption, as far as can be seen
        """
        point = self.trace[-1]
        self.cancelled_at.add(point)
        if not self.asked_at or point in self._own:
            return False
        self.told(place)
        return True

    def told(self, place: Place) -> None:
        """Note that the interruption arrives."""
        if self.told_after is None:
            self.count_steps()
            self.arrived_at = place

    def count_steps(self) -> None:
        """Bound how often the run may wait from now on."""
        self.told_after = len(self.trace)
