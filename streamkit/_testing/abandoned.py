"""
A run that does not end is abandoned: it is kept, and never stepped again.

Closing it would let it run on, and the interpreter would close it if it were collected.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .._core.relay_trio import abort_wait


class Abandoned(BaseException):
    """Raised in place of one more step."""


#: Everything that was abandoned, kept until the process ends.
kept: list[object] = []


def abandon(suspended: object) -> None:
    """Keep a suspended coroutine."""
    kept.append(suspended)


def wake(task: Any) -> None:
    """Resume a task that would wait for ever, so that it is abandoned. A thread is waited for."""
    if isinstance(task, asyncio.Task):
        task.cancel()
    else:
        abort_wait(task, Abandoned())
