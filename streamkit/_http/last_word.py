"""The ``final`` of a response: what its user says last, where there is a body to say it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.outcome import Outcome
from .outlet import Outlet


class LastWord:
    """
    What is said last.

    :param final: what the user says, if anything
    :param outlet: who knows whether there is a body

    """

    __slots__ = ("_final", "_outlet", "is_heard", "told")

    def __init__(self, final: Callable[[Outcome], Any] | None, outlet: Outlet) -> None:
        #: The error of ``on_end`` that the last word speaks of, so that it need not be raised.
        self.told: BaseException | None = None
        #: Whether there is a client that would receive it.
        self.is_heard: bool = True
        self._final = final
        self._outlet = outlet

    def __call__(self, outcome: Outcome) -> Any:
        if self._final is None or not self._outlet.has_body:
            return None
        # Nothing in place of it is something in place of an exception, too.
        last = self._final(outcome) if self.is_heard else ()
        if last is not None:
            self.told = outcome.on_end_error
        return last
