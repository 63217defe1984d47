"""The backend matrix: what every test of the suite runs on."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import anyio
import trio

from streamkit._testing.virtual_time import trio_clock
from streamkit.testing import VirtualTimeLoop

from .leaks import LeakCheck, LeakError, live_tasks, on_trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds after which a test counts as hung and is cancelled. One that resists is left to
# the longer faulthandler_timeout.
HUNG_AFTER = 60.0

# Names of all backends that this Python has.
BACKENDS = ["asyncio"]
if sys.platform != "win32":
    import uvloop

    from .virtual_time import VirtualUvloop

    BACKENDS.append("asyncio+uvloop")
if sys.version_info >= (3, 12):
    BACKENDS.append("asyncio+eager")
BACKENDS.append("trio")


class Backend:
    """One way to run async code. A test gets it as the argument ``backend``.

    :param name: one of :data:`BACKENDS`
    :param real: use the real clock, for threads, child processes and sockets
    :param allow_gc_generators: do not fail on async generators that nobody closed

    """

    def __init__(self, name: str, *, real: bool = False, allow_gc_generators: bool = False) -> None:
        self.name = name
        self.real = real
        self.allow_gc_generators = allow_gc_generators
        #: names of the async generators that the garbage collector closed in the last run
        self.finalized: list[str] = []

    def __repr__(self) -> str:
        return f"<Backend {self.name}{' in real time' if self.real else ''}>"

    @property
    def is_trio(self) -> bool:
        return self.name == "trio"

    def run(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run a coroutine function on a fresh loop and return its result.

        :raises LeakError: if it passes but leaves something behind

        """
        __tracebackhide__ = True
        check = LeakCheck(allow_gc_generators=self.allow_gc_generators)
        self.finalized = check.finalized

        async def main() -> T:
            __tracebackhide__ = True
            with _watchdog(check):
                return await check.run(fn, *args)
            raise AssertionError("the watchdog cancelled the test")

        # The collections of this run look at its own objects only: what pytest keeps of each test
        # would make every further test slower.
        gc.freeze()
        try:
            result = self.run_bare(main)
        except BaseException as exc:
            for problem in check.problems():
                exc.add_note(f"In addition: {problem}")
            raise
        # Here and not in a fixture, so that a warning in a ``__del__`` belongs to this test.
        gc.collect()
        if problems := check.problems():
            raise LeakError("\n".join(problems))
        return result

    def run_bare(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run a coroutine function on a fresh loop as :meth:`run` does, without its checks."""
        if self.is_trio:
            # Not by anyio.run(), which lets go of the options for trio before anyio 4.14.
            return trio.run(fn, *args, clock=None if self.real else trio_clock())
        options = {"loop_factory": self.new_loop}
        if self.real and self.name == "asyncio":
            # Its check for calls from the wrong thread is what counts; it makes each
            # call_soon() ten times slower, so it is left to the tests that use threads.
            options["debug"] = True
        return anyio.run(fn, *args, backend="asyncio", backend_options=options)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return a fresh loop of asyncio, for a run of one's own."""
        loop: asyncio.AbstractEventLoop
        if sys.platform != "win32" and self.name == "asyncio+uvloop":
            return uvloop.new_event_loop() if self.real else VirtualUvloop()
        loop = asyncio.new_event_loop() if self.real else VirtualTimeLoop()
        if sys.version_info >= (3, 12) and self.name == "asyncio+eager":
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop


@contextmanager
def _watchdog(check: LeakCheck) -> Iterator[None]:
    """Cancel the calling task if it takes too long; a hung test should say where it hangs."""
    scope = trio.CancelScope()
    cancel: Callable[[], object]
    if on_trio():
        token = trio.lowlevel.current_trio_token()
        call_soon: Callable[[Callable[[], object]], object] = token.run_sync_soon
        cancel = scope.cancel
    else:
        task = asyncio.current_task()
        assert task is not None
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
        cancel = task.cancel

    def bark() -> None:
        tasks = "\n".join(map(repr, live_tasks()))
        check.add(f"cancelled after {HUNG_AFTER} s of real time; live tasks:\n{tasks}")
        cancel()

    timer = threading.Timer(HUNG_AFTER, call_soon, [bark])
    timer.name = "watchdog"
    timer.daemon = True
    timer.start()
    try:
        if on_trio():
            with scope:
                yield
        else:
            yield
    finally:
        timer.cancel()
        timer.join()
