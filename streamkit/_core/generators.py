"""
The async generators that a source has begun: none of them is left behind.

Python closes the outermost generator only, and leaves those that it iterates to the garbage
collector, which has them closed later, in another task. Here they are closed where the source is:
in its task, the innermost first. What a source has begun is learnt from two hooks of the
interpreter, which every async generator passes at its first step and when it is abandoned. What it
iterates at the moment is read from its frames, in ``chain``; how it is closed is in ``closing``.
A generator that somebody else has begun, or holds, is left alone.

The hooks are set on top of those that are there, which are the event loop's. A loop sets its own
anew for each run, and restores the earlier ones when the run is over. So they are looked at
whenever a source starts, and never restored from here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial
from threading import get_ident
from typing import Any, TypeAlias
from weakref import ref

from .chain import Chain
from .frames import Generator

_Hook: TypeAlias = Callable[[Generator], object]

_current: ContextVar[Generators | None] = ContextVar("streamkit_generators", default=None)

# By the address of each generator: weak references are cleared before its finalizer is called.
# An address may be used again, but what lives there passes the first hook, too.
_begun_by: dict[int, Generators] = {}


class Generators:
    """
    The generators that one source has begun.

    :param current_task: returns the running task of the event loop

    """

    __slots__ = (
        "_begun",
        "_current_task",
        "_given",
        "_source",
        "_task",
        "_thread",
        "abandoned",
        "errors",
    )

    def __init__(self, current_task: Callable[[], object]) -> None:
        #: Those that the source has abandoned, and that are not closed yet.
        self.abandoned: list[Generator] = []
        #: The errors of closing them, while the source went on.
        self.errors: list[BaseException] = []
        # By its address, with the task if that is not the source's own.
        self._begun: dict[int, ref[Any] | None] = {}
        self._current_task = current_task
        self._task: object = None
        self._thread = 0
        self._source: object = None
        self._given: object = None

    def start(self, source: object, given: object) -> None:
        """
        Note the generators that begin from now on: in this task, and in those that are started by
        it.

        :param source: what is iterated, which is looked after by others
        :param given: the objects it was made of, held by nobody else because they were handed over

        """
        _set_hooks()
        self._task, self._thread = self._current_task(), get_ident()
        self._source, self._given = source, given
        _current.set(self)

    @property
    def are_left(self) -> bool:
        """Whether there may be something to close, or to raise."""
        return bool(self._begun or self.abandoned or self.errors)

    def must_close(self, failed: Iterable[BaseException | None]) -> bool:
        """
        Tell whether there is something to close, or to raise, when the source has ended.

        :param failed: what it has raised: the frames may hold what it has begun

        """
        if self.abandoned or self.errors:
            return True
        return bool(self._begun) and any(error is not None for error in failed)

    def may_close_here(self) -> bool:
        """Tell whether there may be something to close, and this is the task to do it in."""
        return self.are_left and self._current_task() is self._task

    def take_abandoned(self) -> list[Generator]:
        """Return what was abandoned, in the order in which that happened, to be closed now."""
        taken = self.abandoned.copy()
        self.abandoned.clear()
        return taken

    def chain(self, *roots: object) -> Chain:
        """Read what some generators, frames or iterators lead to, and may be closed with them."""
        return Chain(roots, (self._source, self._given), self._may_close)

    def end(self) -> None:
        """Let go of everything: what begins or is abandoned from now on is the event loop's."""
        self._task = self._source = self._given = None
        if self.are_left:
            for address in self._begun:
                # Another source may have begun what is at this address now.
                if _begun_by.get(address) is self:
                    del _begun_by[address]
            self._begun.clear()
            for generator in self.take_abandoned():
                _finalize(sys.get_asyncgen_hooks().finalizer, generator)

    def begin(self, generator: Generator, address: int) -> bool:
        """Note a generator at its first step, if it is the source's."""
        own = self._task
        try:
            task = self._current_task()
        except RuntimeError:
            # In guest mode: the host iterates it, in a context of ours.
            return False
        if own is None or task is None or generator is self._source:
            return False
        self._begun[address] = None if task is own else ref(task)
        _begun_by[address] = self
        return True

    def _may_close(self, generator: Generator) -> bool:
        address = id(generator)
        if address not in self._begun or generator.ag_frame is None or generator.ag_running:
            return False
        by = self._begun[address]
        return by is None or _has_ended(by())

    def abandon(self, generator: Generator) -> bool:
        """Keep a generator that nobody holds now, if it is the source's."""
        # A collection may run in any thread, and there the source may be ending right now.
        if get_ident() != self._thread or not self._may_close(generator):
            return False
        del self._begun[id(generator)]
        self.abandoned.append(generator)
        return True


def current_generators() -> Generators | None:
    """Return what the source that runs has begun, if there may be something left of it."""
    generators = _current.get()
    return generators if generators is not None and generators.may_close_here() else None


def _set_hooks() -> None:
    hooks = sys.get_asyncgen_hooks()
    if getattr(hooks.firstiter, "func", None) is not _begin:
        # As arguments, which costs less than a closure. The interpreter passes no subclasses.
        first: Any = partial(_begin, hooks.firstiter)
        last: Any = partial(_finalize, hooks.finalizer)
        sys.set_asyncgen_hooks(first, last)


def _begin(former: _Hook | None, generator: Generator) -> None:
    if former is not None:
        former(generator)
    generators, address = _current.get(), id(generator)
    if generators is None or not generators.begin(generator, address):
        _begun_by.pop(address, None)


def _finalize(former: _Hook | None, generator: Generator) -> None:
    generators = _begun_by.pop(id(generator), None)
    if generators is not None and generators.abandon(generator):
        return
    if former is not None:
        former(generator)
    else:
        _close_without_loop(generator)


def _close_without_loop(generator: Generator) -> None:
    # This is what the interpreter does without a hook.
    try:
        generator.aclose().send(None)
    except StopIteration:
        return
    raise RuntimeError(f"async generator {generator!r} ignored GeneratorExit")


def _has_ended(task: Any) -> bool:
    if task is None or not hasattr(task, "coro"):
        return task is None or bool(task.done())
    # A trio task, which does not tell. A coroutine that has ended has no frame.
    return getattr(task.coro, "cr_frame", task) is None
