"""Call a function in a given event loop, from any thread, without waiting for it."""

from __future__ import annotations

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
        if self._is_current():
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
