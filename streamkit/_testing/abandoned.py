"""
A run that does not end is abandoned: it is kept, and never stepped again.

Closing it would let it run on, and the interpreter would close it if it were collected.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


class Abandoned(BaseException):
    """Raised in place of one more step."""


#: Everything that was abandoned, kept until the process ends.
kept: list[object] = []


def abandon(suspended: object) -> None:
    """Keep a suspended coroutine."""
    kept.append(suspended)


def wake(task: Any) -> None:
    """Resume a task that would wait for ever, so that it is abandoned."""
    if isinstance(task, asyncio.Task):
        task.cancel()
    else:
        error = sys.modules["outcome"].Error(Abandoned())
        sys.modules["trio"].lowlevel.reschedule(task, error)
