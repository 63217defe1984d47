"""
``on_signals``: a token that the signals of the process fire, Ctrl-C for instance.

A signal has one handler in a process. So there is one receiver of each, for all blocks that want
it. It takes the place of the handler that it finds, and restores that one when the last block is
left. It is a handler of Python's own, not of the event loop: asyncio does not tell which handlers
it has, and leaves the default one behind. Python runs it in the main thread, between any two
instructions, and a token may be fired there.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import AbstractAsyncContextManager
from types import FrameType, TracebackType
from typing import Any

from .token import CancelToken

# The names of the signals that a process cannot handle, and of those that Windows can send.
_UNHEARD, _ON_WINDOWS = ("SIGKILL", "SIGSTOP"), ("SIGINT", "SIGBREAK")


def on_signals(*signals: signal.Signals) -> AbstractAsyncContextManager[CancelToken, None]:
    """
    Stop at a signal of the process, such as Ctrl-C: for a program that is not a server.

    While the block is open, the first of these signals fires the token, with its name as the
    reason: ``"SIGINT"``. The next one calls :meth:`CancelToken.end_grace`. Blocks that are open at
    the same time all hear each signal, and each has a token of its own. The handlers that were
    there before hear nothing. They are restored when the last block is left.

    Works in the main thread only, where Python handles signals. Windows has ``SIGINT`` and
    ``SIGBREAK`` alone. Under a server, the signals belong to the server, which shuts down:
    :class:`streamkit.asgi.StreamHost` then tells its streams.

    :param signals: members of :class:`signal.Signals`, at least one
    :return: an async context manager that yields the token; used once, and entered in the main
        thread: elsewhere this is a :exc:`RuntimeError`
    :raises TypeError: if an argument is not a signal
    :raises ValueError: if there is none, or one that cannot be handled on this platform

    """
    if not signals:
        raise ValueError(f"on_signals needs a signal: write {_WRITE}")
    for number in signals:
        check_signal(number, _WRITE)
    return _OnSignals(dict.fromkeys(signals))


class _OnSignals(AbstractAsyncContextManager[CancelToken, None]):
    # A class, not a generator, to give advice when it is entered twice.

    def __init__(self, numbers: dict[signal.Signals, None]) -> None:
        self._numbers = numbers
        self._token: CancelToken | None = None
        self._receivers: list[_Receiver] = []

    async def __aenter__(self) -> CancelToken:
        if self._token is not None:
            raise RuntimeError("on_signals is used once: call on_signals() anew for each block")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "signals are only handled in the main thread of a program: fire a CancelToken from "
                "there, which may be done from any thread"
            )
        self._token = CancelToken()
        try:
            for number in self._numbers:
                self._receivers.append(_receive(number, self._token))
        except BaseException:
            self._leave(self._token)
            raise
        return self._token

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None
        self._leave(self._token)

    def _leave(self, token: CancelToken) -> None:
        while self._receivers:
            self._receivers.pop().remove(token)


class _Receiver:
    """The handler of one signal, while any block wants it."""

    def __init__(self, number: signal.Signals) -> None:
        self.tokens: list[CancelToken] = []
        self._number = number
        self._found: Any = signal.getsignal(number)
        if self._found is None:
            raise RuntimeError(
                f"{number.name} is handled by code that is not Python's, and could not be given "
                "back to it"
            )

    def install(self) -> None:
        signal.signal(self._number, self._handle)

    def remove(self, token: CancelToken) -> None:
        if len(self.tokens) == 1:
            del _receivers[self._number]
            # Before the token is gone, so that one of the two hears a signal that comes now. And
            # only our own handler is removed.
            if signal.getsignal(self._number) == self._handle:
                signal.signal(self._number, self._found)
        self.tokens.remove(token)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for token in tuple(self.tokens):
            if not token.cancel(self._number.name):
                token.end_grace()


# Only touched in the main thread.
_receivers: dict[signal.Signals, _Receiver] = {}


def _receive(number: signal.Signals, token: CancelToken) -> _Receiver:
    receiver = _receivers.get(number)
    if receiver is not None:
        receiver.tokens.append(token)
        return receiver
    receiver = _Receiver(number)
    receiver.tokens.append(token)
    receiver.install()
    _receivers[number] = receiver
    return receiver


_WRITE = "on_signals(signal.SIGINT, signal.SIGTERM)"


def check_signal(number: object, write: str) -> None:
    """
    Check that a signal is one that a process hears of on this platform.

    :param write: what to write instead

    """
    if not isinstance(number, signal.Signals):
        raise TypeError(f"expected a signal, got {type(number).__qualname__}: write {write}")
    if number.name in _UNHEARD:
        raise ValueError(f"{number.name} ends a process, which does not hear of it: write {write}")
    if sys.platform == "win32" and number.name not in _ON_WINDOWS:
        raise ValueError(
            f"Windows sends no {number.name}: write {write.replace('SIGTERM', 'SIGBREAK')}"
        )
