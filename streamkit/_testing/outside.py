"""
What a run waits for that virtual time knows nothing of: threads, and peers outside of the loop.

They take real time, and a limit on that has expired by then. So what comes of an interruption there
says nothing, and is not counted: neither for the code, nor against it.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from .backend import on_trio
from .places import A_SOCKET, A_THREAD, Place
from .virtual_time import QUIET_PASSES, VirtualTimeLoop

if TYPE_CHECKING:
    from concurrent.futures import Executor

# For what other threads send to it.
_OF_TRIO_ITSELF = 1

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class OutsideLoop(VirtualTimeLoop):
    """Virtual time that notes who leaves it."""

    def __init__(self) -> None:
        super().__init__()
        #: Whether anything was connected to, or started, while nothing here listens.
        self.reaches_out: bool = False
        self._listens = False
        # There is no socket to look at.
        self._quiet_passes = 1
        self._in_threads: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()

    def awaits_thread(self, awaited: object) -> bool:
        """Tell whether this is what a thread has been given to."""
        return isinstance(awaited, asyncio.Future) and awaited in self._in_threads

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Have a thread call something."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads.add(future)
        return future


def _noting(name: str, *, listens: bool) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._quiet_passes = QUIET_PASSES
        if listens:
            self._listens = True
        elif not self._listens:
            self.reaches_out = True
        return getattr(super(OutsideLoop, self), name)(*args, **kwargs)

    call.__name__ = name
    return call


for _name in (
    "create_connection",
    "create_unix_connection",
    "create_datagram_endpoint",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_exec",
    "subprocess_shell",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_sendall",
    "add_reader",
    "add_writer",
):
    setattr(OutsideLoop, _name, _noting(_name, listens=False))
for _name in ("create_server", "create_unix_server", "sock_accept"):
    setattr(OutsideLoop, _name, _noting(_name, listens=True))


def nothing(place: Place, awaited: object) -> str | None:
    """Say that nothing is outside, for time is real."""
    return None


def outside_of_virtual_time(place: Place, awaited: object) -> str | None:
    """Say what of the world outside a wait is for, if virtual time knows nothing of it."""
    if place.waits_for is not None:
        return place.waits_for
    loop = asyncio._get_running_loop()
    if not isinstance(loop, OutsideLoop):
        return A_SOCKET if on_trio() and _trio_waits_for_sockets() else None
    if loop.awaits_thread(awaited):
        return A_THREAD
    return A_SOCKET if loop.reaches_out else None


def _trio_waits_for_sockets() -> bool:
    waiting = sys.modules["trio"].lowlevel.current_statistics().io_statistics
    tasks = sum(getattr(waiting, f"tasks_waiting_{what}", 0) for what in ("read", "write"))
    return tasks > _OF_TRIO_ITSELF


Outside = Callable[[Place, object], str | None]
Main = Callable[[], Coroutine[Any, Any, None] | Awaitable[None]]
