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
    A request to stop, with a reason. It may be made before, while or after somebody listens.

    A token fires once, and the first reason stays. It belongs to no event loop: it may be created
    and fired anywhere, and each listener is told in the loop in which it began to listen. Tokens
    form trees: see :meth:`child` and :meth:`any`. The idea comes from the cancellation tokens of
    .NET and from Go's ``context.Cause``.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may fire the token while this thread is registering with it.
        self._lock = threading.RLock()
        self._cancelled = False
        self._reason: object = None
        #: Its grace was ended: nothing more can be said.
        self._is_over = False
        #: The reason of a cancellation that waits for a yield, if there is one: in a tuple of one.
        self._at_yield: tuple[object, ...] = ()
        self._listeners: dict[CancelHandle, _Listener] = {}
        # A token holds its parents, so that no link is lost when a node in the middle is dropped.
        # Parents do not hold it: a long-lived parent would hold every child it ever had.
        self._parents: tuple[CancelToken, ...] = ()
        self._children: WeakSet[CancelToken] | None = None

    def __repr__(self) -> str:
        state = f"cancelled, reason={self._reason!r}" if self._cancelled else "not cancelled"
        if self._at_yield and not self._cancelled:
            state += f", at a yield: reason={self._at_yield[0]!r}"
        return f"<{type(self).__name__} {state}>"

    @property
    def cancelled(self) -> bool:
        """Whether the token has fired."""
        return self._cancelled

    @property
    def reason(self) -> object:
        """The reason given to the call of :meth:`cancel` that fired the token."""
        return self._reason

    def cancel(self, reason: object = None, *, at_yield: bool = False) -> bool:
        """
        Fire the token, or ask its streams to stop where they yield next.

        Does not block and does not raise. May be called from any thread, from any event loop, from
        a signal handler, and while no event loop runs. Listeners in the calling task's own loop are
        told before it returns, others soon after.

        With ``at_yield=True``, the token does not fire: :attr:`cancelled` stays ``False``, and
        callbacks, scopes and :meth:`wait` hear nothing. A stream raises :exc:`StreamCancelled` in
        its source at the ``yield`` that the source is at or comes to next, once the consumer has
        taken all that was yielded. A source that has not started never will. If the token fires
        before that, or anything else ends the stream, that counts instead.

        :param reason: why: any object, which every listener receives
        :param at_yield: let each source finish the step that it is in
        :return: ``True`` for the call that fired it, ``False`` for every later one; with
            ``at_yield``, ``True`` for the first such call before that

        """
        tell = CancelToken._ask if at_yield else CancelToken._fire
        children = tell(self, reason)
        if children is None:
            return False
        # One after the other, not one inside the other: a tree may be deeper than the stack.
        while children:
            children.extend(tell(children.pop(), reason) or ())
        return True

    def end_grace(self, reason: object = None) -> bool:
        """
        End the grace of every source that listens: for a second Ctrl-C, or a Stop pressed twice.

        Fires the token, if it has not fired. Then the grace of each stream that listens is over,
        whatever has told its source, and so is the grace of the streams inside it. Whatever a
        source awaits raises the backend's own cancellation, as at the end of any grace, and
        ``outcome.grace_exceeded`` is ``True``. It reaches children and may be called from anywhere,
        like :meth:`cancel`.

        :param reason: why, for a token that has not fired
        :return: ``True`` for the first call, ``False`` for every later one

        """
        self.cancel(reason)
        children = self._end()
        if children is None:
            return False
        while children:
            child = children.pop()
            # The call that fires the parent may not have reached this one yet.
            child.cancel(self._reason)
            children.extend(child._end() or ())
        return True

    def child(self) -> CancelToken:
        """
        Return a token that fires when this one does, with the same reason, or by itself before
        that.

        A child of a token that has fired is born cancelled. It lives while somebody holds it or a
        handle of it, or listens with a stream, a :meth:`scope` or :meth:`wait`: nothing has to be
        closed.
        """
        return CancelToken.any(self)

    @staticmethod
    def any(*tokens: CancelToken) -> CancelToken:
        """
        Return a token that fires when the first of several tokens does, with the same reason.

        It may also be fired itself, which does not touch the others. It lives like a :meth:`child`.

        :raises TypeError: if one of them is not a token

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
        Enter a cancel scope that is cancelled when the token fires: for code that is not a stream.

        The code in it sees the backend's own cancellation. When the block ends, ``scope.\
cancelled_caught`` tells whether it was cut short, and :attr:`reason` says why. A token may have any
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

    def on_cancel(
        self,
        callback: Callable[[object], object],
        *,
        at_yield: Callable[[object], object] | None = None,
        end_grace: Callable[[], object] | None = None,
    ) -> CancelHandle:
        """
        Have ``callback`` called with the reason when the token fires: at once if it has already
        fired.

        It is called once, in the event loop in which this method was called, and must not block.
        What it raises is logged. The same holds for the other two callbacks, which are for stages.

        :param callback: a sync callable that takes the reason
        :param at_yield: called with the reason when sources should stop at a ``yield``, unless
            the token has fired
        :param end_grace: called without arguments, after ``callback``, when the grace is ended
        :return: a handle whose :meth:`~CancelHandle.close` removes them

        """
        handle, listener = CancelHandle(self._remove), _Listener(callback, at_yield, end_grace)
        with self._lock:
            cancelled, is_over, asked = self._cancelled, self._is_over, self._at_yield
            if not cancelled or (listener.ends_grace and not is_over):
                self._listeners[handle] = listener
        if cancelled:
            listener.cancel(self._reason)
            if is_over:
                listener.end_grace()
        elif asked:
            listener.cancel_at_yield(asked[0])
        return handle

    # Each of these tells the listeners of this token alone, and returns its children, or ``None``
    # if it comes too late.

    def _ask(self, reason: object) -> list[CancelToken] | None:
        with self._lock:
            if self._cancelled or self._at_yield:
                return None
            self._at_yield = (reason,)
            listeners, children = self._all()
        for listener in listeners:
            listener.cancel_at_yield(reason)
        return children

    def _fire(self, reason: object) -> list[CancelToken] | None:
        with self._lock:
            if self._cancelled:
                return None
            self._reason = reason
            self._cancelled = True
            listeners, children = self._all()
            self._listeners = {
                handle: each for handle, each in self._listeners.items() if each.ends_grace
            }
        for listener in listeners:
            listener.cancel(reason)
        return children

    def _end(self) -> list[CancelToken] | None:
        with self._lock:
            if self._is_over:
                return None
            self._is_over = True
            listeners, children = self._all()
            self._listeners.clear()
            self._children = None
        for listener in listeners:
            listener.end_grace()
        return children

    def _all(self) -> tuple[list[_Listener], list[CancelToken]]:
        return list(self._listeners.values()), list(self._children or ())

    def _adopt(self, child: CancelToken) -> None:
        with self._lock:
            cancelled, is_over, asked = self._cancelled, self._is_over, self._at_yield
            if not is_over:
                if self._children is None:
                    self._children = WeakSet()
                self._children.add(child)
        if is_over:
            child.end_grace(self._reason)
        elif cancelled:
            child.cancel(self._reason)
        elif asked:
            child.cancel(asked[0], at_yield=True)

    def _remove(self, handle: CancelHandle) -> bool:
        with self._lock:
            return self._listeners.pop(handle, None) is not None and not self._cancelled


class _Listener:
    """Callbacks, and the event loop in which they are to be called."""

    __slots__ = ("_at_yield", "_end_grace", "_loop", "_on_cancel")

    def __init__(
        self,
        on_cancel: Callable[[object], object],
        at_yield: Callable[[object], object] | None,
        end_grace: Callable[[], object] | None,
    ) -> None:
        self._on_cancel = on_cancel
        self._at_yield = at_yield
        self._end_grace = end_grace
        self._loop = Loop()

    @property
    def ends_grace(self) -> bool:
        """Whether it still listens after it was told of the cancellation."""
        return self._end_grace is not None

    def cancel(self, reason: object) -> None:
        self._loop.call(partial(_call, self._on_cancel, reason))

    def cancel_at_yield(self, reason: object) -> None:
        if self._at_yield is not None:
            self._loop.call(partial(_call, self._at_yield, reason))

    def end_grace(self) -> None:
        if self._end_grace is not None:
            self._loop.call(partial(_call, self._end_grace))


def _call(callback: Callable[..., object], *arguments: object) -> None:
    try:
        callback(*arguments)
    except (Exception, StreamCancelled):
        _logger.exception("a callback of CancelToken.on_cancel() failed")


def _check_token(given: object) -> None:
    if not isinstance(given, CancelToken):
        raise TypeError(
            f"expected a CancelToken, got {type(given).__qualname__}: write "
            "CancelToken.any(token, other)"
        )
