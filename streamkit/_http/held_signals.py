"""
Signals of the process that the server is told later, when the streams have ended.

What is found as the handler of a signal is that of the server, which runs this in its lifespan. It
hears of the signal when that is let go, by its own handler, which is then back. What a server hears
by its event loop cannot be held: that writes to a file descriptor, before any handler of Python.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any, cast

from .._signals.on_signals import check_signal
from .._signals.token import CancelToken

_WRITE = "signals=[signal.SIGTERM, signal.SIGINT]"


class HeldSignals:
    """
    Signals that are held.

    :param numbers: which

    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        #: Fired by the first one.
        self.heard: CancelToken = CancelToken()
        self._numbers = numbers
        # The handlers in whose place ours are.
        self._found: dict[signal.Signals, Any] = {}
        self._held: list[int] = []
        self._process: int
        self._is_over = False

    def hold(self) -> None:
        """Begin. Nothing is held in another thread than the main one, which hears no signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in self._numbers:
            found = signal.getsignal(number)
            # One that is not Python's could not be put back.
            if found is not None:
                self._found[number] = found
                signal.signal(number, self._handle)

    def let_go(self) -> None:
        """Put back what was found, and let it hear what was held. For good."""
        self._is_over = True
        for number, found in self._found.items():
            # Only what is ours is taken away.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, found)
        # Another one may come in between.
        while self._held:
            first = self._held.pop(0)
            try:
                self._pass_on(first)
            except BaseException:
                # That ends the program. To raise it once more would only hide it in a group.
                while first in self._held:
                    self._held.remove(first)
                raise

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # In the main thread, between any two instructions, also of this.
        self._held.append(number)
        # A fork has the handler, but nothing that would let go.
        is_here = os.getpid() == self._process
        if is_here:
            self.heard.cancel()
        # Other code may call this when it is over, or put it back; or Ctrl-C was pressed twice.
        # Other signals may well come twice: from a supervisor, and from what ends all below that.
        if not is_here or self._is_over or self._held.count(signal.SIGINT) > 1:
            self.let_go()

    def _pass_on(self, number: int) -> None:
        # Not by another signal: on top of this there may be a handler that calls this.
        found = self._found[signal.Signals(number)]
        if callable(found):
            found(number, None)
        elif found == signal.SIG_DFL:
            signal.signal(number, found)
            signal.raise_signal(number)


def check_signals(given: object) -> tuple[signal.Signals, ...]:
    """
    Return the signals that are given, each of them once.

    :raises TypeError: if there is something else
    :raises ValueError: if one is not heard on this platform

    """
    if isinstance(given, signal.Signals) or not isinstance(given, Iterable):
        raise TypeError(
            f"signals must be a list of signals, got {type(given).__qualname__}: write {_WRITE}"
        )
    found = dict.fromkeys(cast("Iterable[signal.Signals]", given))
    for number in found:
        check_signal(number, _WRITE)
    return tuple(found)
