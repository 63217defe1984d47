"""
Streams that outlive their request. What a run yields is kept in a log, and any number of readers
attach to it, at any position, while it goes on and after it has ended.

A program uses :class:`Runs`: ``start()`` returns a :class:`RunInfo`, and ``attach()`` a stream of
each :class:`Entry`. A log decides where runs are kept: :class:`MemoryLog`,
:class:`streamkit.sqlite.SQLiteLog`, :class:`streamkit.redis.RedisLog`, or anything else that
follows :class:`RunLog` and passes the tests of :func:`streamkit.testing.log_conformance`.

A reader may get :exc:`RunNotFound`, :exc:`Gap`, :exc:`CursorMismatch` or :exc:`LogUnavailable`, and
at the end of the run :exc:`RunFailed`, :exc:`RunCancelled`, :exc:`RunTimedOut` or :exc:`RunLost`.
"""

from __future__ import annotations

from ._core.public import name_publicly
from ._runs.entry import Entry as Entry
from ._runs.errors import (
    CursorMismatch as CursorMismatch,
    Gap as Gap,
    LogFull as LogFull,
    LogUnavailable as LogUnavailable,
    RunCancelled as RunCancelled,
    RunEnded as RunEnded,
    RunExists as RunExists,
    RunFailed as RunFailed,
    RunLost as RunLost,
    RunNotFound as RunNotFound,
    RunRunning as RunRunning,
    RunsClosed as RunsClosed,
    RunTimedOut as RunTimedOut,
    UnknownVersion as UnknownVersion,
)
from ._runs.info import (
    RunInfo as RunInfo,
    RunOutcome as RunOutcome,
)
from ._runs.log import (
    Page as Page,
    Record as Record,
    Requests as Requests,
    RunLog as RunLog,
    Terms as Terms,
    Watch as Watch,
)
from ._runs.memory import MemoryLog as MemoryLog
from ._runs.reasons import (
    MAX_REASON as MAX_REASON,
    Fenced as Fenced,
    LogLost as LogLost,
    Unwatched as Unwatched,
)
from ._runs.runs import Runs as Runs, RunStats as RunStats
from ._runs.state import RunState as RunState

__all__ = [
    "MAX_REASON",
    "CursorMismatch",
    "Entry",
    "Fenced",
    "Gap",
    "LogFull",
    "LogLost",
    "LogUnavailable",
    "MemoryLog",
    "Page",
    "Record",
    "Requests",
    "RunCancelled",
    "RunEnded",
    "RunExists",
    "RunFailed",
    "RunInfo",
    "RunLog",
    "RunLost",
    "RunNotFound",
    "RunOutcome",
    "RunRunning",
    "RunState",
    "RunStats",
    "RunTimedOut",
    "Runs",
    "RunsClosed",
    "Terms",
    "UnknownVersion",
    "Unwatched",
    "Watch",
]


name_publicly(globals())
