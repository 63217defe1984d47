"""``StreamHost``: where the streams of an application are ended, and where some live on."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

import anyio

from .._core.arguments import positive, seconds
from .._core.exceptions import bare, both, error_in
from .._core.outcome import Outcome
from .._core.telemetry import Telemetry, check_telemetry
from .._signals.shutdown import Shutdown
from .._signals.token import CancelToken
from .held_signals import HeldSignals, check_signals
from .home import Guest, Home, HostStats as HostStats
from .messages import Scope
from .termination import Termination


class StreamHost(Home):
    """
    The home of an application's responses: an async context manager for its lifespan.

    As soon as the server of this process is asked to end, when :meth:`shut_down` is called, or else
    at the end of the block, the program counts as ending. From this notice on, every new request is
    refused before its source starts. Every open stream may go on for ``finish`` seconds, is then
    told ``StreamCancelled(Shutdown())``, and has its grace and its last word. The end of the block
    waits until all of them are closed. With ``on_disconnect="drain"``, a stream whose client has
    gone lives on here, and its request ends.

    A request is refused with the status 503 and a ``Retry-After`` of some seconds, or in the body,
    if the clients of a response need that.

    A server that is asked to end stops listening, waits for its open connections, and ends the
    lifespan after that. So the host watches the sockets of this process, which the system must
    list. On Windows, the notice is :meth:`shut_down` or the end of the block.

    A host belongs to the event loop in which its block was entered, and is used once. A response
    gets it as ``host``, or finds it in the state of the lifespan.

    :param grace: seconds that a stream has when it is told, unless its own grace is shorter. A
        client then has the same time to take a message, but at least one second.
    :param finish: seconds that a stream may go on after the notice, before it is told, unless its
        response says otherwise
    :param max_streams: how many streams may be open, or ``None`` for any number. Further requests
        are refused.
    :param max_drained: how many streams may go on without their client, or ``None`` for any number.
        Further ones are told that their client has gone, as with ``on_disconnect="cancel"``.
    :param on_end: called with the :class:`~streamkit.Outcome` of each stream of a response and with
        the ASGI scope of its request, and awaited, after the ``on_end`` of the response and in the
        same way: to count, for instance. It is also called for a refused stream. What it raises is
        logged, and has no other effect.
    :param on_end_timeout: seconds after which ``on_end`` is cancelled
    :param telemetry: where the streams of responses report how they go, unless a response has its
        own: :class:`streamkit.opentelemetry.OpenTelemetry`, for instance
    :param signals: members of :class:`signal.Signals` at which to shut down before the server hears
        of them. This is for servers that close connections at once, as uvicorn closes its
        WebSockets. The server's own handler is called when no stream is open any longer, or
        ``grace`` plus ``on_end_timeout`` after the last was told, or at a second ``SIGINT``. Has no
        effect if the lifespan does not run in the main thread, or if the event loop handles the
        signals
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is negative or not finite, or a number is not positive

    """

    def __init__(
        self,
        *,
        grace: float = 5.0,
        finish: float = 0.0,
        max_streams: int | None = None,
        max_drained: int | None = None,
        on_end: Callable[[Outcome, Scope], Awaitable[object]] | None = None,
        on_end_timeout: float = 5.0,
        telemetry: Telemetry | None = None,
        signals: Iterable[signal.Signals] = (),
    ) -> None:
        if max_streams is not None:
            positive("max_streams", max_streams)
        if max_drained is not None:
            positive("max_drained", max_drained)
        if on_end is not None and not callable(on_end):
            raise TypeError(
                f"on_end must be callable, got {type(on_end).__qualname__}: write "
                "'async def on_end(outcome, scope): ...'"
            )
        check_telemetry(telemetry)
        super().__init__(
            max_streams, max_drained, on_end, seconds("on_end_timeout", on_end_timeout), telemetry
        )
        self._grace = seconds("grace", grace)
        self._finish = seconds("finish", finish)
        self._signals = HeldSignals(check_signals(signals))
        # Set by any thread, and read by the task that tells the streams.
        self._limits: deque[float] = deque()
        self._changed = CancelToken()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {self._state}, {len(self._guests)} streams>"

    async def __aenter__(self) -> Self:
        """
        Open the host.

        :raises RuntimeError: if it was entered before

        """
        if self._state != "new":
            raise RuntimeError(f"{self!r} is used once: make a new one for each lifespan")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._termination = Termination()
        self._watching, self._telling = anyio.CancelScope(), anyio.CancelScope()
        self._holding = anyio.CancelScope()
        name = type(self).__name__
        self._tasks.start_soon(self._watch, name=f"watcher of {name}")
        self._tasks.start_soon(self._tell, name=f"shutdown of {name}")
        self._tasks.start_soon(self._hold, name=f"signals of {name}")
        self._signals.hold()
        self._state = "open"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Shut down, and wait until every stream is closed.

        Each may finish, and has its grace and the time of its ``on_end``. If this wait is
        cancelled, the streams that live on here are cancelled, too, and those with a request are
        not waited for.
        """
        self._watching.cancel()
        self.shut_down()
        leaving: BaseException | None = exc
        try:
            await self._wait_until_empty()
        except BaseException as interrupted:
            self._tasks.cancel_scope.cancel()
            # There is no time left to finish.
            self._tell_some(self._untold)
            leaving = both(error_in(exc), interrupted)
        self._telling.cancel()
        self._holding.cancel()
        self._state = "left"
        try:
            # By now they have ended, or are being closed, which is bounded.
            self._tasks.cancel_scope.shield = True
            try:
                # Without the body's exception, which would come back in an exception group.
                await self._tasks.__aexit__(None, None, None)
            finally:
                self._signals.let_go()
        except BaseException as raised:
            leaving = both(error_in(leaving), bare(raised))
        if leaving is not None and leaving is not exc:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving, exc, traceback, self

    def shut_down(self, *, finish: float | None = None) -> None:
        """
        Give notice that the program ends: refuse new requests, and let open streams finish.

        Does not block. May be called from any thread and from a signal handler: the streams are
        told in their event loop. A further call can only shorten the time: ``finish=0`` ends it.

        :param finish: seconds from now after which every stream is told, if it is not told earlier
            anyway; ``None`` for what host and responses say
        :raises TypeError: if ``finish`` is not a number
        :raises ValueError: if ``finish`` is negative or not finite

        """
        if finish is not None:
            self._limits.append(seconds("finish", finish))
        self._notice.cancel()
        changed, self._changed = self._changed, CancelToken()
        changed.cancel()

    async def _hold(self) -> None:
        """Let the server hear of a signal when the streams have ended."""
        with self._holding:
            await self._signals.heard.wait()
            self.shut_down()
            await self._wait_until_empty()
        self._signals.let_go()

    async def _wait_until_empty(self) -> None:
        """Wait until there are no streams. From the notice on, no new one comes."""
        if self._guests:
            self._empty = anyio.Event() if self._empty is None else self._empty
            await self._empty.wait()

    async def _watch(self) -> None:
        with self._watching:
            await self._termination.wait()
            self.shut_down()

    async def _tell(self) -> None:
        """Tell the streams that the program ends, each when its time to finish is over."""
        with self._telling:
            await self._notice.wait()
            noticed, until = anyio.current_time(), math.inf
            for companion in tuple(self._companions):
                companion.notice()
            # No new stream comes.
            are_told = False
            while self._guests or self._companions:
                changed = self._changed
                now = anyio.current_time()
                while self._limits:
                    until = min(until, now + self._limits.popleft())
                due = {guest: min(until, noticed + self._time_of(guest)) for guest in self._untold}
                self._tell_some([guest for guest, when in due.items() if when <= now])
                if not self._untold:
                    # A source may be stuck where nobody can end it.
                    patience = self._grace + self._on_end_timeout
                    self._holding.deadline = min(self._holding.deadline, now + patience)
                when_all = min(until, noticed + self._finish)
                if when_all <= now and not are_told:
                    are_told = True
                    for companion in tuple(self._companions):
                        companion.tell()
                due_at = [*due.values(), when_all]
                later = min((when for when in due_at if when > now), default=math.inf)
                # The guests are not kept during the wait: if a server ends a connection when
                # nothing refers to send(), as granian does, this would keep it open.
                del due
                with anyio.CancelScope(deadline=later):
                    await changed.wait()

    def _time_of(self, guest: Guest) -> float:
        return self._finish if guest.finish is None else guest.finish

    def _tell_some(self, guests: Iterable[Guest]) -> None:
        for guest in guests:
            self._guests[guest] = True
            guest.shut_down(Shutdown(), self._grace)

    @property
    def _untold(self) -> list[Guest]:
        return [guest for guest, is_told in self._guests.items() if not is_told]
