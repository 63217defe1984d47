"""A timer of asyncio's event loop, which gets a task only when the time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .timer import Timer


class AsyncioTimer(Timer):
    """A timer of the event loop."""

    __slots__ = ("_handle", "_loop")

    def __init__(
        self, function: Callable[[], object], fail: Callable[[BaseException], object]
    ) -> None:
        super().__init__(function, fail)
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None

    def _schedule(self, when: float) -> None:
        self._handle = self._loop.call_at(when, self._start, context=self._context)

    def _start(self) -> None:
        # A task, because outside of one, anyio may not know which event loop is running. No task
        # factory makes it: it should run in the next pass of the loop, as a task that slept until
        # now would.
        self._handle = None
        asyncio.Task(self._run(), loop=self._loop, name="timer of a stream")

    async def _run(self) -> None:
        # Neither closed nor set anew since.
        if self._handle is None and not self._is_closed:
            self._call()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
