"""``StreamHost``: where the streams of an application are ended, and where some live on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio.abc import TaskGroup

from .._core.arguments import seconds
from .._core.exceptions import bare, both, error_in
from .._signals.shutdown import Shutdown
from .._signals.token import CancelToken
from .termination import Termination

_logger = logging.getLogger("streamkit")


class Home:
    """What a host is to its responses."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._shutdown = CancelToken()
        self._state: Literal["new", "open", "left"] = "new"
        self._tasks: TaskGroup
        self._termination: Termination
        self._watching: anyio.CancelScope
        self._open = 0
        self._empty: anyio.Event | None = None

    def note(self, scope: Mapping[str, Any]) -> None:
        """Note where a request came in, to notice when the server stops to listen there."""
        if self._state == "open":
            self._termination.note(scope)

    @contextmanager
    def attended(self, on_shutdown: Callable[[object, float], None]) -> Generator[None, None, None]:
        """
        Keep the host waiting for this block.

        :param on_shutdown: called with the reason and the grace, once, when the host shuts down, or
            at once if it has
        :raises RuntimeError: if the host was not entered

        """
        self._check_entered()
        self._open += 1
        handle = self._shutdown.on_cancel(lambda reason: on_shutdown(reason, self._grace))
        try:
            yield
        finally:
            handle.close()
            self._open -= 1
            if self._empty is not None and not self._open:
                self._empty.set()

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
        guest = _Guest(function, let_go)
        self._tasks.start_soon(guest.run, name=name)
        try:
            await guest.wait()
        finally:
            # The traceback of an error includes this frame.
            del function, guest

    def _check_entered(self) -> None:
        if self._state == "new":
            raise RuntimeError(
                f"{self!r} was not entered: write 'async with StreamHost() as host:' in the "
                "lifespan of the application"
            )


class StreamHost(Home):
    """
    The home of an application's responses: an async context manager for its lifespan.

    As soon as the server of this process is asked to end, when :meth:`shut_down` is called, or else
    at the end of the block, every open stream is told ``StreamCancelled(Shutdown())``, has its
    grace and says its last word; the end of the block waits until all of them are closed. A
    response that is called from then on has its source cancelled before it starts. With
    ``on_disconnect="drain"`` a stream whose client has gone lives on here, and its request ends.

    A server that is asked to end stops to listen, waits for its open connections, and ends the
    lifespan after that. So it is the sockets of this process that are watched, which the system has
    to list: on Windows it is :meth:`shut_down` or the end of the block.

    A host belongs to the event loop in which its block was entered, and is used once. A response
    is given it as ``host``, or finds it in the state of the lifespan.

    :param grace: seconds that a stream has at shutdown, where its own grace is not shorter. A
        client then has as long to take a message, and a second at least.
    :raises TypeError: if ``grace`` is no number
    :raises ValueError: if ``grace`` is negative or not finite

    """

    def __init__(self, *, grace: float = 5.0) -> None:
        super().__init__(seconds("grace", grace))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {self._state}, {self._open} streams>"

    async def __aenter__(self) -> Self:
        """
        Open the host.

        :raises RuntimeError: if it was entered before

        """
        if self._state != "new":
            raise RuntimeError(f"{self!r} is used once: make a new one for each lifespan")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._termination, self._watching = Termination(), anyio.CancelScope()
        self._tasks.start_soon(self._watch, name=f"watcher of {type(self).__name__}")
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

        Each has its grace, and its ``on_end`` its time. If this wait is cancelled, the streams that
        live on here are cancelled, too, and those that have a request are not waited for.
        """
        self._watching.cancel()
        self.shut_down()
        self._empty = anyio.Event()
        leaving: BaseException | None = exc
        try:
            if self._open:
                await self._empty.wait()
        except BaseException as interrupted:
            self._tasks.cancel_scope.cancel()
            leaving = both(error_in(exc), interrupted)
        self._state = "left"
        try:
            # By now they have ended, or are being closed, which is bounded.
            self._tasks.cancel_scope.shield = True
            # The body's exception is not the group's business: it would come back in a group.
            await self._tasks.__aexit__(None, None, None)
        except BaseException as raised:
            leaving = both(error_in(leaving), bare(raised))
        if leaving is not None and leaving is not exc:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving, exc, traceback, self

    def shut_down(self) -> None:
        """
        Tell every open stream, and every later one, that the program ends.

        Does not block, and does nothing the second time. May be called from any thread and from a
        signal handler: the streams are told in their event loop.
        """
        self._shutdown.cancel(Shutdown())

    @property
    def is_shut_down(self) -> bool:
        """Whether the streams have been told that the program ends."""
        return self._shutdown.cancelled

    async def _watch(self) -> None:
        with self._watching:
            await self._termination.wait()
            self.shut_down()


class _Guest:
    """What runs in a task of the host on behalf of a request, which may leave before it ends."""

    def __init__(self, function: Callable[[], Awaitable[None]], let_go: anyio.Event) -> None:
        self._function = function
        self._let_go = let_go
        self._scope = anyio.CancelScope()
        self._done = anyio.Event()
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Run the function, in the task of the host."""
        try:
            with self._scope:
                await self._function()
        except anyio.get_cancelled_exc_class():
            if not (self._let_go.is_set() or self._scope.cancel_called):
                self._error = anyio.ClosedResourceError("the host of this response was cancelled")
            raise
        except BaseException as exc:
            if not self._let_go.is_set():
                self._error = exc
            elif isinstance(exc, Exception):
                _logger.exception("a stream failed after its client had gone")
            else:
                raise
        finally:
            self._done.set()
            self._let_go.set()
            # The traceback of an error includes this frame.
            del self

    async def wait(self) -> None:
        """Wait for it, in the task of the request. A cancellation of the wait is passed on."""
        leaving: BaseException | None = None
        try:
            await self._let_go.wait()
        except BaseException as exc:
            leaving = exc
        if leaving is not None and not self._let_go.is_set():
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._done.wait()
        leaving, self._error = both(leaving, self._error), None
        if leaving is not None:
            try:
                raise leaving
            finally:
                # Its traceback includes this frame.
                del leaving, self
