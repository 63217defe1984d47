"""
How long calls wait: one timer for all of an event loop, which is set while there are any. A scope
with a deadline for each would cost half as much as all the rest.
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
    Lets calls wait, each for the same time.

    :param seconds: how long

    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: When each is given up, in the order of that.
        self._waiting: dict[Call[Any], float] = {}
        self._timer = get_backend().make_timer(self._look, _failed)
        self._is_set = False

    async def wait(self, call: Call[Any]) -> None:
        """Wait until a call is over, or was given up. If that is cancelled, it is given up, too."""
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
        """Give up all that still wait: nobody will do what they ask for."""
        self._timer.close()
        for call in self._waiting:
            _give_up(call)

    async def settle(self) -> None:
        """Wait until nothing is left of this. Is not cancelled."""
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
    _logger.error("the time of calls to a file could not be kept", exc_info=error)
