"""
Virtual time: for asyncio and uvloop, to match ``trio.testing.MockClock(autojump_threshold=0)``.

The two loops share only their public interface, so the mixin uses nothing else. It keeps the timers
in a heap of its own, and learns that the loop is idle from a *tick*: a callback that goes to the
end of the ready queue, and checks whether anybody has called ``call_soon`` since the last tick.
Patching the selector or ``time.monotonic`` would be shorter, but uvloop has no selector and reads
another clock.

Rules:

* Time stands still while anything is runnable. Then it jumps to the next timer.
* Timers with equal deadlines run in the order in which they were made.
* Without timers there is no tick, so a loop that waits for a thread sleeps in its poll.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from contextvars import Context
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")

# Not 0, so that a deadline used as a duration shows up. The same on every backend.
START = 1000.0

# One quiet pass is not enough. The last callback may have written to a socket. The poll of the
# second pass finds that, and queues the reader behind the tick. Only the third pass sees it.
QUIET_PASSES = 3

# anyio repeats a cancellation with ``call_soon`` while a task in the scope resists (one that waits
# in ``asyncio.TaskGroup.__aexit__``, for instance). In real time, that spins until the task is
# ready. Here it would stop the clock for ever. So after this many passes in a row with a repeated
# cancellation, the loop counts as idle.
SPIN_PASSES = 1000


class Timer(asyncio.TimerHandle):
    """A timer in virtual time. Where only a block is virtual, it may outlive that."""

    #: Called with it when it is cancelled.
    forget: Callable[[Timer], None]
    #: The timer in its place, from the end of the block on.
    in_real_time: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Cancel it."""
        # The event loop is not told: after the block, it is one that does not know of it.
        if self.in_real_time is not None:
            self.in_real_time.cancel()
        elif not self.cancelled():
            self.forget(self)
        asyncio.Handle.cancel(self)


class VirtualTime(asyncio.AbstractEventLoop):
    """
    Mixin for an event loop class: its time stands still while anything is runnable, and then jumps
    to the next timer.

    ``class VirtualUvloop(VirtualTime, uvloop.Loop)`` is uvloop in virtual time. The time begins at
    1000.0 seconds, so that a deadline that is used as a duration shows up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begin(START)

    def _begin(self, now: float) -> None:
        self._has_ended = False
        self.slow_callback_duration: float = math.inf  # a jump is not a slow callback
        #: How many passes in a row must be quiet until the loop counts as idle.
        self._quiet_passes = QUIET_PASSES
        self._now = now
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Timer]] = []
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._armed = False
        self._busy = self._spinning = False  # what was scheduled since the last tick
        self._quiet = self._spins = 0  # passes in a row
        # A context of its own: otherwise the tick would keep alive what its creator's context
        # holds.
        self._tick_context = Context()

    def _end(self) -> list[tuple[float, Timer]]:
        """Return the timers that are left, with the seconds until they are due."""
        timers, self._timers, self._has_ended = self._timers, [], True
        return [(when - self._now, handle) for when, _, handle in timers]

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something with the next pass."""
        self._busy = True
        if getattr(callback, "__name__", "") == "_deliver_cancellation":
            self._spinning = True
        return super().call_soon(callback, *args, context=context)  # pyright: ignore[reportAbstractUsage]

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something with the next pass, from any thread."""
        self._busy = True
        return super().call_soon_threadsafe(callback, *args, context=context)  # pyright: ignore[reportAbstractUsage]

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call something after a number of virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call something at a virtual time."""
        handle = Timer(when, callback, args, self, context)
        handle.forget = self._forget
        heapq.heappush(self._timers, (when, next(self._order), handle))
        self._arm()
        return handle

    def _forget(self, handle: Timer) -> None:
        # Removed at once, as in uvloop: a handle keeps its context alive, which leak tests would
        # see.
        self._timers = [timer for timer in self._timers if timer[2] is not handle]
        heapq.heapify(self._timers)

    async def wait_idle(self) -> None:
        """
        Wait until nothing is runnable, before time jumps to the next timer.

        :func:`anyio.wait_all_tasks_blocked` sleeps on asyncio, and so lets virtual time pass.
        """
        future = self.create_future()
        self._idle_waiters.append(future)
        self._arm()
        await future

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  as in asyncio
    ) -> None:
        """Join the threads of the default executor, however long that takes."""
        # Joining threads takes real time: a limit in virtual time would expire at once.
        await super().shutdown_default_executor()  # pyright: ignore[reportAbstractUsage]

    def _next_timer(self) -> float:
        return self._timers[0][0] if self._timers else math.inf

    def _arm(self) -> None:
        if not self._armed and (self._idle_waiters or self._next_timer() < math.inf):
            self._armed = True
            super().call_soon(self._tick, context=self._tick_context)  # pyright: ignore[reportAbstractUsage]

    def _tick(self) -> None:
        if self._has_ended:
            return
        self._armed = False
        self._quiet = 0 if self._busy else self._quiet + 1
        self._spins = self._spins + 1 if self._spinning else 0
        self._busy = self._spinning = False
        if self._quiet >= self._quiet_passes or self._spins >= SPIN_PASSES:
            self._quiet = self._spins = 0
            if self._idle_waiters:
                self._release_idle_waiters()
            else:
                # The last timer may have been cancelled meanwhile.
                when = self._next_timer()
                self._now = max(self._now, when) if when < math.inf else self._now
        # Also without a jump: a timer that is already due does not wait for the loop to be idle.
        while self._next_timer() <= self._now:
            _, _, handle = heapq.heappop(self._timers)
            # Queued, not called, so that a KeyboardInterrupt in one does not lose the others.
            super().call_soon(_run_timer, handle, context=self._tick_context)  # pyright: ignore[reportAbstractUsage]
        self._arm()

    def _release_idle_waiters(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)


def _run_timer(handle: asyncio.TimerHandle) -> None:
    if not handle.cancelled():
        handle._run()


class VirtualTimeLoop(VirtualTime, asyncio.SelectorEventLoop):
    """
    The event loop of asyncio in virtual time, for whatever takes a ``loop_factory``.

    Only time is virtual: threads, processes and peers take real time, and by then any limit on the
    wait has expired.
    """


# Before this version of anyio, anyio.run() drops the options for trio.
_HANDS_ON = (4, 14)


def trio_clock() -> Any:
    """Return a clock for one run of trio."""
    clock = import_module("trio.testing").MockClock(autojump_threshold=0)
    clock.jump(START)
    return clock


def virtual_time(backend: str = "asyncio") -> dict[str, Any]:
    """
    Return options for :func:`anyio.run` with which a program runs in virtual time.

    Waiting takes no time: while nothing is runnable, time jumps to the next timer. Call it for each
    run: the options serve for one run only.

    :param backend: ``"asyncio"`` or ``"trio"``
    :return: the keyword arguments ``backend`` and ``backend_options``
    :raises ValueError: if it is another backend
    :raises RuntimeError: for Trio, if this version of anyio would drop the options

    """
    if backend == "asyncio":
        return {"backend": backend, "backend_options": {"loop_factory": VirtualTimeLoop}}
    if backend == "trio":
        if tuple(map(int, version("anyio").split(".")[:2])) < _HANDS_ON:
            raise RuntimeError(
                "anyio.run() hands no options on to trio before anyio 4.14: install a later one, "
                "or write trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))"
            )
        return {"backend": backend, "backend_options": {"clock": trio_clock()}}
    raise ValueError(f"there is virtual time on 'asyncio' and on 'trio', not on {backend!r}")
