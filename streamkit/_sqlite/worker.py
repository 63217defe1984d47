"""
The thread that uses the file: each event loop has only this one.

While it works, the writes of all runs of the loop gather, and become the next transaction. So many
appends share one commit, and a single one is written at once: there is no delay. Writes go before
reads, and reads are done in small portions, so leases are renewed however many readers there are.

The thread never waits for the event loop. If the caller of a call has gone, the call is skipped,
or, if it was begun, its result is dropped. If the event loop has ended without closing the session,
the thread notices the next time that it delivers something, which is at least once a minute.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

import anyio

from .._runs.errors import LogFull, LogUnavailable, RunExists, RunNotFound, RunRunning
from .database import Away, Database
from .transaction import News

_logger = logging.getLogger("streamkit")

#: Seconds between two looks at what other processes have written, if that matters.
POLL = 0.05

# The most calls in a transaction.
_MOST_WRITES = 1_000
_MOST_READS = 100

# Seconds until the next try when the file cannot be used, besides SQLite's own wait.
_AGAIN = 0.02

# The errors that are raised to the caller. Each comes before the call has changed anything.
_SAID = (LogFull, RunExists, RunNotFound, RunRunning, ValueError)

# Seconds after which an empty delivery checks whether the event loop is still there.
_WORD = 60.0

T = TypeVar("T")


class Call(Generic[T]):
    """
    Something to do with the file, and its result.

    :param function: called in the thread, with a transaction or a reading, and again if that fails
    :param then: called in the event loop if it was done, before its caller goes on
    :param undo: run instead of ``then`` if its caller has gone

    """

    __slots__ = (
        "function",
        "is_done",
        "is_given_up",
        "is_over",
        "raised",
        "returned",
        "then",
        "undo",
    )

    def __init__(
        self,
        function: Callable[[Any], T],
        then: Callable[[T], object] | None = None,
        undo: Callable[[Any], object] | None = None,
    ) -> None:
        self.function = function
        self.then = then
        self.undo = undo
        self.returned: T
        self.raised: BaseException | None = None
        self.is_done: bool = False
        self.is_over: anyio.Event = anyio.Event()
        #: Set when its caller has gone.
        self.is_given_up: bool = False

    def run(self, target: Any, /) -> None:
        self.is_done, self.raised = False, None
        if self.is_given_up:
            return
        try:
            self.returned = self.function(target)
            self.is_done = True
        except _SAID as exc:
            self.fail(exc)

    def fail(self, error: Exception) -> None:
        """Note that nothing was done."""
        self.is_done, self.raised = False, error.with_traceback(None)


class Client(Protocol):
    """The event loop's side of a worker, called in the thread."""

    def deliver(self, calls: list[Call[Any]], news: News) -> bool:
        """Take results and news. Returns whether there is still an event loop."""
        ...

    def interest(self) -> tuple[Collection[str], Mapping[str, str]]:
        """Return the runs that are watched, and the epochs of those that go on here."""
        ...

    def is_watched(self, run_id: str) -> bool:
        """Tell whether a run is being watched here."""
        ...


