"""Cancellations that come before their runs: remembered for a while, for the first run of an id."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from .agenda import Agenda
from .log import REMEMBER

# The most cancellations that are remembered; then the oldest is dropped.
_MOST = 10_000


class EarlyCancels:
    """
    Requests to runs that do not exist yet.

    :param agenda: forgets them in time

    """

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        #: By the id of the run and the owner that asked.
        self._early: dict[tuple[str, str | None], _Early] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._early)

    def remember(self, run_id: str, reason: bytes, owner: str | None) -> None:
        """Remember to cancel a run. The first reason stays."""
        now = anyio.current_time()
        key = run_id, owner
        early = self._early.get(key)
        if early is not None and now < early.until:
            return
        self._forget(now)
        self._count += 1
        early = self._early[key] = _Early(self._count, reason, now + REMEMBER)
        if len(self._early) > _MOST:
            del self._early[next(iter(self._early))]
        # Nothing of what is dropped before its time is held until then.
        self._agenda.add(early.until, self._forget)

    def take(self, run_id: str, owner: str | None) -> bytes | None:
        """
        Return why a run was cancelled before it began, or ``None``, and forget it.

        :param owner: the owner of the run: requests that named this owner count, and those that
            named none

        """
        now = anyio.current_time()
        found = [self._early.pop((run_id, asker), None) for asker in {None, owner}]
        in_time = [early for early in found if early is not None and now < early.until]
        # The first reason stays.
        return min(in_time, key=lambda early: early.number).reason if in_time else None

    def _forget(self, now: float) -> None:
        # All are remembered for the same time, so the first ones are over first.
        while self._early:
            key, early = next(iter(self._early.items()))
            if now < early.until:
                break
            del self._early[key]


@dataclass(frozen=True, slots=True)
class _Early:
    """A cancellation that came before its run."""

    number: int
    reason: bytes
    until: float
