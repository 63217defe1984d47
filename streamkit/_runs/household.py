"""
Where runs live: a block that opens the log first, and ends after the last run.

After the notice of a shutdown, no run is started; when the time to finish is over, the runs are
told; when all have ended, the readers have some seconds, and the log is closed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio.abc import TaskGroup

from .._core.exceptions import bare, both, error_in
from .._core.process import check_process
from .._http.host import StreamHost
from .._http.termination import Termination
from .._signals.token import CancelToken
from .attendance import Attendance
from .burial import Burial
from .errors import LogFull, RunsClosed
from .log import RunLog
from .producer import Producer
from .reasons import Shutdown


class Household:
    """
    Runs and their readers, while a block is open.

    :param log: where they are kept
    :param host: its notice of a shutdown holds for runs, too, or ``None``
    :param finish: seconds that runs may go on after the notice
    :param grace: seconds that readers have in the end
    :param max_runs: how many runs may go on at once, or ``None``
    :param burial: ends runs whose process has died
    :raises TypeError: if the host is not a host
    :raises ValueError: if the time to finish is given twice

    """

    def __init__(
        self,
        log: RunLog,
        host: StreamHost | None,
        finish: float,
        grace: float,
        max_runs: int | None,
        burial: Burial,
    ) -> None:
        _check_host(host, finish)
        self.host: StreamHost | None = host
        self._log = log
        self._finish = finish
        self._grace = grace
        self._max_runs = max_runs
        self._burial = burial
        self._state: Literal["closed", "open", "closing"] = "closed"
        #: The process in which the block was entered.
        self._process: int
        #: Runs that are in a task here, even if the log does not have them yet.
        self._producers: set[Producer] = set()
        #: Those of them that the log has, by their ids.
        self._own: dict[str, Producer] = {}
        self._tasks: TaskGroup
        self._stack: AsyncExitStack
        self._attendance: Attendance
        self._termination: Termination | None = None
        self._notice = CancelToken()
        self._empty: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._log!r}, {self._state}, {len(self._own)} go on>"

    async def __aenter__(self) -> Self:
        """
        Open the log, and the tasks in which runs live.

        :raises RuntimeError: if the block is open already

        """
        if self._state != "closed":
            check_process(self, self._process)
            raise RuntimeError(f"{self!r} is entered once at a time: make another one")
        self._state, self._process = "closing", os.getpid()
        self._notice, self._empty = CancelToken(), None
        self._attendance = Attendance(self._log, self._burial.look, self._is_own)
        self._termination = None if self.host is not None else Termination()
        try:
            async with AsyncExitStack() as stack:
                if self.host is not None:
                    self._finish = self.host.join(self)
                    stack.callback(self.host.part, self)
                await stack.enter_async_context(self._log.open())
                self._tasks = await stack.enter_async_context(anyio.create_task_group())
                self._stack = stack.pop_all()
        except BaseException:
            self._state = "closed"
            raise
        self._tasks.start_soon(self._attendance.run, name=f"attendance of {self!r}")
        self._tasks.start_soon(self._burial.tell, name=f"burial of {self!r}")
        self._tasks.start_soon(self._tell_at_notice, name=f"notice of {self!r}")
        if self._termination is not None:
            self._tasks.start_soon(self._watch, self._termination, name=f"watcher of {self!r}")
        self._state = "open"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Shut down, and wait until every run has ended.

        Each has what is left of ``finish``, its grace, and the time of its ``on_end``. If this wait
        is cancelled, the runs are told at once. Attached streams then have ``grace`` seconds to
        read what is there; those that wait for a run of another process get :exc:`RunsClosed`.
        """
        self._state = "closing"
        self.shut_down()
        leaving: BaseException | None = exc
        try:
            await self._until_empty()
        except BaseException as interrupted:
            leaving = both(error_in(exc), interrupted)
        self._tell_all()
        try:
            # By now the runs are ending, which is bounded.
            with anyio.CancelScope(shield=True):
                await self._until_empty()
                await self._attendance.close(self._grace)
        except BaseException as interrupted:
            # By Task.cancel(), which comes through the shield. The runs are waited for below.
            leaving = both(error_in(leaving), interrupted)
        self._tasks.cancel_scope.shield = True
        self._tasks.cancel_scope.cancel()
        try:
            # The task group does not get the exception of the block: it would come back in a group.
            await self._stack.__aexit__(None, None, None)
        except BaseException as raised:
            leaving = both(error_in(leaving), bare(raised))
        self._state = "closed"
        if leaving is not None and leaving is not exc:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving, exc, traceback, self

    def shut_down(self) -> None:
        """
        Give notice that the program ends: no further run is started, and the running ones are told
        ``Shutdown()`` in ``finish`` seconds.

        Does not block, and does nothing the second time, or if the block is not open. May be
        called from any thread and from a signal handler.
        """
        self._notice.cancel(Shutdown())

    @property
    def is_shut_down(self) -> bool:
        """Whether the program ends."""
        return self._notice.cancelled

    def notice(self) -> None:
        """Called by the host when the program ends."""
        self.shut_down()

    def tell(self) -> None:
        """Called by the host when the time to finish is over."""
        self._tell_all()

    def check_open(self) -> None:
        """
        Check that the block was entered, in this process.

        :raises RuntimeError: if it was not

        """
        if self._state == "closed":
            raise RuntimeError(
                f"{self!r} was not entered: write 'async with runs:' in the lifespan of the "
                "application"
            )
        check_process(self, self._process)

    def note(self, scope: Mapping[str, Any]) -> None:
        """Note where a request came in, to notice when the server stops listening there."""
        if self._termination is not None:
            self._termination.note(scope)

    async def _admit(self, producer: Producer) -> None:
        """
        Let a run begin, in a task of its own.

        :raises BaseException: the error of the log, or a refusal. The source is then closed, or
            being closed

        """
        refusal = self._refusal()
        if refusal is not None:
            await producer.discard()
            raise refusal
        self._producers.add(producer)
        self._tasks.start_soon(self._run, producer, name=f"run {producer.run_id}")
        await producer.created()
        if producer.lease.needs_keeping:
            lease = producer.lease
            self._tasks.start_soon(lease.keep_up, name=f"lease of run {producer.run_id}")
        if producer.is_cancelled:
            # Its source never starts, and the run ends at once: only on_end is waited for.
            with anyio.CancelScope(shield=True):
                await producer.gone.wait()

    async def _run(self, producer: Producer) -> None:
        try:
            await producer.run(partial(self._own.__setitem__, producer.run_id, producer))
        finally:
            self._producers.discard(producer)
            if self._own.get(producer.run_id) is producer:
                del self._own[producer.run_id]
            if not self._producers and self._empty is not None:
                self._empty.set()

    def _refusal(self) -> Exception | None:
        if self._state != "open" or self._notice.cancelled:
            return RunsClosed()
        if self._max_runs is not None and len(self._producers) >= self._max_runs:
            return LogFull(f"max_runs={self._max_runs} runs go on here: start another one later")
        return None

    async def _tell_at_notice(self) -> None:
        await self._notice.wait()
        self._attendance.send_strangers_away()
        await anyio.sleep(self._finish)
        self._tell_all()

    def _tell_all(self) -> None:
        for producer in tuple(self._producers):
            producer.cancel(Shutdown())

    async def _watch(self, termination: Termination) -> None:
        await termination.wait()
        self.shut_down()

    async def _until_empty(self) -> None:
        if self._producers:
            self._empty = anyio.Event()
            await self._empty.wait()

    def _is_own(self, run_id: str, epoch: str) -> bool:
        producer = self._own.get(run_id)
        return producer is not None and producer.epoch == epoch


def _check_host(given: object, finish: float) -> None:
    if given is None:
        return
    if not isinstance(given, StreamHost):
        raise TypeError(
            f"host must be a StreamHost, got {type(given).__qualname__}: write 'async with "
            "StreamHost() as host, Runs(host=host) as runs:' in the lifespan of the application"
        )
    if finish:
        raise ValueError(
            "the host decides on the time to finish: write StreamHost(finish=...), and no finish= "
            "here"
        )
