"""A function that runs in a task of a host for a request, which may leave before that ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from .._core.exceptions import both

_logger = logging.getLogger("streamkit")


class Lodger:
    """
    One function, and the request that waits for it.

    :param function: what runs
    :param let_go: set when the request should stop waiting

    """

    def __init__(self, function: Callable[[], Awaitable[None]], let_go: anyio.Event) -> None:
        self._function = function
        self._let_go = let_go
        self._scope = anyio.CancelScope()
        self._done = anyio.Event()
        self._error: BaseException | None = None
        self._has_begun = False

    async def run(self) -> None:
        """Run the function, in the task of the host."""
        self._has_begun = True
        try:
            with self._scope:
                await self._function()
        except anyio.get_cancelled_exc_class():
            if not (self._let_go.is_set() or self._scope.cancel_called):
                self._error = anyio.ClosedResourceError("the host of this response was cancelled")
            raise
        except BaseException as exc:
            if not self._let_go.is_set():
                self._error = exc
            elif isinstance(exc, Exception):
                _logger.exception("a stream failed after its client had gone")
            else:
                raise
        finally:
            self._done.set()
            self._let_go.set()
            # The traceback of an error includes this frame.
            del self

    async def wait(self) -> None:
        """Wait for it, in the task of the request. A cancellation of the wait is passed on."""
        leaving: BaseException | None = None
        try:
            await self._let_go.wait()
        except BaseException as exc:
            leaving = exc
        if leaving is not None and not self._let_go.is_set():
            self._scope.cancel()
            if not self._has_begun:
                # A task that asyncio cancels before its first step never begins.
                await cancel_shielded_checkpoint()
            if self._has_begun:
                with anyio.CancelScope(shield=True):
                    await self._done.wait()
        leaving, self._error = both(leaving, self._error), None
        if leaving is not None:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving, self
