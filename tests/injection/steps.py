"""Counts the steps of an event loop, and does what is planned right before one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

# Far beyond what any run takes: what needs more is a busy loop.
MOST_STEPS = 20_000


class Hang(BaseException):
    """Ends a loop that would not end."""


class Steps:
    """
    The steps of one run.

    :param plan: what to do right before a step, by its number from 1
    :param on_hang: called when there are too many

    """

    def __init__(self, plan: Mapping[int, Sequence[Callable[[], object]]]) -> None:
        self._plan = plan
        #: The steps that count: those from the start of the consumer to its end.
        self.number = 0
        #: All steps.
        self.total = 0
        self.active = False
        #: Why the run was given up, if it was.
        self.hung: str | None = None
        self.on_hang: Callable[[], object] = bool

    def before_step(self) -> None:
        """Say that the loop is about to make a step."""
        self.total += 1
        if self.active:
            self.number += 1
            for action in self._plan.get(self.number, ()):
                action()
        if self.total > MOST_STEPS:
            self.give_up(f"more than {MOST_STEPS} steps")

    def give_up(self, why: str) -> None:
        """End the run, whatever its tasks wait for."""
        self.hung = self.hung or why
        self.on_hang()
