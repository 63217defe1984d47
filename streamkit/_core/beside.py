"""
Tasks beside the source, in the stream's group.

Functions, not methods of the stream: an error holds the frames that it has passed, and the
stream holds the error.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from . import advice
from .backend import error_of_stray
from .pump import Pump


def start_beside(
    pump: Pump, function: Callable[[], Awaitable[object]], name: str | None
) -> anyio.CancelScope:
    """
    Run something beside the source until the block is left.

    :return: the scope in which it runs
    :raises RuntimeError: if the stream is not open

    """
    if pump.tasks is None:
        raise RuntimeError(advice.NOT_OPEN)
    scope = pump.backend.make_scope(shield=True)
    # Whatever has started must be found when the block is left.
    pump.beside = (*pump.beside, scope)
    pump.tasks.start_soon(run_beside, pump, scope, function, name=name)
    return scope


async def run_beside(
    pump: Pump, scope: anyio.CancelScope, function: Callable[[], Awaitable[object]]
) -> None:
    """
    Run something beside the source.

    :param scope: the scope that ends it: a shield, because like the source, it hears no scope
        around the stream

    """
    with scope:
        if not scope.cancel_called:
            try:
                work = function()
                # From Python 3.12 on, the traceback of an error that the work has caught and keeps
                # leads to this frame, which must not lead back.
                del function
                await work
            except pump.backend.cancelled as exc:
                # By Task.cancel(), at the end of asyncio.run() for instance. asyncio's group would
                # cancel the wait for the source.
                stray = error_of_stray(exc, "a task of a stage")
                if stray is not None and not scope.cancel_called:
                    pump.fail(stray)
                # Its cause has a traceback that includes this frame.
                stray = None
            except BaseException as exc:
                pump.fail(exc)
    pump.beside = tuple(other for other in pump.beside if other is not scope)


def look_around(pump: Pump, exc: BaseException) -> None:
    """
    See soon whether the scope that has ended a wait of the consumer is around the block.

    As a rule, the consumer leaves the block then, at once, and nobody has to look. But it may stay:
    in a shield, and for a lock that the source holds.
    """
    if not pump.backend.relay.is_native(exc):
        pump.soon(partial(_look_around, pump, exc))


def _look_around(pump: Pump, exc: BaseException) -> None:
    assert pump.tasks is not None
    # A scope around the block is cancelled for whoever is in its group, and one inside is not.
    name = "looks for a scope around a stream"
    pump.tasks.start_soon(_leave_if_cancelled, pump, exc, name=name)


async def _leave_if_cancelled(pump: Pump, exc: BaseException) -> None:
    if anyio.current_effective_deadline() == -math.inf:
        pump.leave(exc)
