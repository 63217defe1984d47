"""
How long calls wait: one timer for all calls of an event loop, set while there are any. A scope with
a deadline for each call would cost half as much as everything else.
"""

from __future__ import annotations

import logging
from typing import Any

import anyio

from .._core.backend import get_backend
from .worker import Call

_logger = logging.getLogger("streamkit")


class Patience:
    """
    Waits for calls, each for the same time at most.

    :param seconds: how long

    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: When each call is given up, in this order.
        self._waiting: dict[Call[Any], float] = {}
        self._timer = get_backend().make_timer(self._look, _failed)
        self._is_set = False

    async def wait(self, call: Call[Any]) -> None:
        """Wait until a call is over or given up. A cancellation of the wait gives it up, too."""
        self._waiting[call] = when = anyio.current_time() + self._seconds
        if not self._is_set:
            self._set(when)
        try:
            await call.is_over.wait()
        finally:
            del self._waiting[call]
            if not call.is_over.is_set():
                call.is_given_up = True

    def close(self) -> None:
        """Give up all calls that still wait: nothing will do them."""
        self._timer.close()
        for call in self._waiting:
            _give_up(call)

    async def settle(self) -> None:
        """Wait until the timer has ended. Is not cancelled."""
        await self._timer.settle()

    def _set(self, when: float) -> None:
        self._is_set = True
        self._timer.set(when)

    def _look(self) -> None:
        self._is_set = False
        now = anyio.current_time()
        for call, when in self._waiting.items():
            if when > now:
                self._set(when)
                return
            _give_up(call)


def _give_up(call: Call[Any]) -> None:
    if not call.is_over.is_set():
        call.is_given_up = True
        call.is_over.set()


def _failed(error: BaseException) -> None:
    _logger.error("the timer of calls to a file has failed", exc_info=error)
