"""
What does not end is abandoned: it is kept, and never stepped again.

To close it would let it run on. Were it collected, the interpreter would close it.
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
    """Keep what is suspended."""
    kept.append(suspended)


def wake(task: Any) -> None:
    """Resume a task that waits for nothing that will ever come, to be abandoned."""
    if isinstance(task, asyncio.Task):
        task.cancel()
    else:
        error = sys.modules["outcome"].Error(Abandoned())
        sys.modules["trio"].lowlevel.reschedule(task, error)
