"""A cancellation that somebody asks for, and that many may listen to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from ._exceptions import StreamCancelled
from ._loop import Loop

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
    and fired anywhere, and each listener is told in the loop in which it began to listen. The idea
    is that of the cancellation tokens of .NET, and of Go's ``context.Cause``.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may fire the token while this thread is registering with it.
        self._lock = threading.RLock()
        self._cancelled = False
        self._reason: object = None
        self._listeners: dict[CancelHandle, _Listener] = {}

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
        with self._lock:
            if self._cancelled:
                return False
            self._reason = reason
            self._cancelled = True
            listeners = list(self._listeners.values())
            self._listeners.clear()
        for listener in listeners:
            listener.notify(reason)
        return True

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
