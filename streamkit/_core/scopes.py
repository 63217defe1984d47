"""
The two cancel scopes around a source, and when each of them lets a cancellation through.

From the outside in:

``interrupt``
    is cancelled to wake a blocked source. If that is for a typed cancellation, the relay recognises
    it by its tag and raises :exc:`StreamCancelled` in its place. If it is because the consumer has
    left, the source sees the backend's own cancellation, again at each await until it has unwound,
    like any task.

``grace``
    is a shield from the moment of delivery on, with a deadline: clean-up can await, until its time
    is up. Its clock stands still while the source waits for the consumer.

They are entered once before the source starts and left once after it is closed. A source that is
suspended at a ``yield`` may hold scopes and task groups of its own; a scope entered on top of them
and left after them would corrupt the stack. So nothing here is entered in between: attributes of
the two are changed instead.

A typed cancellation passes through these states, each once::

    none ──signal()──▶ armed ──deliver()──▶ delivered
                 (source blocked, or          (grace runs)
                  about to be resumed)

While it is armed, the way is open only as long as nobody else's cancellation is on its way through
the source: a scope of the source's own that expires in the same tick must be able to claim its
exception, which backends allow only while no outer cancellation is visible. So for such an
exception the shield is raised, and lowered at the next suspension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any

import anyio

from .exceptions import StreamCancelled
from .outcome import OutcomeKind

_numbers = count(1)
_current: ContextVar[Scopes | None] = ContextVar("streamkit_scopes", default=None)


@dataclass(frozen=True, slots=True)
class Signal:
    """A typed cancellation: what the source is told, and how long it may take over it."""

    reason: object
    grace: float
    kind: OutcomeKind = "cancelled"
    #: Makes of the reason what the consumer receives, if the source does not handle it. Made late:
    #: an exception that was raised holds frames, and contexts of finished tasks may hold this.
    error: Callable[[Any], BaseException] = StreamCancelled


class Scopes:
    """
    The cancel scopes of one source, entered and left in its source task.

    :param grace: seconds for clean-up where no signal says otherwise
    :param now: the clock of :func:`anyio.current_time`

    """

    __slots__ = (
        "_enclosing",
        "_grace_scope",
        "_interrupt_scope",
        "_now",
        "_paused_for",
        "_tag",
        "armed",
        "cut",
        "delivered",
        "grace",
        "signal",
    )

    def __init__(self, grace: float, now: Callable[[], float]) -> None:
        self.grace = grace
        self._now = now
        #: What the source was or is to be told: the first signal, for good.
        self.signal: Signal | None = None
        #: The signal is on its way: the next suspension point of the source raises it.
        self.armed = False
        self.delivered = False
        #: The source was cancelled at the end of its grace.
        self.cut = False
        self._tag = f"streamkit-{next(_numbers)}"
        self._enclosing: Scopes | None = None
        self._interrupt_scope = anyio.CancelScope()
        self._grace_scope = anyio.CancelScope()
        self._paused_for: float | None = None

    def __enter__(self) -> None:
        self._enclosing = _current.get()
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
        self._grace_scope.__exit__(exc_type, exc, traceback)
        # Under a cancelled scope, anyio would pass on how often it has cancelled this task to the
        # task of that scope, the consumer, and take as many of its own cancellations back there.
        self._interrupt_scope.shield = True
        self._interrupt_scope.__exit__(exc_type, exc, traceback)

    @property
    def expired(self) -> bool:
        """Whether the time to clean up is over."""
        # Not cancelled_caught: on asyncio an outer scope may be the one that catches.
        return self._grace_scope.cancel_called

    @property
    def has_pending_signal(self) -> bool:
        """Whether there is a signal that the source has not been told of."""
        return self.signal is not None and not self.delivered

    def close(self) -> None:
        """Cancel a blocked source, as a consumer that leaves does."""
        self._interrupt_scope.cancel(self._tag)

    def arm(self) -> None:
        """Wake the source for the signal, at its present or next suspension point."""
        self.armed = True
        self._interrupt_scope.cancel(self._tag)

    def uncover(self) -> None:
        """Open the way for an armed signal: the source is about to be suspended in an await."""
        self._grace_scope.shield = False

    def cover(self) -> None:
        """Close the way for an armed signal, until the source is suspended again."""
        self._grace_scope.shield = True

    def claim(self, tag: str | None) -> bool:
        """
        Decide about a backend cancellation that has just reached the source.

        :param tag: the reason that the backend's exception carries
        :return: ``True`` if the source is to see the typed cancellation in its place

        """
        if self.delivered:
            self.cut = self.cut or self.expired
            return False
        if not (self.armed and tag == self._tag):
            signal = self.signal_around(tag)
            if signal is None:
                if self.armed:
                    self.cover()
                return False
            self.signal = self.signal or signal
        self.deliver()
        return True

    def signal_around(self, tag: str | None) -> Signal | None:
        """
        Return the signal of an enclosing stream, if that is what a backend cancellation is due to.

        Cancelling the interrupt scope of a stream also cancels the tasks that its source has
        started: the source tasks of the streams opened inside it are among them, and the tasks that
        consume these. Each source turns it into a delivery of its own, whichever task is scheduled
        first.
        """
        enclosing = self._enclosing
        while not self.delivered and enclosing is not None:
            if enclosing.signal is not None and enclosing._tag == tag:
                return Signal(enclosing.signal.reason, self.grace)
            enclosing = enclosing._enclosing
        return None

    def pending_signal_around(self) -> Signal | None:
        """Return the signal that an enclosing stream is about to be told, if there is one."""
        enclosing = self._enclosing
        while enclosing is not None:
            if enclosing.signal is not None and not enclosing.delivered:
                return Signal(enclosing.signal.reason, self.grace)
            enclosing = enclosing._enclosing
        return None

    def deliver(self) -> None:
        """Begin the grace of the signal: it is being raised in the source now."""
        assert self.signal is not None
        self.armed = False
        self.delivered = True
        self._begin_grace(self.signal.grace)

    def begin_closing(self) -> None:
        """Shield and bound the closing of the source, in what is left of a running grace."""
        if not self.delivered:
            self._begin_grace(self.grace)

    def _begin_grace(self, seconds: float) -> None:
        self._grace_scope.shield = True
        self._grace_scope.deadline = self._now() + seconds

    def pause(self) -> None:
        """Stop the clock of the grace: the source waits for the consumer."""
        if self.delivered and not self.expired:
            self._paused_for = self._grace_scope.deadline - self._now()
            self._grace_scope.deadline = math.inf

    def resume(self) -> None:
        """Let the clock of the grace go on."""
        if self._paused_for is not None:
            self._grace_scope.deadline = self._now() + self._paused_for
            self._paused_for = None

    def reason(self) -> object:
        """Return the reason of the innermost enclosing stream that was told to stop."""
        scopes: Scopes | None = self
        while scopes is not None:
            if scopes.signal is not None:
                return scopes.signal.reason
            scopes = scopes._enclosing
        return None


def current_cancellation() -> object:
    """
    Return why the stream around the running code was told to stop.

    May be called at any depth inside a source, and in the tasks that it started: in a ``finally``,
    for instance, to tell a cancellation from an ordinary end. It does not block. The innermost
    stream that was told to stop answers.

    :return: the reason given to :meth:`CancelToken.cancel`, or ``None`` if no stream around the
        running code was told to stop (or if it was told so without a reason)

    """
    scopes = _current.get()
    return None if scopes is None else scopes.reason()
