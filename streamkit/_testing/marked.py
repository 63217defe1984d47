"""What the markers for pytest do with a test: the wrapper is a coroutine function, too."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any, Protocol
from unittest import TestCase

from .leftovers import Leftovers, collected
from .virtual_running import running_in_virtual_time
from .virtual_time import trio_clock


class Item(Protocol):
    """A pytest test, as far as it is needed here."""

    obj: Any
    #: The class of the test, if it is a method.
    cls: type | None

    @property
    def nodeid(self) -> str: ...


class LeftBehind(AssertionError):
    """Raised at the end of a test that leaves something behind."""


def wrap(item: Item, names: list[str]) -> None:
    """Wrap a test as its markers say. One that cannot be wrapped fails when it is run."""
    test: Callable[..., Awaitable[object]] = item.obj
    advice = None if iscoroutinefunction(test) else "make it 'async def'"
    if item.cls is not None and issubclass(item.cls, TestCase):
        # pytest would run the method of the class, and no wrapper.
        advice = "make it a function, or take another class than one of unittest"
    if advice is not None:

        @wraps(test)
        def refused(*args: Any, **kwargs: Any) -> None:
            raise TypeError(f"{item.nodeid} is marked with {', '.join(names)}: {advice}")

        item.obj = refused
        return
    blocks = [_BLOCKS[name] for name in names]

    @wraps(test)
    async def wrapped(*args: Any, **kwargs: Any) -> None:
        async def run(rest: Sequence[Callable[[], AbstractAsyncContextManager[None]]]) -> None:
            if rest:
                async with rest[0]():
                    await run(rest[1:])
            else:
                await test(*args, **kwargs)

        await run(blocks)

    item.obj = wrapped


def run_trio(test: Callable[[], Awaitable[object]], *, clock: Any, instruments: Any) -> Any:
    """Run a test as pytest-trio does with ``trio.run()``, in virtual time if it has no clock."""
    clock = trio_clock() if clock is None else clock
    return import_module("trio").run(test, clock=clock, instruments=instruments)


@asynccontextmanager
async def _leaving_nothing_behind() -> AsyncGenerator[None, None]:
    # Garbage of earlier tests, which would be collected during this one.
    gc.collect()
    left = Leftovers(owns_loop=False)
    with left.watched(), collected() as unclosed:
        yield
        found = left.found()
    found += [*sorted(left.heard), *unclosed]
    if found:
        raise LeftBehind(f"left behind: {', '.join(found)}")


@asynccontextmanager
async def _in_virtual_time() -> AsyncGenerator[None, None]:
    with running_in_virtual_time():
        yield


# In this order: the first one is outermost.
_BLOCKS = {
    "leaves_nothing_behind": _leaving_nothing_behind,
    "virtual_time": _in_virtual_time,
}
