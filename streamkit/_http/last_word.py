"""The ``final`` of a response: what the user sends last, if there is a body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.outcome import Outcome
from .outlet import Outlet


class LastWord:
    """
    The last items of a response.

    :param final: the user's ``final``, if any
    :param outlet: knows whether there is a body

    """

    __slots__ = ("_final", "_outlet", "is_heard", "told")

    def __init__(self, final: Callable[[Outcome], Any] | None, outlet: Outlet) -> None:
        #: The error of ``on_end`` that the last word tells, so that it need not be raised.
        self.told: BaseException | None = None
        #: Whether there is a client that would receive it.
        self.is_heard: bool = True
        self._final = final
        self._outlet = outlet

    def __call__(self, outcome: Outcome) -> Any:
        if self._final is None or not self._outlet.has_body:
            return None
        # An empty list also replaces an exception.
        last = self._final(outcome) if self.is_heard else ()
        if last is not None:
            self.told = outcome.on_end_error
        return last
