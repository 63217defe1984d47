"""The options of a run, as they are given to ``Runs`` or to ``start()``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .._core.outcome import Outcome
from .info import RunInfo

#: Called when a run has ended, before its end can be read.
OnEnd: TypeAlias = Callable[[Outcome, RunInfo], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run."""

    keep: float
    grace: float
    on_end_timeout: float
    max_items: int
    max_bytes: int
    when_full: Literal["trim", "end"]
    unwatched: float | None
