"""
A run that does not end is abandoned: it is kept, and never stepped again.

Closing it would let it run on, perhaps for ever. The interpreter closes whatever is collected, also
what is left at its own end. So CPython is told of one more reference, whose holder it cannot find.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from typing import Any

from .._core.relay_trio import abort_wait


class Abandoned(BaseException):
    """Raised in place of one more step."""


def _keep_on_cpython(suspended: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(suspended))


_kept: list[object] = []
_keep = _keep_on_cpython if sys.implementation.name == "cpython" else _kept.append


def abandon(suspended: object) -> None:
    """Keep a suspended coroutine until the process has ended."""
    _keep(suspended)


def wake(task: Any) -> None:
    """Resume a task that would wait for ever, so that it is abandoned. A thread is waited for."""
    if isinstance(task, asyncio.Task):
        task.cancel()
    else:
        abort_wait(task, Abandoned())
