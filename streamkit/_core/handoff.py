"""
The hand-off between the source task and the consumer: the one place where they meet.

The consumer asks, and only then the source goes on, so nothing is read ahead. With read-ahead, the
first ask is one for several items at a time, and the source goes on while fewer are
here. An item stays here until the consumer takes it: a consumer that is cancelled while it waits
loses nothing, the item is there for its next ask. Beats wait in a place of their own, so that an
item which is ready wins over a beat.

Only the right to be the only receiver is held across an ``await`` in here, so both sides may
be cancelled at any point.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any

import anyio

from .advice import IN_ANOTHER_LOOP, busy
from .backend import Backend
from .clock import WaitClock

# With read-ahead, neither side has to wait for the other. So each lets other tasks run, and looks
# for a cancellation, at every so many items.
BATCH = 64


class _AtOnce:
    """An awaitable that does not wait: it is not even a checkpoint."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_AT_ONCE = _AtOnce()


def _ignore(exc: BaseException) -> None:
    """Ignore an interruption."""


class Handoff:
    """
    A rendezvous of one source task with one consumer task.

    :param backend: the backend of the running event loop
    :param read_ahead: how many items may wait here, from the first ask on
    :param in_a_row: how many of them may be taken without a turn for other tasks

    """

    __slots__ = (
        "_arrival",
        "_asked",
        "_await_ask",
        "_cancelled",
        "_checkpoint",
        "_checkpoint_if_cancelled",
        "_clock",
        "_demand",
        "_due_beats",
        "_ended",
        "_error",
        "_first_beats",
        "_in_a_row",
        "_is_fresh",
        "_is_here",
        "_make_scope",
        "_packets",
        "_pauses",
        "_pop",
        "_read_ahead",
        "_reads_ahead",
        "_receiving",
        "_room",
        "_silent",
        "_steps_left",
        "_takes_left",
        "_wakes_below",
        "asked_at",
        "beats",
        "closed",
        "dropped",
        "now",
        "on_interrupted",
        "waiting_since",
        "waits",
    )

    def __init__(self, backend: Backend, read_ahead: float = 0, in_a_row: int = BATCH) -> None:
        #: The current time, in seconds.
        self.now: Callable[[], float] = backend.now
        self._reads_ahead = read_ahead > 0
        self._read_ahead = read_ahead
        #: As many, once the consumer has asked.
        self._room: float = 0
        self._checkpoint = backend.checkpoint
        self._make_scope = backend.make_scope
        self._in_a_row = max(in_a_row, 1)
        #: How many more items may be taken, and steps made, until the next checkpoint.
        self._takes_left = 0
        self._steps_left = BATCH - 1
        self._pauses = False
        # An empty deque has room for 64 items, which is a lot if there is only one.
        self._packets: deque[Any] | list[Any]
        if self._reads_ahead:
            self._packets = deque()
            self._pop: Callable[[], Any] = self._packets.popleft
        else:
            self._packets = []
        self._first_beats: tuple[Any, ...] = ()
        #: One at most.
        self._due_beats: tuple[Any, ...] = ()
        self._asked = False
        #: The source waits until fewer than so many items are here.
        self._wakes_below: float = 0
        self._demand = backend.make_wakeup()
        #: Without read-ahead, what comes after an item.
        self._await_ask = None if self._reads_ahead else self._demand.wait
        self._arrival = backend.make_wakeup()
        self._receiving = False
        self._silent = False
        self._ended = False
        self._error: BaseException | None = None
        self.closed: bool = False
        #: When the consumer began to wait for an item, or ``None`` if it is not waiting.
        self.waiting_since: float | None = None
        #: When the consumer first asked for an item.
        self.asked_at: float | None = None
        #: Counts the waits, to tell one from the next.
        self.waits: int = 0
        self.beats: int = 0
        #: The number of items that were there when the consumer left.
        self.dropped: int = 0
        self._clock: WaitClock | None = None
        self._cancelled = backend.cancelled
        #: Called with a backend's cancellation that ended a wait of the consumer.
        self.on_interrupted: Callable[[BaseException], object] = _ignore
        # Both are asked where the first ask parks: with each, it would cost each item.
        self._is_here = backend.is_here
        self._checkpoint_if_cancelled = backend.checkpoint_if_cancelled
        self._is_fresh = True

    # The consumer's side

    async def receive(self) -> Any:
        """
        Ask for the next item or beat and wait for it.

        :raises StopAsyncIteration: at the end
        :raises ~anyio.BusyResourceError: if another task is waiting already
        :raises ~anyio.ClosedResourceError: if the stream was closed before it ended

        """
        if self._receiving:
            raise busy()
        packets = self._packets
        if self._room:
            # With read-ahead, most asks end here.
            if self._takes_left and packets:
                self._takes_left -= 1
            else:
                # A source that keeps pace has the next item after a turn, which costs less than a
                # wait (and on asyncio a scope spares a wait that is over by the time it looks).
                try:
                    await self._checkpoint()
                except self._cancelled as exc:
                    self.on_interrupted(exc)
                    raise
                if self._receiving:
                    raise busy()
                self._takes_left = self._in_a_row - 1
            if packets:
                if self._wakes_below or self._first_beats:
                    return self._take()
                return self._pop()
        self._receiving = True
        try:
            ready: Any = packets or self._first_beats or self._ended or self.closed
            if ready:
                # Before anything is taken: a cancellation in it must not lose anything.
                await self._checkpoint()
                # A first beat is dropped if the source ends meanwhile.
                ready = packets or self._first_beats or self._ended or self.closed
            if not ready:
                if self._is_fresh:
                    await self._begin()
                self._asked = True
                self._wakes_below = 0
                self._demand.set()
                self.waits += 1
                self.waiting_since = self.now()
                if self._clock is not None:
                    self._clock.start()
                await self._arrival.wait()
                while not (packets or self._due_beats or self._ended or self.closed):
                    await self._arrival.wait()
            if packets:
                if self._wakes_below or self._first_beats:
                    return self._take()
                # What _take() does without these, for nearly every item.
                item = packets[0]
                del packets[0]
                return item
            beats = self._first_beats or self._due_beats
            if beats and not self.closed:
                self.beats += 1
                self._first_beats = self._first_beats[1:]
                return beats[0]
            if self._ended and not self.closed:
                self.raise_error()
                raise StopAsyncIteration
            await self._refuse()
        except self._cancelled as exc:
            self.on_interrupted(exc)
            raise
        finally:
            self.waiting_since = None
            self._receiving = False
            if self._clock is not None:
                self._clock.stop()
            # A beat belongs to the wait in which it was due.
            self._due_beats = ()
            # The traceback of an error includes this frame.
            del self, packets

    async def _begin(self) -> None:
        """Look, before the first ask, whether there may be one."""
        if not self._is_here():
            raise RuntimeError(IN_ANOTHER_LOOP)
        # Nothing begins where a scope around the consumer is cancelled already.
        await self._checkpoint_if_cancelled()
        self._is_fresh = False
        self._room = self._read_ahead
        self.asked_at = self.now()

    async def wait_for_item(self, enough: Callable[[], bool], within: float) -> None:
        """
        Ask for the next item and wait until it is there, without taking it.

        :param enough: ends the wait when it returns ``True``, asked at each :meth:`wake_consumer`
        :param within: seconds after which the wait ends in any case
        :raises ~anyio.BusyResourceError: if another task is waiting already
        :raises ~anyio.ClosedResourceError: if the stream was closed before it ended

        """
        if self._receiving:
            raise busy()
        self._receiving = True
        try:
            if within > 0:
                await self._ask_ahead(enough, within)
            else:
                # There is no time to ask the source.
                await self._checkpoint()
            if self.closed:
                await self._refuse()
        except self._cancelled as exc:
            self.on_interrupted(exc)
            raise
        finally:
            self._receiving = False
            if self._clock is not None:
                self._clock.stop()

    async def _ask_ahead(self, enough: Callable[[], bool], within: float) -> None:
        if not self._packets:
            if self._is_fresh:
                await self._begin()
            self._asked = True
            self._wakes_below = 0
            self._demand.set()
        if self._clock is not None:
            self._clock.start()
        until = self.now() + within
        await self._checkpoint()
        if not (self._has_arrived() or enough()):
            # Only now: a source that has an item at once has made it by then.
            with self._make_scope(deadline=until):
                while not (self._has_arrived() or enough()):
                    await self._arrival.wait()

    async def _refuse(self) -> None:
        """Tell a consumer that the stream is closed, unless its own cancellation has closed it."""
        await self._checkpoint_if_cancelled()
        raise anyio.ClosedResourceError("the stream has been closed")

    def raise_error(self) -> None:
        """Raise the error that ended the stream, if there is one, and only once."""
        error = self.take_error()
        if error is not None:
            try:
                raise error
            finally:
                del error, self

    def take_error(self) -> BaseException | None:
        """Return the error that ended the stream, if it has not been raised yet."""
        error, self._error = self._error, None
        return error

    def close(self) -> None:
        """Drop what was not taken, and answer every further ask with an error."""
        if self._packets or not self._ended or self._error is not None:
            self.closed = True
            self.dropped = len(self._packets)
            self._packets.clear()
            self.wake_consumer()

    def _has_arrived(self) -> bool:
        return bool(self._packets) or self._ended or self.closed

    def _take(self) -> Any:
        packets = self._packets
        item = packets[0]
        del packets[0]
        self._first_beats = ()
        if len(packets) < self._wakes_below:
            self._wakes_below = 0
            self._demand.set()
        return item

    def wake_consumer(self) -> None:
        """Make a waiting consumer look again."""
        self._arrival.set()

    # The source's side

    def put(self, item: Any) -> Callable[[], Awaitable[None]] | None:
        """
        Hand an item over. Never blocks: the demand for the next one is what waits.

        :return: :meth:`demand`, or what does the same at once after the item, if the source task
            must await that before its next step

        """
        self._asked = False
        if self._clock is not None:
            self._clock.stop()
        if not self.closed:
            self._packets.append(item)
            if self._receiving:
                self._arrival.set()
        if not self._reads_ahead:
            return self._await_ask
        if self._steps_left:
            self._steps_left -= 1
            return self.demand if len(self._packets) >= self._room else None
        return self.skip()

    def put_all(self, items: Iterable[Any]) -> None:
        """Hand over several items, which another one follows at once by :meth:`put`."""
        if not self.closed:
            self._packets.extend(items)

    def skip(self) -> Callable[[], Awaitable[None]] | None:
        """
        Note a step that makes no item.

        :return: :meth:`demand`, if the source task must await that before its next step

        """
        if self._steps_left:
            self._steps_left -= 1
            return None
        self._steps_left = BATCH - 1
        self._pauses = True
        return self.demand

    def demand(self) -> Awaitable[None]:
        """
        Wait until the consumer asks, until there is room to read ahead, or until :meth:`wake` is
        called. To be awaited at once. Where there is room already, only let other tasks run.
        """
        if self._asked or len(self._packets) < self._room:
            if not self._pauses:
                return _AT_ONCE
            self._pauses = False
            return self._checkpoint()
        self._pauses = False
        self._wakes_below = self._room
        return self._demand.wait()

    def taken(self) -> Awaitable[None]:
        """
        Wait until the consumer has taken all that is here, or until :meth:`wake` is called. To be
        awaited at once.
        """
        if not self._packets:
            return _AT_ONCE
        self._wakes_below = 1
        return self._demand.wait()

    def wake(self) -> None:
        """Let a source task that waits here go on."""
        self._wakes_below = 0
        self._demand.set()

    def end(self, error: BaseException | None) -> None:
        """Say that nothing more comes, and with which error."""
        self._ended = True
        self._error = error
        self.wake_consumer()

    def release(self) -> None:
        """Drop the callback for interruptions."""
        self.on_interrupted = _ignore

    def end_if_open(self) -> None:
        """Let nobody wait for what will never come."""
        if not self._ended:
            self.closed = True
            self.wake_consumer()

    # The time that the consumer waits: measured only where somebody asks for it

    def clock(self) -> WaitClock:
        """Return the clock of the consumer's waits, which counts from the first call on."""
        if self._clock is None:
            self._clock = WaitClock()
        return self._clock

    # The side of the stages

    def wants_beat(self) -> bool:
        """Tell whether the consumer waits, with nothing to receive yet."""
        if self.waiting_since is None or self._silent:
            return False
        return not (self._has_arrived() or self._due_beats)

    def stop_beats(self) -> None:
        """Let no more beats through, and drop what was not taken: they are counted now."""
        self._silent = True
        self._first_beats = self._due_beats = ()

    def offer_beat(self, beat: Any) -> bool:
        """Give a waiting consumer something that is not an item, unless an item is ready."""
        if not self.wants_beat():
            return False
        self._due_beats = (beat,)
        self.wake_consumer()
        return True

    def put_beat_first(self, beat: Any) -> None:
        """Answer the consumer's next ask with something that is not an item."""
        self._first_beats = (*self._first_beats, beat)
