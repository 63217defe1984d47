"""
What does not end is abandoned: it is kept, and never stepped again.

To close it would let it run on. Were it collected, the interpreter would close it. The tasks that
it has started, on trio, are cancelled, for a run ends when all of its tasks have.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


class Abandoned(BaseException):
    """Raised in place of one more step."""


#: What was abandoned, as long as the process lives.
kept: list[object] = []


def abandon(suspended: object) -> None:
    """Keep what is suspended, and cancel what the running task has started."""
    kept.append(suspended)
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        for nursery in trio.lowlevel.current_task().child_nurseries:
            nursery.cancel_scope.cancel()


def wake(task: Any) -> None:
    """Resume a task that waits for nothing that will ever come, to be abandoned."""
    if isinstance(task, asyncio.Task):
        task.cancel()
    else:
        error = sys.modules["outcome"].Error(Abandoned())
        sys.modules["trio"].lowlevel.reschedule(task, error)
