"""A cancellation that somebody asks for, and that many may listen to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from weakref import WeakSet

import anyio
from anyio.lowlevel import checkpoint

from .._core.exceptions import StreamCancelled
from .._core.loop import Loop

_logger = logging.getLogger("streamkit")


class CancelHandle:
    """A callback's place on a token, returned by :meth:`CancelToken.on_cancel`."""

    def __init__(self, close: Callable[[CancelHandle], bool]) -> None:
        self._close = close

    def close(self) -> bool:
        """
        Take the callback off the token. May be called from any thread, and more than once.

        :return: ``True`` if it came in time: the token had not fired, and the callback will not run

        """
        return self._close(self)


class CancelToken:
    """
    A request to stop, with a reason. It may be made before, while or after anybody listens.

    A token fires once, and the first reason stays. It belongs to no event loop: it may be created
    and fired anywhere, and each listener is told in the loop in which it began to listen. Tokens
    form trees: :meth:`child`, :meth:`any`. The idea is that of the cancellation tokens of .NET, and
    of Go's ``context.Cause``.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may fire the token while this thread is registering with it.
        self._lock = threading.RLock()
        self._cancelled = False
        self._reason: object = None
        self._listeners: dict[CancelHandle, _Listener] = {}
        # A token holds its parents, so that a link is not lost with a node in the middle. Parents
        # do not hold it: one that lives as long as the program would hold every child it ever had.
        self._parents: tuple[CancelToken, ...] = ()
        self._children: WeakSet[CancelToken] | None = None

    def __repr__(self) -> str:
        state = f"cancelled, reason={self._reason!r}" if self._cancelled else "not cancelled"
        return f"<{type(self).__name__} {state}>"

    @property
    def cancelled(self) -> bool:
        """Whether the token has fired."""
        return self._cancelled

    @property
    def reason(self) -> object:
        """The reason given to the call of :meth:`cancel` that fired the token."""
        return self._reason

    def cancel(self, reason: object = None) -> bool:
        """
        Fire the token.

        Does not block and does not raise. May be called from any thread, from any event loop, from
        a signal handler, and while no event loop runs. Listeners in the calling task's own loop are
        told before it returns, others soon after.

        :param reason: why: any object, which every listener receives
        :return: ``True`` for the call that fired it, ``False`` for every later one

        """
        children = self._fire(reason)
        if children is None:
            return False
        # One after the other, not one inside the other: a tree may be deeper than the stack.
        while children:
            children.extend(children.pop()._fire(reason) or ())
        return True

    def child(self) -> CancelToken:
        """
        Return a token that fires when this one does, with the same reason, and may fire before.

        A child of a token that has fired is born cancelled. It lives as long as somebody holds it,
        or a handle of it, or listens with a stream, a :meth:`scope` or :meth:`wait`: nothing has
        to be closed.
        """
        return CancelToken.any(self)

    @staticmethod
    def any(*tokens: CancelToken) -> CancelToken:
        """
        Return a token that fires when the first of several tokens does, with the same reason.

        It may also be fired itself, which does not touch the others. It lives as a :meth:`child`.

        :raises TypeError: if one of them is no token

        """
        for token in tokens:
            _check_token(token)
        fires_with = CancelToken()
        fires_with._parents = tokens
        for token in tokens:
            token._adopt(fires_with)
        return fires_with

    @contextmanager
    def scope(self) -> Generator[anyio.CancelScope, None, None]:
        """
        Enter a cancel scope that is cancelled when the token fires: for code that is no stream.

        The code in it sees the backend's own cancellation. When the block ends, ``scope.\
cancelled_caught`` tells whether it was cut short, and :attr:`reason` why. A token may have any
        number of scopes, in any number of event loops.
        """
        with anyio.CancelScope() as scope:
            handle = self.on_cancel(lambda _: scope.cancel("a CancelToken was fired"))
            try:
                yield scope
            finally:
                handle.close()

    async def wait(self) -> object:
        """
        Wait until the token has fired.

        :return: the reason

        """
        if self._cancelled:
            await checkpoint()
            return self._reason
        fired = anyio.Event()
        handle = self.on_cancel(lambda _: fired.set())
        try:
            await fired.wait()
        finally:
            handle.close()
        return self._reason

    def raise_if_cancelled(self) -> None:
        """
        Raise if the token has fired. For code that does not await for a long time.

        :raises StreamCancelled: with the reason of the token

        """
        if self._cancelled:
            raise StreamCancelled(self._reason)

    def on_cancel(self, callback: Callable[[object], object]) -> CancelHandle:
        """
        Have ``callback`` called with the reason when the token fires: at once if it has fired.

        It is called once, in the event loop in which this method was called, and must not block.
        What it raises is logged.

        :param callback: a sync callable that takes the reason
        :return: a handle whose :meth:`~CancelHandle.close` takes the callback off again

        """
        handle, listener = CancelHandle(self._remove), _Listener(callback)
        with self._lock:
            if not self._cancelled:
                self._listeners[handle] = listener
                return handle
        listener.notify(self._reason)
        return handle

    def _fire(self, reason: object) -> list[CancelToken] | None:
        """Tell the listeners of this token alone. Returns its children, or ``None`` if too late."""
        with self._lock:
            if self._cancelled:
                return None
            self._reason = reason
            self._cancelled = True
            listeners = list(self._listeners.values())
            self._listeners.clear()
            children = list(self._children or ())
            self._children = None
        for listener in listeners:
            listener.notify(reason)
        return children

    def _adopt(self, child: CancelToken) -> None:
        with self._lock:
            if not self._cancelled:
                if self._children is None:
                    self._children = WeakSet()
                self._children.add(child)
                return
        child.cancel(self._reason)

    def _remove(self, handle: CancelHandle) -> bool:
        with self._lock:
            return self._listeners.pop(handle, None) is not None


class _Listener:
    """A callback, and the event loop in which it is to be called."""

    def __init__(self, callback: Callable[[object], object]) -> None:
        self._callback = callback
        self._loop = Loop()

    def notify(self, reason: object) -> None:
        self._loop.call(partial(self._call, reason))

    def _call(self, reason: object) -> None:
        try:
            self._callback(reason)
        except (Exception, StreamCancelled):
            _logger.exception("a callback of CancelToken.on_cancel() failed")


def _check_token(given: object) -> None:
    if not isinstance(given, CancelToken):
        raise TypeError(
            f"expected a CancelToken, got {type(given).__qualname__}: write "
            "CancelToken.any(token, other)"
        )
