"""
One event loop that uses a file: the calls that wait there for the thread, and what it delivers.

All waits are for events that the thread has set. So a call may be cancelled at any point: it holds
nothing, and nothing is lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio

from .._core.loop import Loop
from .._core.process import check_process
from .._runs.errors import LogUnavailable
from .._runs.hints import Hints
from .._runs.log import Requests
from .clock import Clock
from .database import FORK_BEFORE, Database
from .opening import warn_of_network
from .patience import Patience
from .reading import Reading
from .transaction import News, Transaction
from .worker import Call, Worker

_logger = logging.getLogger("streamkit")

# The most seconds to wait for the end of the thread. It comes at once, unless the disk hangs.
_END_WITHIN = 5.0

T = TypeVar("T")


class Session:
    """
    The use of a file in one event loop, by one thread.

    :param path: the path of the file
    :param outage: seconds for which a call tries to use the file
    :param worker: the class that does the work

    """

    def __init__(
        self,
        path: str,
        clock: Clock,
        *,
        max_bytes: int,
        follow: float,
        outage: float,
        worker: type[Worker],
    ) -> None:
        #: How many blocks are open.
        self.users: int = 0
        #: Called when the last one is left: new blocks get a new session.
        self.unset: Callable[[], None]
        self.hints: Hints = Hints()
        self._path = path
        self._outage = outage
        self._loop = Loop()
        self._patience = Patience(outage)
        #: The runs that go on here: their epochs, and what is called with requests.
        self._own: dict[str, tuple[str, Callable[[Requests], object]]] = {}
        self._opened: Call[None] = Call(_nothing)
        self._ended: Call[None] = Call(_nothing)
        database = Database(path, clock, max_bytes, follow)
        self._worker = worker(database, self)
        self._process = os.getpid()
        self._has_started = False
        self._is_closed = False

    def check_process(self) -> None:
        """
        Check that this is not a fork of the process that has the thread, and perhaps a lock.

        :raises RuntimeError: if it is a fork

        """
        check_process(self._path, self._process, FORK_BEFORE)

    async def open(self) -> None:
        """
        Wait until the file is open. May be called by several tasks.

        :raises LogUnavailable: if it was locked, or there was no room, for the whole of the outage

        """
        if not self._has_started:
            self._has_started = True
            warn_of_network(self._path)
            self._worker.start(self._opened, self._ended, self._path)
        with anyio.move_on_after(self._outage):
            await self._opened.is_over.wait()
        if not self._opened.is_over.is_set():
            raise self._unavailable()
        if self._opened.raised is not None:
            # All waiters get this error.
            raise self._opened.raised

    async def close(self) -> None:
        """End the thread, and wait a while until it has ended, whatever happens."""
        self._is_closed = True
        self._worker.end()
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _END_WITHIN):
                await self._ended.is_over.wait()
        finally:
            self._patience.close()
        await self._patience.settle()
        if not self._ended.is_over.is_set():
            _logger.warning("the disk of %s does not answer: its thread is left behind", self._path)

    # For calls

    async def write(
        self,
        function: Callable[[Transaction], T],
        then: Callable[[T], object] | None = None,
        undo: Callable[[Transaction], object] | None = None,
    ) -> T:
        """
        Have the thread run a function in a transaction, and wait for the result.

        :param then: called in the event loop with the result, even if nobody waits for it by then
        :param undo: run in a transaction instead of ``then``, if nobody waits by then

        """
        call = Call(function, then, undo)
        self._check_open()
        self._worker.write(call)
        try:
            return await self._wait_for(call)
        except BaseException:
            # Due to Task.cancel(), which may come even when the wait is over.
            if call.is_done and not call.is_given_up and undo is not None:
                self._worker.write(Call(undo))
            raise

    async def read(self, function: Callable[[Reading], T]) -> T:
        """Have the thread run a function that reads, and wait for the result."""
        call = Call(function)
        self._check_open()
        self._worker.read(call)
        return await self._wait_for(call)

    def is_own(self, run_id: str) -> bool:
        """Tell whether a run goes on here."""
        return run_id in self._own

    def keep_told(self, run_id: str, epoch: str, notify: Callable[[Requests], object]) -> None:
        """From now on, tell a producer what it is asked."""
        self._own[run_id] = epoch, notify
        self._worker.wake()

    def forget(self, run_id: str, epoch: str) -> None:
        """Tell a producer nothing more."""
        if self._own.get(run_id, ("",))[0] == epoch:
            del self._own[run_id]

    def wake(self) -> None:
        """Make the thread check now what matters here."""
        self._worker.wake()

    async def _wait_for(self, call: Call[T]) -> T:
        await self._patience.wait(call)
        if call.is_given_up:
            raise self._unavailable()
        if call.raised is not None:
            raised, call.raised = call.raised, None
            try:
                raise raised
            finally:
                # Its traceback includes this frame.
                del raised, call
        return call.returned

    def _unavailable(self) -> LogUnavailable:
        why = self._worker.trouble or "it does not answer"
        return LogUnavailable(f"{self._path} could not be used for {self._outage} seconds: {why}")

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the log was left: make its calls in the block of open()")

    # For the thread

    def deliver(self, calls: list[Call[Any]], news: News) -> bool:
        """Take results and news, in the thread. Returns whether there is still an event loop."""
        return self._loop.call(partial(self._take, calls, news))

    def interest(self) -> tuple[Collection[str], Mapping[str, str]]:
        """Return the runs that matter here. Called in the thread."""
        # Each is copied in one atomic step, because the loop goes on meanwhile.
        own = self._own.copy()
        return tuple(self.hints.watched), {run_id: epoch for run_id, (epoch, _) in own.items()}

    def is_watched(self, run_id: str) -> bool:
        """Tell whether a run is being watched here. Called in the thread."""
        return run_id in self.hints.watched

    def _take(self, calls: list[Call[Any]], news: News) -> None:
        for call in calls:
            if call.is_done and call.is_given_up and call.undo is not None:
                self._worker.write(Call(call.undo))
            elif call.is_done and call.then is not None:
                call.then(call.returned)
            call.is_over.set()
        for run_id in news.changed:
            self.hints.tell(run_id)
        for run_id, epoch, requests in news.told:
            known = self._own.get(run_id)
            if known is not None and known[0] == epoch:
                if requests.fenced:
                    del self._own[run_id]
                known[1](requests)


def _nothing(target: object) -> None:
    """Do nothing: such a call is only waited for."""