class Worker:
    """
    The work of the thread.

    :param database: the file
    :param client: the event loop's side

    """

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client
        self._changed = threading.Condition()
        self._writes: deque[Call[Any]] = deque()
        self._reads: deque[Call[Any]] = deque()
        self._is_ending = False
        self._is_woken = False
        #: When to look for what others have written, and whether that matters to anybody.
        self._next_look = 0.0
        self._matters = False
        #: When to check whether the event loop is still there.
        self._next_word = 0.0
        #: What is wrong with the file, or ``None``.
        self.trouble: str | None = None

    def start(self, opened: Call[Any], ended: Call[Any], name: str) -> None:
        """
        Start the thread.

        :param opened: is over when the file is open, or cannot be opened
        :param ended: is over when the thread has ended

        """
        # A daemon, so that the program can end without it.
        threading.Thread(
            target=self._run, args=[opened, ended], name=f"thread of {name}", daemon=True
        ).start()

    def end(self) -> None:
        """End the thread after its remaining work. Never blocks for long."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()

    def write(self, call: Call[Any]) -> None:
        """Add a call for a transaction."""
        with self._changed:
            self._writes.append(call)
            self._changed.notify()

    def read(self, call: Call[Any]) -> None:
        """Add a call for a reading."""
        with self._changed:
            self._reads.append(call)
            self._changed.notify()

    def wake(self) -> None:
        """Make the thread check now what matters."""
        with self._changed:
            self._next_look, self._is_woken = 0.0, True
            self._changed.notify()

    # In the thread

    def _run(self, opened: Call[Any], ended: Call[Any]) -> None:
        try:
            if self._open(opened):
                wait = 0.0
                # Calls that are left at the end were made before it.
                while self._has_calls or not self._is_ending:
                    self._wait(wait)
                    wait = self.step()
        except BaseException:
            _logger.exception("a thread that keeps runs in a file has failed")
            self.trouble = "its thread has failed"
        finally:
            self._database.close()
            left = [*self._writes, *self._reads]
            for call in left:
                call.fail(LogUnavailable(f"the log was left, and {self.trouble}"))
            self._deliver([*left, ended], News())

    def _wait(self, seconds: float) -> None:
        with self._changed:
            if not (self._is_ending or self._has_calls or self._is_woken):
                self._changed.wait(seconds)
            self._is_woken = False

    def _open(self, opened: Call[Any]) -> bool:
        """Open the file. Returns whether it is open."""
        while not self._is_ending:
            try:
                self._database.open()
            except sqlite3.Error as exc:
                # Somebody has locked it, or the disk is full.
                self.trouble = str(exc)
                self._wait(_AGAIN)
                continue
            except Exception as exc:
                opened.fail(exc)
                self._deliver([opened], News())
                return False
            self.trouble = None
            self._deliver([opened], News())
            return True
        return False

    @property
    def _has_calls(self) -> bool:
        return bool(self._writes or self._reads) and self.trouble is None

    def step(self) -> float:
        """Do the work that there is. Returns the seconds until there is more."""
        trouble: list[str] = []
        for do in self._do_writes, self._do_reads, self._look:
            try:
                do()
            except Away as exc:
                trouble.append(str(exc))
        wait: float = 0.0
        if not trouble and not self._has_calls:
            try:
                news, wait = self._database.tidy()
                self._deliver([], news)
            except Away as exc:
                trouble.append(str(exc))
        self.trouble = trouble[0] if trouble else None
        if trouble:
            return _AGAIN
        return min(wait, self._next_look - time.monotonic()) if self._matters else wait

    def _do_writes(self) -> None:
        self._do(self._writes, _MOST_WRITES, self._write)

    def _do_reads(self) -> None:
        self._do(self._reads, _MOST_READS, self._read)

    def _do(
        self, calls: deque[Call[Any]], most: int, do: Callable[[list[Call[Any]]], News]
    ) -> None:
        """Run calls together, or one by one if one of them makes all of them fail."""
        taken = self._take(calls, most)
        portion = len(taken)
        while taken:
            some = taken[:portion]
            news = News()
            try:
                news = do(some)
            except Away:
                calls.extendleft(reversed(taken))
                raise
            except Exception as exc:
                if portion > 1:
                    portion = 1
                    continue
                some[0].fail(exc)
            del taken[:portion]
            self._deliver(some, news)

    def _write(self, calls: list[Call[Any]]) -> News:
        return self._database.write(calls, self._client.is_watched)

    def _read(self, calls: list[Call[Any]]) -> News:
        for function in self._database.read(calls).afterwards():
            self._writes.append(Call(function))
        return News()

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + POLL
        watched, own = self._client.interest()
        self._matters = bool(watched or own)
        if self._matters:
            self._deliver([], self._database.look(watched, own))

    def _take(self, calls: deque[Call[Any]], most: int) -> list[Call[Any]]:
        taken: list[Call[Any]] = []
        while calls and len(taken) < most:
            call = calls.popleft()
            if not call.is_given_up:
                taken.append(call)
        return taken

    def _deliver(self, calls: list[Call[Any]], news: News) -> None:
        now = time.monotonic()
        if calls or news.changed or news.told or now >= self._next_word:
            self._next_word = now + _WORD
            if not self._client.deliver(calls, news):
                self._is_ending = True
