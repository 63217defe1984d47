"""
What a run waits for outside of virtual time: threads, and peers outside of the event loop.

They take real time, and by then any limit on the wait has expired. So an interruption there shows
nothing, and counts neither for the code nor against it.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from .backend import on_trio
from .leftovers import body_of, live_tasks
from .places import A_SOCKET, A_THREAD, Place, place_of
from .virtual_time import QUIET_PASSES, VirtualTimeLoop

if TYPE_CHECKING:
    from concurrent.futures import Executor

_ANYWHERE = Place((), ("", 0))
# One socket, over which other threads wake trio.
_OF_TRIO_ITSELF = 1

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class OutsideLoop(VirtualTimeLoop):
    """Virtual time that notes calls to the outside."""

    def __init__(self) -> None:
        super().__init__()
        #: Whether a connection was made, or a process was started, while nothing here listens.
        self.reaches_out: bool = False
        self._listens = False
        # Enough while there is no socket to poll.
        self._quiet_passes = 1
        self._in_threads: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()

    def awaits_thread(self) -> bool:
        """Tell whether anything called in a thread goes on, whoever waits for it."""
        return any(not future.done() for future in self._in_threads)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call something in a thread."""
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


def nothing(place: Place) -> str | None:
    """Return ``None``: in real time, nothing is outside."""
    return None


def outside_of_virtual_time(place: Place) -> str | None:
    """Return what a wait is for, if that is outside of virtual time."""
    if place.waits_for is not None:
        return place.waits_for
    loop = asyncio._get_running_loop()
    if not isinstance(loop, OutsideLoop):
        # Asking is slow, and at a yield it waits for its consumer only.
        asks = not place.at_yield and on_trio()
        return A_SOCKET if asks and _trio_waits_for_sockets() else None
    if not place.at_yield and loop.awaits_thread():
        return A_THREAD
    return A_SOCKET if loop.reaches_out else None


def waits_outside() -> str | None:
    """Return what any task of the event loop waits for, if that is outside of virtual time."""
    if any(place_of(body_of(task)).waits_for == A_THREAD for task in live_tasks()):
        return A_THREAD
    return outside_of_virtual_time(_ANYWHERE)


def _trio_waits_for_sockets() -> bool:
    waiting = sys.modules["trio"].lowlevel.current_statistics().io_statistics
    tasks: int = getattr(waiting, "tasks_waiting_read", 0)
    tasks += getattr(waiting, "tasks_waiting_write", 0)
    return tasks > _OF_TRIO_ITSELF


Outside = Callable[[Place], str | None]
Main = Callable[[], Coroutine[Any, Any, None] | Awaitable[None]]
