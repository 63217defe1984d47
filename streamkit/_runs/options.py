"""What may be said of a run, beside what its log is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .._core.outcome import Outcome
from .info import RunInfo

#: Called when a run has ended, before that can be seen.
OnEnd: TypeAlias = Callable[[Outcome, RunInfo], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said of a run."""

    keep: float
    grace: float
    on_end_timeout: float
    max_items: int
    max_bytes: int
    when_full: Literal["trim", "end"]
    unwatched: float | None
