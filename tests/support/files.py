"""Logs in a file, in virtual time: what their thread does is done at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from streamkit._sqlite.clock import Clock
from streamkit._sqlite.transaction import News
from streamkit._sqlite.worker import Worker
from streamkit.sqlite import SQLiteLog

if TYPE_CHECKING:
    from streamkit._sqlite.worker import Call


class VirtualClock(Clock):
    """The clock of the event loop, and one on the wall that goes with it."""

    def now(self) -> float:
        return anyio.current_time()

    def wall(self) -> float:
        return 1.7e9 + anyio.current_time()


class WorkerAtOnce(Worker):
    """Does in the event loop, where it is asked for, what the thread would do."""

    _ended: Call[Any]

    def start(self, opened: Call[Any], ended: Call[Any], name: str) -> None:
        self._ended = ended
        self._open(opened)

    def end(self) -> None:
        self._database.close()
        self._deliver([self._ended], News())

    def write(self, call: Call[Any]) -> None:
        super().write(call)
        self.step()

    def read(self, call: Call[Any]) -> None:
        super().read(call)
        self.step()

    def step(self) -> float:
        while True:
            self._next_look = 0.0
            wait = super().step()
            if wait > 0 and not self._has_calls:
                return wait


class VirtualSQLiteLog(SQLiteLog):
    """A log in a file, in the time of the event loop."""

    _worker = WorkerAtOnce
    _clock = VirtualClock
