"""
What the two backends offer in public, at less cost than through anyio: a task that waits for
another one, the clock, the running task, and anyio's own cancel scopes and task groups.

Any number of tasks can wait for an anyio event, and it stays set, which costs something for each
item. Here one task waits, and is woken once. The rest is what anyio calls, too. But finding out
which backend is running costs more than the answer, and more than entering a scope, so it is done
once for each stream.

What each of them offers is in ``backend_asyncio`` and ``backend_trio``. Neither is loaded before a
stream is opened on it, as in anyio: a program of trio's does not load asyncio, which takes longer
than all of streamkit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .exceptions import StreamCancelled
from .loop import is_of_asyncio, running_loop
from .orphans import Orphanage
from .relay import Relay
from .timer import Timer


class Wakeup(ABC):
    """A place at which one task waits."""

    __slots__ = ()

    @abstractmethod
    def wait(self) -> Awaitable[None]:
        """
        Wait until another task calls :meth:`set`. Await it at once.

        A cancellation of the wait leaves nothing behind. One that comes after :meth:`set`, and
        before the task runs again, may still end the wait: the message itself must be kept
        elsewhere.
        """

    @abstractmethod
    def set(self) -> None:
        """Wake the task that waits here. Does nothing if none does."""


# Not frozen, which would cost three times as much: on uvloop there is one for each stream.
@dataclass(slots=True)
class Backend:
    """The backend of the running event loop."""

    #: Makes the relay of a source, in the source task.
    relay: type[Relay]
    #: The exception that it raises in a cancelled task.
    cancelled: type[BaseException]
    #: The clock of :func:`anyio.current_time`.
    now: Callable[[], float]
    #: Returns the running task, as the backend's own object.
    current_task: Callable[[], object]
    #: Identifies the event loop among those that run now.
    loop: int
    make_wakeup: Callable[[], Wakeup]
    #: Makes the scope that :class:`anyio.CancelScope` makes or wraps here, given the same
    #: arguments.
    make_scope: Callable[..., anyio.CancelScope]
    #: Makes what :func:`anyio.create_task_group` makes here.
    make_task_group: Callable[[], TaskGroup]
    #: Returns a timer, given its function, and a function that is called with an error of that.
    make_timer: Callable[[Callable[[], object], Callable[[BaseException], object]], Timer]
    #: Calls a function in the next pass of the event loop, as if from a task, unless that task has
    #: ended by then.
    soon: Callable[[Any, Callable[[], object]], object]
    #: Waits until no task of that outlives a task which waits for the caller. Is not cancelled.
    settle: Callable[[], Awaitable[None]]
    #: Lets other tasks run, and a cancellation through.
    checkpoint: Callable[[], Awaitable[None]]
    #: Lets a cancellation through, and does nothing else.
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    #: Tells whether this is the event loop that is running in the current thread.
    is_here: Callable[[], bool]
    #: Looks after streams that outlive their tasks, where that is needed.
    orphanage: Orphanage | None = None


def get_backend() -> Backend:
    """Return the backend of the running event loop."""
    loop = running_loop()
    backend: Backend = _module_for(loop).backend_of(loop)
    return backend


def new_scope() -> anyio.CancelScope:
    """Return a new cancel scope, for code that needs nothing else of its backend."""
    scope: anyio.CancelScope = _module_for(running_loop()).new_scope()
    return scope


def error_of_stray(exc: BaseException, name: str) -> anyio.BrokenResourceError | None:
    """
    Return the error that a cancellation is if the running task is not being cancelled.

    :param name: of what has awaited something that was cancelled
    :return: ``None`` if this is the running task's own cancellation, or none at all

    """
    # When a task is dropped, there may be no event loop any more.
    own = isinstance(exc, GeneratorExit | StreamCancelled)
    if own or not get_backend().relay.is_stray(exc):
        return None
    error = anyio.BrokenResourceError(f"{name} awaited what others had cancelled")
    error.__cause__ = exc
    return error


def _module_for(loop: object) -> ModuleType:
    return _asyncio() if is_of_asyncio(loop) else _trio()


@cache
def _asyncio() -> ModuleType:
    from . import backend_asyncio

    return backend_asyncio


@cache
def _trio() -> ModuleType:
    from . import backend_trio

    return backend_trio
