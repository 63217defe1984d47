"""
The two cancel scopes around a source, and when each of them lets a cancellation through.

Nothing that happens outside of a stream reaches its source by itself. It reaches the consumer,
which leaves the block, and that tells the source, as a token does. So there is one way in: the
relay wakes the source, by itself or through two scopes. From the outside in:

``interrupt``
    is a shield from everything outside, and is cancelled once, when the relay opens the way. The
    resulting exception carries its tag, and the relay raises :exc:`StreamCancelled` in its place.

``grace``
    is a shield from ``interrupt``, which the relay lowers if a scope must wake the source. Once the
    source was told, this scope has a deadline: clean-up can await until its time is up. Its clock
    stands still while the source waits for the consumer, or for a block inside it to end.

They are entered once before the source starts and left once after it is closed. A source that is
suspended at a ``yield`` may hold scopes and task groups of its own. A scope entered on top of them
and left after them would corrupt the stack. So no scope is entered in between: attributes of the
two are changed instead.

What a source is told passes through these states, each once::

    none ──arm()──▶ armed ──deliver()──▶ delivered
               (source blocked, or          (grace runs)
                about to be resumed)

While it is armed, the way is open only while the source is suspended: a scope of the source's own
must be able to claim its exception, which backends allow only while no outer cancellation is
visible. The relay opens and closes the way.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

import anyio

from .signal import Signal
from .stuck import where

T = TypeVar("T")

# A deadline that no scope has: before all others, and not that of a cancelled scope.
MARK = -1e300

#: The beginning of each tag.
TAG = "streamkit-"

_numbers = count(1)
_current: ContextVar[Scopes | None] = ContextVar("streamkit_scopes", default=None)


class Scopes:
    """
    The cancel scopes of one source, entered and left in its source task.

    Made in the consumer's task, which may be inside the source of another stream.

    :param grace: seconds for clean-up, unless a signal says otherwise
    :param now: the clock of :func:`anyio.current_time`
    :param loop: identifies the running event loop
    :param make_scope: makes a cancel scope

    """

    __slots__ = (
        "_ended",
        "_grace_scope",
        "_inner",
        "_interrupt_scope",
        "_loop",
        "_now",
        "_number",
        "_pauses",
        "_remaining",
        "_told",
        "armed",
        "cut",
        "delivered",
        "enclosing",
        "grace",
        "grace_has_begun",
        "is_open",
        "is_timed",
        "signal",
        "stuck_at",
        "tag",
        "told_natively",
    )

    def __init__(
        self,
        grace: float,
        now: Callable[[], float],
        loop: int,
        make_scope: Callable[..., anyio.CancelScope],
    ) -> None:
        self.grace: float = grace
        self._now = now
        self._loop = loop
        #: The scopes of the source that the consumer is in, if it is in one.
        self.enclosing: Scopes | None = _current.get()
        #: What the source was told, or will be told: the first signal, for good.
        self.signal: Signal | None = None
        #: Whether the signal is on its way: the next suspension point of the source raises it.
        self.armed: bool = False
        self.delivered: bool = False
        #: Whether the way is open.
        self.is_open: bool = False
        #: Whether it was told by a native cancellation of its task, as its consumer was.
        self.told_natively: bool = False
        #: Whether the source was cancelled at the end of its grace.
        self.cut: bool = False
        #: Whether the grace has begun, and it is not known yet where the source was at its end.
        self.is_timed: bool = False
        #: Where the source was when its grace was over.
        self.stuck_at: str | None = None
        self._number = next(_numbers)
        #: A number between those of the streams that were opened before it was told and those
        #: opened after.
        self._told = 0
        #: Marks the cancellation that wakes the source for its signal.
        self.tag: str = f"{TAG}{self._number}"
        self._interrupt_scope = make_scope(shield=True)
        self._grace_scope = make_scope(shield=True)
        self.grace_has_begun: bool = False
        #: A number between those of the streams that were opened before its grace was ended and
        #: after.
        self._ended = 0
        #: These end the grace of the inner streams for whose end the source waits.
        self._inner: tuple[Callable[[], object], ...] = ()
        self._pauses = 0
        #: Seconds that are left when the clock goes on.
        self._remaining: float | None = None

    def __enter__(self) -> None:
        _current.set(self)
        self._interrupt_scope.__enter__()
        self._grace_scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The pump keeps every exception of the source, so none arrives here.
        try:
            self._grace_scope.__exit__(exc_type, exc, traceback)
        finally:
            self._interrupt_scope.__exit__(exc_type, exc, traceback)

    @property
    def expired(self) -> bool:
        """Whether the time to clean up is over."""
        # Not cancelled_caught: on asyncio, an outer scope may catch it. To ask trio costs most, and
        # only a source that is armed, or whose grace has begun, can have a deadline.
        return (self.armed or self.grace_has_begun) and self._grace_scope.cancel_called

    @property
    def is_left(self) -> bool:
        """Whether the signal says that nobody takes the items now."""
        return self.signal is not None and self.signal.is_left

    @property
    def has_pending_signal(self) -> bool:
        """Whether there is a signal that the source has not been told yet."""
        return self.signal is not None and not self.delivered

    def arm(self) -> None:
        """Let the next suspension point of the source raise the signal, once the way is open."""
        self.armed = True
        self._told = next(_numbers)

    def reach_source(self) -> bool:
        """
        Tell whether the running source would see a cancellation of its scopes. On asyncio only.

        It would not if it is in a shield of its own, or in a cancelled scope. The test is whether
        it sees a deadline that the scope only shows. One that is set could expire meanwhile, and
        another one of the source's own may be too near to set one before it.
        """
        scope: Any = self._grace_scope
        scope.shows_mark = True
        try:
            return anyio.current_effective_deadline() == MARK
        finally:
            del scope.shows_mark

    def uncover(self) -> None:
        """Open the way for an armed signal: the source is suspended in an await, or about to be."""
        self.is_open = True
        self._interrupt_scope.cancel(self.tag)
        self._grace_scope.shield = False

    def cover(self) -> None:
        """Close the way for an armed signal: the source goes on."""
        if self.is_open:
            self.is_open = False
            self._grace_scope.shield = True

    def claim(self, tag: str | None) -> bool:
        """
        Decide about a backend cancellation that has just reached the source.

        :param tag: the reason that the backend's exception carries
        :return: ``True`` if the source should see the typed cancellation instead

        """
        if self.delivered:
            self.cut = self.cut or self.expired
            return False
        if not self.armed:
            return False
        # A source that was asked, but not reached before the end of its grace, is told then.
        if tag == self.tag or self.expired:
            self.deliver()
            return True
        self.cover()
        return False

    def signal_around(self) -> Signal | None:
        """
        Return the signal of an enclosing stream that was told since this one was opened.

        A source that is told also cancels the tasks that it has started: at once, or when it leaves
        their task group. They may consume streams of their own, whose sources are told the same
        when those tasks leave.
        """
        enclosing = self.enclosing
        while enclosing is not None:
            signal = enclosing.signal
            if signal is not None and not signal.is_left and enclosing._told > self._number:
                return Signal(signal.reason, self.grace)
            enclosing = enclosing.enclosing
        return None

    def deliver(self) -> None:
        """Begin the grace of the signal: it is being raised in the source now."""
        self.armed = False
        self.delivered = True
        self.cover()
        self.begin_grace()

    def tell_at_yield(self, signal: Signal) -> None:
        """Note a signal that is being raised at a ``yield`` of the source."""
        self.signal = signal
        self._told = next(_numbers)
        self.deliver()

    def begin_closing(self) -> None:
        """Bound the closing of the source by what is left of a running grace."""
        self.armed = False
        self.cover()
        self.begin_grace()

    def begin_grace(self) -> None:
        """Bound what the source does from now on: it was asked to stop, or is being closed."""
        if self.grace_has_begun:
            return
        self.grace_has_begun = self.is_timed = True
        seconds = self._seconds
        if self._ended or not seconds:
            self._grace_scope.cancel()
        elif self._pauses:
            self._remaining = seconds
        else:
            self._grace_scope.deadline = self._now() + seconds

    @property
    def _seconds(self) -> float:
        """The length of the grace, once it has begun."""
        return self.grace if self.signal is None else self.signal.grace

    def look_at(self, suspended: object) -> None:
        """
        If the grace is over, note where the source is, once.

        :param suspended: what has been suspended in the meantime

        """
        if self.is_timed and self.expired:
            self.stuck_at = where(suspended)
            # The task may have waited for the consumer while the source was at a yield.
            self.is_timed = self.stuck_at is None

    def pause(self) -> None:
        """Stop the clock of the grace: the source waits for the consumer, or for a block to end."""
        self._pauses += 1
        if self.grace_has_begun and self._remaining is None and not self.expired:
            self._remaining = self._grace_scope.deadline - self._now()
            self._grace_scope.deadline = math.inf

    def resume(self) -> None:
        """Let the clock of the grace go on. Must be called once for each pause."""
        self._pauses -= 1
        if not self._pauses and self._remaining is not None:
            self._grace_scope.deadline = self._now() + self._remaining
            self._remaining = None

    async def pausing(self, wait: Awaitable[T]) -> T:
        """Stop the clock of the grace while something is awaited."""
        self.pause()
        try:
            return await wait
        finally:
            self.resume()

    def end_grace(self) -> None:
        """End the grace, even before it begins, here and in the blocks that it waits for."""
        self._ended = next(_numbers)
        if self.grace_has_begun:
            self._grace_scope.cancel()
        for end_inner in self._inner:
            end_inner()

    @property
    def waiting(self) -> Scopes | None:
        """The scopes of the source that waits while the block of this stream is being left."""
        # In the event loop of a thread, the enclosing source waits for the thread.
        enclosing = self.enclosing
        return None if enclosing is None or enclosing._loop != self._loop else enclosing

    def wait_for(self, inner: Scopes, end_inner: Callable[[], object]) -> None:
        """Note that the source waits for the end of a stream inside it."""
        self.pause()
        self._inner = (*self._inner, end_inner)
        if self._ended > inner._number:
            end_inner()

    def has_waited_for(self, end_inner: Callable[[], object]) -> None:
        """Note that it no longer waits for that stream."""
        position = self._inner.index(end_inner)
        self._inner = self._inner[:position] + self._inner[position + 1 :]
        self.resume()

    def reason(self) -> object:
        """Return the reason of the innermost enclosing stream that was told to stop."""
        scopes: Scopes | None = self
        while scopes is not None:
            if scopes.signal is not None:
                return scopes.signal.reason
            scopes = scopes.enclosing
        return None


async def pausing(wait: Awaitable[T]) -> T:
    """Await, in a source, something with its own bound: the clock of the grace stands still."""
    scopes = _current.get()
    assert scopes is not None
    return await scopes.pausing(wait)


def current_cancellation() -> object:
    """
    Return why the stream around the running code was told to stop.

    May be called at any depth inside a source, and in the tasks that it started: in a ``finally``,
    for instance, to tell a cancellation from an ordinary end. It does not block. The innermost
    stream that was told to stop answers.

    :return: the reason given to :meth:`CancelToken.cancel`, or :class:`Left` if the consumer simply
        left. ``None`` if no stream around the running code was told to stop, or if it was told
        without a reason

    """
    scopes = _current.get()
    return None if scopes is None else scopes.reason()


def leave_streams() -> None:
    """
    Take the running task out of all streams, wherever it was started.

    A task inherits the streams of the task that started it. A task that outlives such a stream has
    no part in it: it is not told what that stream is told, and the stream does not wait for it.
    """
    _current.set(None)
