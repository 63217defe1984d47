"""
A function that is called at a time: by the event loop, where it has timers.

A sleeping task does the same, and costs as much as the source's own. How each backend does it is in
``timer_asyncio`` and ``timer_trio``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context

from .arguments import check_made


class Timer(ABC):
    """
    Calls a function of a stage at a time. Made by :meth:`Control.timer`, closed with the source.
    """

    __slots__ = ("_context", "_fail", "_function", "_is_closed")

    def __init__(
        self, function: Callable[[], object], fail: Callable[[BaseException], object]
    ) -> None:
        self._function = function
        self._fail = fail
        self._context = copy_context()
        self._is_closed = False

    def set(self, when: float) -> None:
        """
        Call the function once, at this time instead of the one set before.

        :param when: seconds on the clock of :func:`anyio.current_time`
        :raises TypeError: if it is not a number
        :raises ValueError: if it is ``nan``, or an ``int`` that is too large for a ``float``

        """
        # Raised here, where the caller sees it: later it would end the whole trio run, and disturb
        # the order of all timers on asyncio.
        try:
            is_time = not math.isnan(when)
        except OverflowError:
            is_time = False
        if not is_time:
            raise ValueError(
                "a timer cannot be set for nan, or for what is too large for a float: write "
                "timer.set(control.now() + 5.0), for instance"
            )
        self._cancel()
        if not self._is_closed:
            self._schedule(when)

    def close(self) -> None:
        """Stop calling it."""
        self._is_closed = True
        self._cancel()

    async def settle(self) -> None:
        """Wait until a timer that was closed has left no task. Is not cancelled."""
        return

    @abstractmethod
    def _schedule(self, when: float) -> None:
        """Let :meth:`_call` be called at this time."""

    @abstractmethod
    def _cancel(self) -> None:
        """Cancel what was scheduled, if anything was."""

    def _call(self) -> None:
        """Call the function, in a task, in the context in which the timer was made."""
        try:
            check_made("the function of a timer", self._function())
        except BaseException as exc:
            self._fail(exc)
