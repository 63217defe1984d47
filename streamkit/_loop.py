"""Call a function in a given event loop, from any thread, without waiting for it."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import current_token


class Loop:
    """The event loop that is running in the current thread, to be reached from elsewhere."""

    def __init__(self) -> None:
        self._token = current_token()

    def call(self, function: Callable[[], object]) -> None:
        """
        Call ``function`` in this loop: at once if the caller is a task in it, soon otherwise.

        If the loop is closed by now, nothing is left to call.
        """
        if self._is_current() and not _in_signal_handler():
            function()
            return
        native: Any = self._token.native_token
        # asyncio's and trio's public ways in from a foreign thread. Neither blocks, so they do
        # for a signal handler, too, where anyio.from_thread.run_sync() would wait for itself.
        soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        with suppress(RuntimeError):
            soon(function)

    def _is_current(self) -> bool:
        try:
            anyio.get_current_task()
            return current_token() == self._token
        except RuntimeError:
            return False


def _in_signal_handler() -> bool:
    """
    Tell whether a signal handler calls, which has interrupted the task at any instruction.

    The task may be inside an ``Event.set()`` of the backend, which must not be entered again. What
    gives a handler away is that it is passed the very frame that it will return to.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    here = inspect.currentframe()
    frame = here and here.f_back
    del here
    while frame is not None:
        interrupted = frame.f_back
        # The arguments are (number, frame). To look into the frame of a coroutine would keep its
        # variables alive for as long as that runs, and no handler is one.
        if interrupted is not None and not frame.f_code.co_flags & _COROUTINE:
            for value in frame.f_locals.values():
                if value is interrupted or (type(value) is tuple and value[1:] == (interrupted,)):
                    return True
        frame = interrupted
    return False


_COROUTINE = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
