"""
Find the event loop, and call a function in it from any thread, without waiting for it.

Neither backend is imported here: whoever runs one has done that.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

from anyio.lowlevel import current_token


def running_loop() -> Any:
    """
    Return the event loop that is running in the current thread: asyncio's, or trio's token.

    :raises ~anyio.NoEventLoopError: if there is none

    """
    # First: a run of trio may be within a task of asyncio's, as in a notebook.
    if _is_in_trio_task():
        return sys.modules["trio"].lowlevel.current_trio_token()
    find_loop: Any = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop = None if find_loop is None else find_loop()
    # It may be the host of a trio run, but then it has no task.
    if loop is not None and sys.modules["asyncio"].current_task(loop) is not None:
        return loop
    # In a callback of asyncio's, for instance. It costs more to ask that each time.
    return current_token().native_token


def _is_in_trio_task() -> bool:
    # As an attribute, it is there when it was imported to its end, by another thread for instance.
    trio: Any = getattr(sys.modules.get("trio"), "lowlevel", None)
    return trio is not None and bool(trio.in_trio_task())


def is_of_asyncio(native: object) -> bool:
    """Tell whether this is an event loop of asyncio, and not a token of trio."""
    return isinstance(native, getattr(sys.modules.get("asyncio"), "AbstractEventLoop", ()))


class Loop:
    """The event loop that is running in the current thread, within reach from elsewhere."""

    def __init__(self) -> None:
        self._native: Any = running_loop()

    def call(self, function: Callable[[], object]) -> bool:
        """
        Call ``function`` in this loop: at once if the caller is a task in it, soon otherwise.

        :return: ``False`` if the loop is closed by now: nothing is left to call

        """
        native = self._native
        on_asyncio = is_of_asyncio(native)
        is_current = is_current_on_asyncio if on_asyncio else is_current_on_trio
        if is_current(native) and not _in_signal_handler():
            function()
            return True
        # asyncio's and trio's public ways in from a foreign thread. Neither blocks, so they suit a
        # signal handler, too, where anyio.from_thread.run_sync() would wait for itself.
        soon = native.call_soon_threadsafe if on_asyncio else native.run_sync_soon
        try:
            soon(function)
        except RuntimeError:
            return False
        return True


def is_current_on_asyncio(native: object) -> bool:
    """Tell whether a task of this event loop of asyncio is running here."""
    asyncio: Any = sys.modules["asyncio"]
    try:
        is_task = asyncio.get_running_loop() is native and asyncio.current_task() is not None
    except RuntimeError:
        return False
    return is_task and not _is_in_trio_task()


def is_current_on_trio(native: object) -> bool:
    """Tell whether a task of this run of trio, given by its token, is running here."""
    return _is_in_trio_task() and sys.modules["trio"].lowlevel.current_trio_token() is native


def _in_signal_handler() -> bool:
    """
    Tell whether the caller is a signal handler, which has interrupted the task at any instruction.

    The task may be inside an ``Event.set()`` of the backend, which must not be entered again. What
    gives a handler away is that it is passed the very frame that it will return to.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    # Neither this function nor its caller is one.
    here = inspect.currentframe()
    frame = here and here.f_back and here.f_back.f_back
    del here
    # As far as the code of a task: what has interrupted that would have come first.
    while frame is not None and not frame.f_code.co_flags & _COROUTINE:
        interrupted = frame.f_back
        # The arguments are (number, frame). To look into the frame of a generator would keep its
        # variables alive for as long as that runs, and no handler is one.
        if interrupted is not None and not frame.f_code.co_flags & _GENERATOR:
            for value in frame.f_locals.values():
                if value is interrupted or (type(value) is tuple and value[1:] == (interrupted,)):
                    return True
        frame = interrupted
    return False


_GENERATOR: int = inspect.CO_GENERATOR
_COROUTINE: int = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
