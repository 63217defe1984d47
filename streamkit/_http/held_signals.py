"""
Signals of the process that the server gets later, when the streams have ended.

The server runs this in its lifespan, so the handler that is found for a signal is the server's.
When the signal is let go, that handler is put back and called. A signal that a server gets through
its event loop cannot be held: it is written to a file descriptor before any Python handler runs.
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

    :param numbers: the signals to hold

    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        #: Fired by the first signal.
        self.heard: CancelToken = CancelToken()
        self._numbers = numbers
        # The handlers that ours has replaced.
        self._found: dict[signal.Signals, Any] = {}
        self._held: list[int] = []
        self._process: int
        self._is_over = False

    def hold(self) -> None:
        """Begin. Holds nothing outside of the main thread, because other threads get no signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in self._numbers:
            found = signal.getsignal(number)
            # A handler that is not Python's could not be put back.
            if found is not None:
                self._found[number] = found
                signal.signal(number, self._handle)

    def let_go(self) -> None:
        """Put back the handlers, and call them for what was held. For good."""
        self._is_over = True
        for number, found in self._found.items():
            # Only our own handler is removed.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, found)
        # Another signal may come in between.
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
        # Called in the main thread, between any two instructions, even of this method.
        self._held.append(number)
        # A fork has the handler, but nothing that would let go.
        is_here = os.getpid() == self._process
        if is_here:
            self.heard.cancel()
        # Other code may call this handler after the end, or put it back. Or Ctrl-C was pressed
        # twice. Other signals may well come twice: from a supervisor, and from what ends all
        # processes below it.
        if not is_here or self._is_over or self._held.count(signal.SIGINT) > 1:
            self.let_go()

    def _pass_on(self, number: int) -> None:
        # Not by another signal: the handler on top may be one that calls this.
        found = self._found[signal.Signals(number)]
        if callable(found):
            found(number, None)
        elif found == signal.SIG_DFL:
            signal.signal(number, found)
            signal.raise_signal(number)


def check_signals(given: object) -> tuple[signal.Signals, ...]:
    """
    Return the signals that are given, each of them once.

    :raises TypeError: if something else is given
    :raises ValueError: if a process cannot hear one of them on this platform

    """
    if isinstance(given, signal.Signals) or not isinstance(given, Iterable):
        raise TypeError(
            f"signals must be a list of signals, got {type(given).__qualname__}: write {_WRITE}"
        )
    found = dict.fromkeys(cast("Iterable[signal.Signals]", given))
    for number in found:
        check_signal(number, _WRITE)
    return tuple(found)
