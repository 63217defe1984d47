"""
Wake the sending task from any thread, and wait until it has nothing left to send.

Keys are held and cancelled in any thread, while one task in the registry's own loop talks to the
server. That task is told that there is something to do, and finds out by itself what it is.
"""

from __future__ import annotations

import anyio

from .._core.loop import Loop


class Work:
    """Whether there is something to do for the sending task."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._some = anyio.Event()
        self._none = anyio.Event()
        self._closed = False

    def open(self) -> None:
        """Note the loop of the sending task, which is the running one."""
        self._loop = Loop()

    def announce(self) -> None:
        """Wake the sending task. May be called from any thread, and before :meth:`open`."""
        if self._loop is not None:
            self._loop.call(self._announce)

    def _announce(self) -> None:
        self._some.set()
        if self._none.is_set() and not self._closed:
            self._none = anyio.Event()

    def next(self) -> anyio.Event:
        """
        Return an event that is set when something is announced from now on.

        Call it before looking at what there is: anything later sets the event.
        """
        self._some = anyio.Event()
        return self._some

    def finish(self) -> None:
        """Note that everything is done."""
        self._none.set()

    def close(self) -> None:
        """Note that the sending task has ended: nobody waits for it from now on."""
        self._closed = True
        self._none.set()

    @property
    def is_finished(self) -> bool:
        """Whether everything that was announced is done."""
        return self._none.is_set()

    async def wait_finished(self) -> None:
        """Wait until everything is done, or nobody is left to do it."""
        await self._none.wait()
