"""
Virtual time for an event loop that runs already, for the duration of a block.

The loop gets another class. There is no other way: a test framework makes the loop, and most code
in a test asks the loop for the time. trio asks its clock, which belongs to the run.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .backend import on_trio
from .virtual_time import VirtualTime


@contextmanager
def running_in_virtual_time() -> Generator[None, None, None]:
    """
    Run the running event loop in virtual time.

    :raises RuntimeError: if it cannot, saying what to do
    """
    if on_trio():
        _check_clock()
        yield
        return
    loop: Any = asyncio.get_running_loop()
    if isinstance(loop, VirtualTime):
        yield
        return
    former: Any = type(loop)  # pyright: ignore[reportUnknownVariableType]
    # The loops of asyncio and uvloop allow this. Others raise here.
    loop.__class__ = type(f"Virtual{former.__name__}", (VirtualTime, former), {})
    duration = loop.slow_callback_duration
    # At a whole second: from a broken one, an hour may be over a rounding error too soon.
    now: float = former.time(loop)
    loop._begin(float(math.ceil(now)))
    try:
        yield
    finally:
        timers = loop._end()
        loop.__class__, loop.slow_callback_duration = former, duration
        for seconds, handle in timers:
            handle.in_real_time = loop.call_later(seconds, handle._run)


def _check_clock() -> None:
    trio: Any = sys.modules["trio"]
    import_module("trio.testing")
    if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        return
    raise RuntimeError(
        "trio has a clock for each run: let the fixture anyio_backend return "
        "('trio', {'clock': trio.testing.MockClock(autojump_threshold=0)})"
    )
