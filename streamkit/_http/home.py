"""The open streams of an application, and those without a client."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import anyio
from anyio.abc import TaskGroup

from .._core.exceptions import StreamCancelled
from .._core.outcome import Outcome
from .._core.telemetry import Telemetry
from .._signals.shutdown import Shutdown
from .._signals.token import CancelToken
from .connection import SHORT
from .lodger import Lodger
from .messages import Scope
from .refusal import Overloaded
from .termination import Termination

_logger = logging.getLogger("streamkit")


class Guest(Protocol):
    """A stream, to its host, which does not know what it streams to."""

    @property
    def finish(self) -> float | None:
        """Seconds that it may go on after the notice, or ``None``: as the host says."""
        ...

    @property
    def is_sending(self) -> bool:
        """Whether it waits for its client to take something."""
        ...

    @property
    def is_drained(self) -> bool:
        """Whether it goes on without a client."""
        ...

    def shut_down(self, reason: object, grace: float) -> None:
        """Tell its source to stop. Does not block."""
        ...


class Companion(Protocol):
    """A guest that is told of a shutdown as the streams of a host are, but is not a stream."""

    def notice(self) -> None:
        """Note that the program ends. Does not block."""
        ...

    def tell(self) -> None:
        """End the streams that live there: the time to finish is over. Does not block."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStats:
    """What a :class:`StreamHost` knows of its streams at one moment."""

    #: Streams that are open, with those that are drained.
    open: int
    #: Of these, the streams that go on without their client.
    drained: int
    #: Of these, the streams that wait for their client to take a message.
    sending: int
    #: Streams that never started: the program was ending, or too many were open.
    refused: int
    #: Streams that have ended, by the kind of their outcome, since the host was made.
    completed: int
    cancelled: int
    timed_out: int
    failed: int
    closed: int


class Home:
    """What a host is to its streams."""

    _finish: float

    def __init__(
        self,
        max_streams: int | None,
        max_drained: int | None,
        on_end: Callable[[Outcome, Scope], Awaitable[object]] | None,
        on_end_timeout: float,
        telemetry: Telemetry | None,
    ) -> None:
        #: The telemetry of its streams, unless they have their own.
        self.telemetry: Telemetry | None = telemetry
        self._max_streams = max_streams
        self._max_drained = max_drained
        self._on_end = on_end
        self._on_end_timeout = on_end_timeout
        # Set by any thread, and read by the task that tells the streams.
        self._notice = CancelToken()
        self._state: Literal["new", "open", "left"] = "new"
        self._tasks: TaskGroup
        self._termination: Termination
        # In the order in which they came, and whether each was told that the program ends.
        self._guests: dict[Guest, bool] = {}
        self._companions: dict[Companion, None] = {}
        self._empty: anyio.Event | None = None
        self._refused = 0
        self._ended: Counter[str] = Counter()

    def note(self, scope: Mapping[str, Any]) -> None:
        """Note where a request came in, to notice when the server stops listening there."""
        if self._state == "open":
            self._termination.note(scope)

    @property
    def is_shut_down(self) -> bool:
        """Whether the program ends: what an orchestrator's readiness probe may ask."""
        return self._notice.cancelled

    @property
    def has_room_to_drain(self) -> bool:
        """Whether one more stream may go on without its client."""
        most = self._max_drained
        return most is None or sum(guest.is_drained for guest in self._guests) < most

    def admit(self, guest: Guest) -> object | None:
        """
        Take a stream in, until :meth:`leave`.

        :return: ``None``, or the reason why it may not start
        :raises RuntimeError: if the host was not entered

        """
        self._check_entered()
        refused: object | None = None
        if self.is_shut_down:
            refused = Shutdown()
        elif self._max_streams is not None and len(self._guests) >= self._max_streams:
            refused = Overloaded()
        if refused is None:
            self._guests[guest] = False
        else:
            self._refused += 1
        return refused

    def leave(self, guest: Guest, outcome: Outcome | None) -> None:
        """
        Note that a stream that was taken in is over. Has no effect the second time.

        :param outcome: how it ended, if it has

        """
        if guest not in self._guests:
            return
        del self._guests[guest]
        if outcome is not None:
            self._ended[outcome.kind] += 1
        if self._empty is not None and not self._guests:
            self._empty.set()

    def join(self, companion: Companion) -> float:
        """
        Take in a guest that is told like the streams, until :meth:`part`.

        :return: the seconds from its notice until it is told, if nobody shortens them
        :raises RuntimeError: if the host was not entered

        """
        self._check_entered()
        self._companions[companion] = None
        if self.is_shut_down:
            companion.notice()
        return self._finish

    def part(self, companion: Companion) -> None:
        """Note that a guest that was taken in is over."""
        del self._companions[companion]

    def stats(self) -> HostStats:
        """Return the current and past numbers. Does not block; may be called from any thread."""
        guests, ended = list(self._guests), self._ended
        return HostStats(
            open=len(guests),
            drained=sum(guest.is_drained for guest in guests),
            sending=sum(guest.is_sending for guest in guests),
            refused=self._refused,
            completed=ended["completed"],
            cancelled=ended["cancelled"],
            timed_out=ended["timed_out"],
            failed=ended["failed"],
            closed=ended["closed"],
        )

    async def ended(self, outcome: Outcome, scope: Scope) -> None:
        """Call ``on_end``."""
        assert self._on_end is not None
        try:
            with anyio.fail_after(self._on_end_timeout):
                await self._on_end(outcome, scope)
        except (Exception, StreamCancelled):
            _logger.exception("the on_end of %r failed", self)

    @property
    def has_hook(self) -> bool:
        """Whether there is something to call for each stream."""
        return self._on_end is not None

    @property
    def hook_timeout(self) -> float:
        """Seconds within which :meth:`ended` certainly ends."""
        return self._on_end_timeout + SHORT

    async def run(
        self, function: Callable[[], Awaitable[None]], let_go: anyio.Event, name: str
    ) -> None:
        """
        Run a function in a task of the host, and return when it has ended or has set ``let_go``.

        Until then, a cancellation of the call is passed on, and waits until the function has ended.

        :raises BaseException: what the function raised until then; later it is logged
        :raises ~anyio.ClosedResourceError: if the host was cancelled
        :raises RuntimeError: if the host was not entered

        """
        self._check_entered()
        lodger = Lodger(function, let_go)
        self._tasks.start_soon(lodger.run, name=name)
        try:
            await lodger.wait()
        finally:
            # The traceback of an error includes this frame.
            del function, lodger

    def _check_entered(self) -> None:
        if self._state == "new":
            raise RuntimeError(
                f"{self!r} was not entered: write 'async with StreamHost() as host:' in the "
                "lifespan of the application"
            )
