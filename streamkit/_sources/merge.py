"""
``merge``: several sources as one.

Each source is a stream of its own, with its own source task, context and grace, and is consumed by
a task of its own. These tasks are in one task group of the merged source. A stage on each source
queues what it yields, on the spot. The task that consumes it only asks for the next item when this
one was taken, and leaves when it is told to.

So an item waits where no task can be cancelled while it holds the item. When a source fails, the
others are left, and what was yielded before is handed over, then the error. When the merged source
is told to stop, all are told in one go, and what they yield in their grace still arrives: the
merged source ends when the last of them has ended.

The queue is not a memory object stream. That one hands an item to a task that waits for it, and
does not see that the task is being cancelled: on trio, this cannot be seen of a source with
children.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from .._core.closing import add_context
from .._core.control import Control
from .._core.exceptions import StreamCancelled, is_cancellation, only_backend_cancellation
from .._core.metadata import Head, Metadata
from .._core.scopes import pausing
from .._core.signal import Left
from .._core.source import AsyncSource
from .._core.stage import Stage
from .._core.stream import Stream, with_stage

T = TypeVar("T")


def merge(*sources: AsyncSource[T]) -> Stream[T]:
    """
    Receive from several sources at once.

    All of them start with the first ask. Items come in the order in which they are ready; those of
    one source in the order of that source. Each source goes on when its item was taken and the
    consumer asks again, so it is one item ahead at most. The stream ends when all have ended.

    Each source is a stream of its own. When the merged stream is told to stop, so is each source,
    with the same reason and its own grace, and its last items arrive. If one lets
    the exception out, so does the merged stream. When the consumer leaves, all are left.

    The first error ends the others: they receive :exc:`StreamCancelled` with :class:`Left` as its
    reason, and have their grace. What was yielded before is handed over, then the error is raised:
    the same object, or a group of them all if the others raise in their clean-up.

    :param sources: async iterables, async context managers that yield one, or streams, for instance
        with a limit or a token of their own. The new stream owns and closes them. They may not
        yield a :class:`Head`.
    :return: a stream of the items of all sources
    :raises TypeError: if one of them is not a source

    """
    return Stream(_Merged([_Member(source) for source in sources]))


class _Merged(AsyncIterable[T]):
    """The merged source."""

    def __init__(self, members: Sequence[_Member[T]]) -> None:
        self.__qualname__ = f"merge of {', '.join(member.name for member in members)}"
        self._members: Sequence[_Member[T]] = members
        self._running = len(members)
        self._queue: deque[_Parcel[T]] = deque()
        #: Set when there is something in the queue, or the last source has ended.
        self._arrival: anyio.Event
        self._errors: list[BaseException] = []
        #: The exception by which it was told to stop, and whether a source has let that out.
        self._told: StreamCancelled | None = None
        self._is_let_out = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self._items()

    async def aclose(self) -> None:
        """Close the sources that have not begun. Those that have are closed by their tasks."""
        members, self._members = self._members, ()
        try:
            async with AsyncExitStack() as stack:
                for member in members:
                    stack.push_async_callback(member.stream.aclose)
        finally:
            # The stream has the member as its stage: that is a cycle.
            for member in members:
                del member.stream

    async def _items(self) -> AsyncGenerator[T, None]:
        leaving: BaseException | None = None
        try:
            try:
                async with anyio.create_task_group() as tasks:
                    try:
                        self._start(tasks)
                        while await self._has_next():
                            parcel = self._queue.popleft()
                            try:
                                yield parcel.item
                            except StreamCancelled as stop:
                                self._tell(stop)
                            parcel.taken.set()
                    except BaseException as exc:
                        # Not through the group, which would wrap it.
                        leaving = exc
                        tasks.cancel_scope.cancel()
            except BaseException as exc:
                # It was cancelled while it waited for its tasks.
                leaving = exc
            error = self._conclusion(leaving)
            if error is not None:
                raise error
        finally:
            # The tracebacks include this frame.
            del leaving
            error = self._told = None
            self._errors.clear()

    def _start(self, tasks: TaskGroup) -> None:
        self._arrival = anyio.Event()
        for member in self._members:
            member.scope, member.send = anyio.CancelScope(), self._send
        for member in self._members:
            tasks.start_soon(self._consume, member, name=f"consumer of {member.name}")

    async def _has_next(self) -> bool:
        """Wait for an item, or for the end of all sources."""
        while self._running and not self._queue:
            self._arrival = anyio.Event()
            try:
                if self._told is None:
                    await self._arrival.wait()
                else:
                    # The streams have a grace each: meanwhile the clock of this source's own grace
                    # stands still.
                    await pausing(self._arrival.wait())
            except StreamCancelled as stop:
                self._tell(stop)
        return bool(self._queue)

    def _send(self, parcel: _Parcel[T]) -> None:
        self._queue.append(parcel)
        self._arrival.set()

    def _tell(self, stop: StreamCancelled) -> None:
        if self._told is not None or isinstance(stop.reason, Left):
            raise stop
        self._told = stop
        for member in self._members:
            member.tell(stop.reason)

    async def _consume(self, member: _Member[T]) -> None:
        """Ask a source for the next item whenever the last one was taken."""
        try:
            with member.scope:
                async with member.stream:
                    async for parcel in member.stream:
                        if parcel.is_beat:
                            self._send(parcel)
                        await parcel.taken.wait()
        except BaseException as exc:
            if only_backend_cancellation(exc):
                raise
            self._note(exc)
        finally:
            self._running -= 1
            self._arrival.set()

    def _note(self, exc: BaseException) -> None:
        if self._told is not None:
            # All have been told already, and have their grace.
            if isinstance(exc, StreamCancelled):
                self._is_let_out = True
            else:
                self._errors.append(exc)
            return
        self._errors.append(exc)
        for member in self._members:
            member.leave()

    def _conclusion(self, leaving: BaseException | None) -> BaseException | None:
        """Return what the merged source raises in the end."""
        stop = self._told if leaving is None else leaving
        errors = [error for error in self._errors if not is_cancellation(error)]
        if not errors:
            if leaving is None and not self._is_let_out:
                return self._errors[0] if self._errors else None
            return stop
        error = errors[0]
        if len(errors) > 1:
            error = BaseExceptionGroup("several merged sources failed", errors)
        if stop is not None:
            # A cancellation is not an error.
            add_context(error, stop)
        return error


class _Parcel(Generic[T]):
    """An item on its way."""

    __slots__ = ("is_beat", "item", "taken")

    def __init__(self, item: T, *, is_beat: bool = False) -> None:
        self.item = item
        self.is_beat = is_beat
        #: Set when the merged source is asked again.
        self.taken = anyio.Event()


class _Member(Stage[T, _Parcel[T]]):
    """One of the sources: a stream, and the stage on it that sends its items and tells it."""

    def __init__(self, source: AsyncSource[T]) -> None:
        self.name: str = getattr(source, "__qualname__", type(source).__qualname__)
        self.stream: Stream[_Parcel[T]] = with_stage(source, self)
        #: Around the task that consumes it.
        self.scope: anyio.CancelScope
        self.send: Callable[[_Parcel[T]], object]
        self._control: Control | None = None
        self._reason: object = None
        self._is_told = False
        self._is_left = False

    def tell(self, reason: object) -> None:
        """Tell the source to stop, within its own grace, also if it has not begun."""
        self._reason, self._is_told = reason, True
        if self._control is not None:
            self._control.cancel(reason)

    def leave(self) -> None:
        """Leave the source: what it yields from now on is dropped."""
        self._is_left = True
        self.scope.cancel()

    def on_open(self, control: Control) -> None:
        self._control = control
        if self._is_told:
            control.cancel(self._reason)

    def on_close(self) -> None:
        self._control = None

    def on_item(self, item: T) -> _Parcel[T]:
        parcel = _Parcel(item)
        if not self._is_left:
            self.send(parcel)
        return parcel

    def on_beat(self, beat: T) -> _Parcel[T]:
        # It counts as sent when it is received, which is not certain yet.
        return _Parcel(beat, is_beat=True)

    def on_metadata(self, item: Metadata) -> bool:
        if isinstance(item, Head):
            raise RuntimeError(
                "a Head in a merged source: there is one status for all of them; write "
                "with_status(source()), where source() yields the Head and then what it receives "
                "from merge(...)"
            )
        return False
