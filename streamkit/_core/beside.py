"""
What runs beside the source, in tasks of the stream's group.

Functions, and no methods of the stream: an error holds the frames that it has passed, and the
stream holds the error.
"""

from __future__ import annotations

import math
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .pump import Pump
from .stage import Control, Stage


async def run_beside(pump: Pump, stage: Stage[Any, Any], control: Control) -> None:
    """Run what a stage does beside the source, as long as that goes on."""
    # It hears of no scope around the stream, as the source does not.
    with anyio.CancelScope(shield=True) as scope:
        if pump.is_finished:
            return
        pump.on_finished += (scope.cancel,)
        try:
            await stage.run(control)
        except pump.backend.cancelled:
            # By Task.cancel(), at the end of asyncio.run() for instance. asyncio's group would
            # cancel the wait for the source.
            return
        except BaseException as exc:
            pump.fail(exc)


def look_around(tasks: TaskGroup, pump: Pump, exc: BaseException) -> None:
    """See whether a scope that has ended a wait of the consumer's is around the block."""
    tasks.start_soon(_leave_if_cancelled, pump, exc, name="looks for a scope around a stream")


async def _leave_if_cancelled(pump: Pump, exc: BaseException) -> None:
    # The consumer may stay: in a shield, and for a lock that the source holds.
    if anyio.current_effective_deadline() == -math.inf:
        pump.leave(exc)
