"""A thread that does one thing after another for one source, in one context."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio

from .._core.exceptions import without_own_frames
from .._core.loop import Loop

T = TypeVar("T")


class Call(Generic[T]):
    """Something for a thread to do, and what came of it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function: Callable[[], T] | None = function
        self.returned: T
        self.raised: BaseException | None = None
        #: Set by the thread, as soon as it is done.
        self.has_ended = False
        #: Set in the event loop, soon after.
        self.is_over = anyio.Event()

    def run(self) -> None:
        assert self._function is not None
        try:
            self.returned = self._function()
        except StopIteration as exc:
            self.raised = RuntimeError("a sync iterable raised StopIteration where it does not end")
            self.raised.__cause__ = exc
        except BaseException as exc:
            self.raised = without_own_frames(exc, _HERE)
        self._function = None
        self.has_ended = True


class Thread:
    """A thread that does one thing after another, in one context. Starts with the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Call[Any] | None] | None = None
        #: Whether nobody can still wait for it.
        self.is_dropped = False

    def begin(self, function: Callable[[], T]) -> Call[T]:
        """Give the thread something to do. Never blocks."""
        calls = self._calls
        if calls is None:
            calls = SimpleQueue[Call[Any] | None]()
            target = partial(_context().run, _work, calls, Loop())
            name = f"thread of {self._name}"
            # The program may end without it: it is waited for where the source is closed.
            threading.Thread(target=target, name=name, daemon=True).start()
            # Only now: if no thread can be started, nothing may wait for it.
            self._calls = calls
        call = Call(function)
        calls.put(call)
        return call

    def end(self) -> None:
        """Let the thread end after what it has to do."""
        if self._calls is not None:
            self._calls.put(None)


_HERE = f"{__package__}."


def _work(calls: SimpleQueue[Call[Any] | None], loop: Loop) -> None:
    while True:
        call = calls.get()
        if call is None:
            return
        call.run()
        loop.call(call.is_over.set)
        # It holds an item.
        del call


def _context() -> Context:
    context = copy_context()
    # No event loop runs in the thread, so anyio.run() should work there. The context variable of
    # sniffio, if that is loaded, would say that one runs.
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context
