"""A stream: the block in which a source lives, and the stages on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream, TaskGroup

from . import advice
from .backend import get_backend
from .beside import look_around, run_beside
from .control import Control
from .exceptions import bare, both, first_leaf, not_an_end, only_backend_cancellation
from .handoff import Handoff
from .outcome import Outcome
from .pump import Pump
from .source import AsyncSource, Source
from .stage import Stage, Stages, has_lifespan, runs_beside

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


class Stream(ObjectReceiveStream[T_co]):
    """
    A source under the care of a task of its own: an async context manager and an async iterator.

    It is an :class:`~anyio.abc.ObjectReceiveStream` as well, so it goes wherever the receiving end
    of a memory object stream goes. Enter it first. Code that is given the stream may end it by
    :meth:`aclose`; the block still ends at its own place.

    Nothing of the source runs before the block is entered and the first item is asked for. When the
    block has been left, the source is closed, every task of the stream is gone, and :attr:`outcome`
    is set. A stream is used once.

    Streams are made by the combinators and by :func:`with_stage`.
    """

    # Its initial values are here and not in each object, because most streams only pass on what
    # they have to the next one in the chain.
    _state: Literal["new", "open", "left"] = "new"
    _owner: Stream[Any] | None = None
    _pump: Pump | None = None
    #: Where to ask while the stream is open.
    _open_handoff: Handoff | None = None
    _outcome: Outcome | None = None
    _tasks: TaskGroup
    _entered_by: object = None
    #: How many stages have been opened.
    _opened = 0
    _lifespans: AsyncExitStack | None = None

    def __init__(self, source: AsyncSource[Any], *stages: Stage[Any, Any]) -> None:
        self._source: Source[Any]
        self._stages: tuple[Stage[Any, Any], ...]
        if isinstance(source, Stream):
            source._give_way_to(self)
            self._source = source._source
            self._stages = (*source._stages, *stages)
        else:
            self._source = Source(source)
            self._stages = stages

    if TYPE_CHECKING:
        pass
    else:
        # Called only for missing attributes. Type checkers know that they are missing.
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(advice.no_attribute(self, name), name=name, obj=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._source.name}, {self._state}>"

    @property
    def source_name(self) -> str:
        """The name of the source: that of the function that made it, or of its class."""
        return self._source.name

    @property
    def outcome(self) -> Outcome:
        """
        How the stream ended. It is set as soon as the source is closed, and does not change.

        :raises RuntimeError: before that, while :attr:`ended` is false; and if the stream was
            closed without having been open

        """
        stream = self._outermost
        outcome = stream._outcome_so_far
        if outcome is None:
            raise RuntimeError(stream._no_outcome())
        return outcome

    @property
    def ended(self) -> bool:
        """Whether the source is closed, and :attr:`outcome` tells how it ended."""
        return self._outermost._outcome_so_far is not None

    @property
    def _outcome_so_far(self) -> Outcome | None:
        return self._outcome if self._pump is None else self._pump.outcome

    @property
    def _outermost(self) -> Stream[Any]:
        """The stream that this one is part of, which is entered and iterated."""
        stream: Stream[Any] = self
        while stream._owner is not None:
            stream = stream._owner
        return stream

    async def __aenter__(self) -> Self:
        """
        Open the stream. The source does not run yet.

        :raises RuntimeError: if the stream was entered before, or belongs to another one

        """
        self._check_unused()
        self._state = "open"
        stages = self._stages
        together = Stages(stages)
        if together.grace is not None:
            self._source.grace = together.grace
        backend = get_backend()
        pump = Pump(self._source, together, backend, together.read_ahead, together.in_a_row)
        controls: list[Control] = []
        try:
            for number, stage in enumerate(stages, 1):
                control = Control(pump, stages, number)
                controls.append(control)
                stage.on_open(control)
                self._opened = number
            tasks = backend.make_task_group()
            if together.have_lifespan:
                await self._enter_lifespans(controls, tasks)
            else:
                await tasks.__aenter__()
            self._tasks = tasks
        except BaseException as exc:
            self._state = "left"
            pump.finish()
            self._close_stages()
            await pump.settle()
            await self._close_unstarted()
            error = not_an_end(exc)
            if error is exc:
                raise
            raise error from exc
        self._pump, self._open_handoff = pump, pump.handoff
        self._entered_by = backend.current_task()
        if backend.orphanage is not None:
            backend.orphanage.add(self._entered_by, pump)
        pump.handoff.on_interrupted = partial(look_around, pump)
        pump.tasks = self._tasks
        start_soon = self._tasks.start_soon
        start_soon(pump.run, name=f"source task of {self._source.name}")
        for stage, control in zip(stages, controls, strict=True) if together.run_beside else ():
            if runs_beside(stage):
                scope = backend.make_scope(shield=True)
                pump.when_finished(scope.cancel)
                name = f"{type(stage).__name__} of {self._source.name}"
                start_soon(run_beside, pump, scope, partial(stage.run, control), name=name)
        return self

    # anyio's own streams let every exception through. Here a signal of the user's may take one.
    async def __aexit__(  # type: ignore[override]
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """
        Close the source, and wait until the closing and ``on_end`` are done.

        The wait is shielded from cancellation. It is bounded by the grace and by
        ``on_end_timeout``, unless the source hides in a shield of its own or in a thread. A
        :exc:`StreamCancelled` that leaves the block is delivered into the source, with the same
        reason.
        """
        assert self._pump is not None
        self._check_loop(self._pump)
        self._state, self._open_handoff = "left", None
        if self._pump.backend.orphanage is not None:
            self._pump.backend.orphanage.remove(self._entered_by, self._pump)
        self._pump.tasks = None
        try:
            self._pump.leave(exc)
            for scope in self._pump.beside:
                scope.cancel()
            if self._pump.backend.current_task() is not self._entered_by:
                with anyio.CancelScope(shield=True):
                    await self._pump.pausing(self._pump.wait_finished())
                raise RuntimeError(advice.left_in_another_task(self))
            # Nothing is entered around the wait: the group's own scope is the innermost one here.
            self._tasks.cancel_scope.shield = True
            leaving: BaseException | None = exc
            try:
                # The group does not get the body's exception: it would come back in a group.
                await self._pump.pausing(self._tasks.__aexit__(None, None, None))
            except BaseException as interrupted:
                # Only a native Task.cancel() or a KeyboardInterrupt comes through the shield; and
                # anyio's error after the source has left a scope open, which was already reported.
                if not self._pump.has_open_scope:
                    leaving = bare(interrupted)
            if not self._pump.is_finished:
                # Somebody has cancelled its task before that began. It does not begin here, either.
                await self._pump.run()
                leaving = self._without_own_cancellation(leaving)
            leaving = both(leaving, self._pump.take_error())
            suppressed = self._lifespans is not None and await self._leave_lifespans(
                self._lifespans, leaving
            )
            if suppressed or leaving is None or leaving is exc:
                return suppressed
            raise leaving
        finally:
            self._close_stages()
            self._outcome, self._pump = self._pump.release(), None
            self._entered_by = None
            # On trio, it leads to the task, and so to whatever the context of that has.
            del self._tasks
            del exc, traceback, self
            leaving = None

    def _without_own_cancellation(self, leaving: BaseException | None) -> BaseException | None:
        """Return what leaves a block whose body was cancelled by the task group of the stream."""
        assert self._pump is not None
        cancelled_by_us = (
            self._tasks.cancel_scope.cancel_called
            and leaving is not None
            and only_backend_cancellation(leaving)
            and not self._pump.backend.relay.is_native(first_leaf(leaving))
        )
        if not cancelled_by_us:
            return leaving
        return anyio.BrokenResourceError("the source task was cancelled before it began")

    async def _enter_lifespans(self, controls: Sequence[Control], tasks: TaskGroup) -> None:
        """Enter what the stages enclose the stream with, and inside of it the task group."""
        async with AsyncExitStack() as lifespans:
            for stage, control in zip(self._stages, controls, strict=True):
                if has_lifespan(stage):
                    await lifespans.enter_async_context(stage.lifespan(control))
            await tasks.__aenter__()
            self._lifespans = lifespans.pop_all()

    async def _leave_lifespans(
        self, lifespans: AsyncExitStack, leaving: BaseException | None
    ) -> bool:
        exc_type = None if leaving is None else type(leaving)
        traceback = None if leaving is None else leaving.__traceback__
        try:
            return bool(await lifespans.__aexit__(exc_type, leaving, traceback))
        except BaseExceptionGroup as group:
            # A signal may hold a task group, which wraps what leaves it. It did not fail itself.
            if leaving is None or bare(group) is not leaving:
                raise
            return False
        finally:
            del leaving, traceback

    def __aiter__(self) -> Self:
        return self

    async def receive(self) -> T_co:
        """
        Ask for the next item and wait for it, like ``await anext(stream)``, except for the end.

        For code that takes a receive stream of anyio. An :exc:`~anyio.EndOfStream` raised by the
        *source* is not the end of this stream, so it becomes a :exc:`RuntimeError`.

        :raises ~anyio.EndOfStream: when the source has ended, also after an error
        :raises BaseException: like :meth:`__anext__`

        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None
        except anyio.EndOfStream as exc:
            raise RuntimeError(advice.END_OF_STREAM) from exc
        finally:
            # The traceback of an error includes this frame.
            del self

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The typed attributes of the source, if it is a stream of anyio that has some."""
        return self._source.extra_attributes

    # Not a coroutine of its own, which would cost each item some time: that of the hand-off.
    def __anext__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> Coroutine[Any, Any, T_co]:
        """
        Ask for the next item and wait for it.

        A cancellation in the wait loses nothing: the item is there for the next ask.

        :raises StopAsyncIteration: when the source has ended
        :raises StreamCancelled: if the source was cancelled and let the exception out
        :raises RuntimeError: if the stream was not entered
        :raises ~anyio.ClosedResourceError: if the stream was closed, or its block was left
        :raises ~anyio.BusyResourceError: if another task waits for an item of this stream
        :raises ~anyio.BrokenResourceError: if the source raised a cancellation of the backend that
            nobody had asked for

        """
        handoff = self._open_handoff
        if handoff is None:
            handoff = self._handoff
        return handoff.receive()

    async def aclose(self) -> None:
        """
        End the source early and wait until it is closed. The block still ends at its own place.

        May be called from any task and more than once. A task that is waiting for an item
        gets :exc:`~anyio.ClosedResourceError`. Called by the source itself, it does not wait. A
        cancelled wait does not stop the closing. What the closing raised is raised from here,
        once.
        """
        if self._owner is not None:
            await self._outermost.aclose()
        elif (pump := self._pump) is not None:
            self._check_loop(pump)
            pump.leave()
            if not pump.in_source_task():
                await pump.pausing(pump.wait_finished())
                error = pump.take_error()
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error, self
        elif self._state == "new":
            self._state = "left"
            await self._close_unstarted()

    @property
    def _handoff(self) -> Handoff:
        if self._open_handoff is not None:
            return self._open_handoff
        if self._state == "left":
            raise anyio.ClosedResourceError(advice.LEFT)
        if self._owner is not None:
            raise RuntimeError(f"{self!r} belongs to {self._outermost!r}: iterate that one")
        raise RuntimeError(advice.not_entered(self))

    def _no_outcome(self) -> str:
        if self._pump is None and self._state == "left":
            return advice.never_open(self)
        return advice.no_outcome_yet(self, is_new=self._state == "new")

    def _check_unused(self) -> None:
        if self._owner is not None:
            raise RuntimeError(f"{self!r} belongs to {self._outermost!r}: use that one")
        if self._state != "new":
            raise RuntimeError(advice.used_once(self))

    def _check_loop(self, pump: Pump) -> None:
        if not pump.backend.is_here():
            raise RuntimeError(advice.IN_ANOTHER_LOOP)

    def _give_way_to(self, owner: Stream[Any]) -> None:
        if self._owner is None and self._state == "open":
            raise RuntimeError(advice.wrapped_too_late(self))
        self._check_unused()
        self._owner = owner

    def _close_stages(self) -> None:
        for stage in self._stages[: self._opened]:
            stage.on_close()
        self._opened = 0

    async def _close_unstarted(self) -> None:
        grace = Stages(self._stages).grace
        with anyio.move_on_after(self._source.grace if grace is None else grace, shield=True):
            await self._source.close()


# The warning "was never awaited" names what was written, not what it is made of.
Handoff.receive.__qualname__ = f"{Stream.__qualname__}.__anext__"


def with_stage(source: AsyncSource[T], stage: Stage[T, U]) -> Stream[U]:
    """
    Put a stage on a source: all combinators are made like this.

    On a stream that was not entered yet, the stage goes on top of its stages: however many there
    are, the stream has one source task and one hand-off.

    :param source: an async iterable, an async context manager that yields one, or a stream. The
        new stream owns it and closes it.
    :param stage: the stage, which belongs to the new stream
    :return: a stream of what the stage makes of the items
    :raises TypeError: if ``source`` is not a source

    """
    return Stream(source, stage)
