"""
``from_thread``: something that would block the event loop, as a source.

Everything that is done with the iterable is done in one thread, which does nothing else, and in
one context: it is made, stepped, told and closed there. A pool would do each step in another
thread, in a new copy of the context, with the wrong connection or context variable
(:func:`anyio.to_thread.run_sync`, :meth:`asyncio.loop.run_in_executor`).

Nobody can stop a thread. So the source waits in a shield for each step, as it does for any thread,
and what it is told meanwhile is raised at the ``yield`` that follows. If there is an ``interrupt``
to end the step, the wait has no shield: the interrupt is called when the wait is cancelled, and
the thread is still waited for. No item, error or cancellation is lost in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction
from typing import Generic, Literal, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import RunVar

from .._core.closing import add_context
from .._core.exceptions import StreamCancelled
from .._core.stream import Stream
from .worker import Thread

T = TypeVar("T")


class _End(Enum):
    END = "END"


_OrEnd: TypeAlias = T | Literal[_End.END]

#: Seconds after which a step that goes on is interrupted again. The first time, the thread may not
#: have reached the call that can be interrupted.
AGAIN_AFTER = 1.0

#: How many threads there may be at a time in one event loop, by default.
DEFAULT_LIMIT = 40

# Not anyio's own limiter, which many short calls share: threads that last as long as a stream
# would keep those calls waiting, and would wait for them.
_default_limiter: RunVar[anyio.CapacityLimiter] = RunVar("streamkit_from_thread")


def from_thread(
    iterable: Iterable[T] | Callable[[], Iterable[T]],
    *,
    interrupt: Callable[[], object] | None = None,
    limiter: anyio.CapacityLimiter | None = None,
) -> Stream[T]:
    """
    Iterate a blocking iterable in a thread of its own: a sync generator, a file, the response of a
    client that is not async.

    The thread starts with the first ask, serves this iterable alone, in one context, and ends when
    the source is closed. Each item is asked for when the consumer asks. Beats, signals and limits
    work meanwhile.

    At a ``yield``, a sync generator is told to stop by :exc:`StreamCancelled` like any source, and
    may yield last items; any other iterator is closed. While the thread is blocked between two
    items, nobody can stop it: the generator is told at its next ``yield``, and leaving the block
    waits for that, however long it takes, unless ``interrupt`` ends the step. In the end the
    ``close()`` of the iterator, if there is one, is called in the thread, then that of the
    iterable.

    :param iterable: a sync iterable, which the stream owns and closes, or a function that returns
        one and is called in the thread: a generator function, for instance
    :param interrupt: called in the event loop when the source is told to stop while the thread is
        at work for it, to make that step return: ``connection.interrupt`` of :mod:`sqlite3`, for
        instance. Must not block. Called again every second while the step goes on, because the
        thread may not have reached the call that can be interrupted. An :exc:`Exception` that the
        iterable raises then counts as a result of the interruption: the consumer receives
        :exc:`StreamCancelled`.
    :param limiter: limits how many threads there are at a time, and is held while the thread
        exists. When it is full, the source waits, and can be stopped there. The default allows 40
        in an event loop.
    :return: a stream of the items
    :raises TypeError: if ``iterable`` is neither a sync iterable nor a function, ``interrupt`` is
        not a sync function, or ``limiter`` is not a limiter

    """
    _check(iterable, interrupt, limiter)
    return Stream(_Blocking(iterable, interrupt, limiter))


class _Blocking(AsyncIterable[T]):
    """The source: asks the thread for one item at a time."""

    def __init__(
        self,
        iterable: Iterable[T] | Callable[[], Iterable[T]],
        interrupt: Callable[[], object] | None,
        limiter: anyio.CapacityLimiter | None,
    ) -> None:
        self.__qualname__ = _name(iterable)
        self._inside = _Inside(iterable)
        self._interrupt = interrupt
        self._limiter = limiter
        self._has_begun = False

    def __aiter__(self) -> AsyncGenerator[T, None]:
        self._has_begun = True
        return self._items()

    async def aclose(self) -> None:
        """Close an iterable that was asked for nothing."""
        if not self._has_begun:
            await self._close_in(Thread(self.__qualname__))

    async def _items(self) -> AsyncGenerator[T, None]:
        limiter = _default() if self._limiter is None else self._limiter
        thread, borrower = Thread(self.__qualname__), object()
        leaving: BaseException | None = None
        is_held = False
        try:
            await limiter.acquire_on_behalf_of(borrower)
            is_held = True
            step: Callable[[], _OrEnd[T]] = self._inside.step
            while True:
                item, told = await call_in_thread_of_source(thread, step, self._interrupt)
                if item is _End.END:
                    break
                try:
                    yield item
                except StreamCancelled as stop:
                    told = stop
                step = self._inside.step if told is None else partial(self._inside.tell, told)
                # Its traceback includes this frame.
                told = None
        except BaseException as exc:
            leaving = exc
            if not is_held:
                thread.is_dropped = isinstance(exc, GeneratorExit)
        try:
            # If there was no room for it, beyond the limit: there may never be any.
            await self._close_in(thread)
        except BaseException as exc:
            if leaving is not None:
                add_context(exc, leaving)
            raise
        finally:
            if is_held:
                limiter.release_on_behalf_of(borrower)
            leaving, reraised = None, leaving
            step = self._inside.step
        if reraised is not None:
            try:
                raise reraised
            finally:
                del reraised

    async def _close_in(self, thread: Thread) -> None:
        if not self._inside.has_to_close:
            thread.end()
        elif thread.is_dropped:
            thread.begin(self._inside.close)
            thread.end()
        else:
            try:
                _, told = await call_in_thread_of_source(thread, self._inside.close)
            finally:
                thread.end()
            if told is not None:
                try:
                    raise told
                finally:
                    del told


async def call_in_thread_of_source(
    thread: Thread, function: Callable[[], T], interrupt: Callable[[], object] | None = None
) -> tuple[T, StreamCancelled | None]:
    """
    Run a function in a thread, and wait until it is done, whatever happens.

    :param interrupt: called if the wait is cancelled, and again while it goes on
    :return: what the function returned, and what the source was told meanwhile
    :raises BaseException: what the function raised, or a cancellation of the backend

    """
    call = thread.begin(function)
    # It may hold the exception that the source is told.
    del function
    cancelled: BaseException | None = None
    failed: BaseException | None = None
    is_interrupted = False
    try:
        while not call.is_over.is_set():
            may_interrupt = interrupt is not None and failed is None
            try:
                with anyio.CancelScope(shield=cancelled is not None or not may_interrupt) as scope:
                    if cancelled is not None and may_interrupt:
                        scope.deadline = anyio.current_time() + AGAIN_AFTER
                    await call.is_over.wait()
            except GeneratorExit:
                # The event loop drops the task: it can no longer await anything.
                thread.is_dropped = True
                raise
            except BaseException as exc:
                cancelled = exc
            if interrupt is not None and failed is None and not call.has_ended:
                failed = _failure_of(interrupt)
                is_interrupted = failed is None
        # Taken out, because the frames of the error lead to the one that has put it there.
        raised, call.raised = call.raised, None
        if cancelled is not None and is_interrupted and isinstance(raised, Exception):
            cancelled.__cause__ = raised
            raise cancelled
        failed = _both("the step failed, and so did its interrupt", raised, failed)
        if failed is not None:
            if cancelled is not None:
                # Together with an error, it is the context of the error.
                add_context(failed, cancelled)
            raise failed
        if cancelled is None or isinstance(cancelled, StreamCancelled):
            return call.returned, cancelled
        raise cancelled
    finally:
        # Their tracebacks include this frame.
        del call, cancelled, failed
        raised = None


def _failure_of(interrupt: Callable[[], object]) -> BaseException | None:
    try:
        result = interrupt()
    except BaseException as exc:
        return exc
    if not iscoroutine(result):
        return None
    result.close()
    return TypeError(f"interrupt must be sync, but it returned a coroutine: {_DEFINE}")


class _Inside(Generic[T]):
    """What is done with the iterable, all of it in the thread."""

    def __init__(self, given: Iterable[T] | Callable[[], Iterable[T]]) -> None:
        self._function: Callable[[], Iterable[T]] | None = None
        self._iterable: Iterable[T] | None = None
        self._iterator: Iterator[T] | None = None
        if isinstance(given, Iterable):
            self._iterable = given
        else:
            self._function = given

    @property
    def has_to_close(self) -> bool:
        """Whether there is something to close, or to let go of, in the thread."""
        return self._iterator is not None or hasattr(self._iterable, "close")

    def step(self) -> _OrEnd[T]:
        if self._iterator is None:
            if self._function is not None:
                self._iterable = _checked(self._function(), _name(self._function))
            assert self._iterable is not None
            self._iterator = iter(self._iterable)
        return next(self._iterator, _End.END)

    def tell(self, stop: StreamCancelled) -> _OrEnd[T]:
        """Raise what the source is told at the ``yield`` of a generator."""
        throw: Callable[[BaseException], T] | None = getattr(self._iterator, "throw", None)
        try:
            if throw is None:
                raise stop
            return throw(stop)
        except StopIteration:
            return _End.END
        finally:
            del stop

    def close(self) -> None:
        # Nothing of them is left here when the thread ends.
        iterator, iterable = self._iterator, self._iterable
        self._iterator = self._iterable = self._function = None
        failed = _failure_of_closing(iterator)
        if iterable is not iterator:
            second = _failure_of_closing(iterable)
            failed = _both("the iterator failed to close, and so did its iterable", failed, second)
        if failed is not None:
            raise failed


def _default() -> anyio.CapacityLimiter:
    limiter = _default_limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(DEFAULT_LIMIT)
        _default_limiter.set(limiter)
    return limiter


def _failure_of_closing(value: object) -> BaseException | None:
    close: Callable[[], object] | None = getattr(value, "close", None)
    try:
        if close is not None:
            close()
    except BaseException as exc:
        return exc
    return None


def _both(
    message: str, first: BaseException | None, second: BaseException | None
) -> BaseException | None:
    if first is None or second is None:
        return second if first is None else first
    return BaseExceptionGroup(message, [first, second])


def _name(given: object) -> str:
    name: str = getattr(given, "__qualname__", type(given).__qualname__)
    return name


_DEFINE = "write 'def', or a lambda that calls a sync method"


def _checked(made: Iterable[T], name: str) -> Iterable[T]:
    given: object = made
    if hasattr(made, "__iter__"):
        return made
    if iscoroutine(given):
        given.close()
    raise TypeError(
        f"{name}() returned {type(given).__qualname__}: a function that is given to from_thread() "
        "returns a sync iterable, or is a sync generator function"
    )


def _check(iterable: object, interrupt: object, limiter: object) -> None:
    what = f"expected a sync iterable or a function, got {_name(iterable)}"
    if not isinstance(iterable, Iterable):
        if isinstance(iterable, AsyncIterable) or isasyncgenfunction(iterable):
            raise TypeError(f"{what}, which is async: pass it to a combinator as it is")
        if iscoroutine(iterable) or iscoroutinefunction(iterable):
            if iscoroutine(iterable):
                iterable.close()
            raise TypeError(f"{what}, which is async: pass a sync generator function")
        if not callable(iterable):
            raise TypeError(f"{what}: pass a sync generator, a file or a cursor, for instance")
    if interrupt is not None and (not callable(interrupt) or iscoroutinefunction(interrupt)):
        raise TypeError(f"interrupt must be a sync function, got {interrupt!r}: {_DEFINE}")
    if limiter is not None and not isinstance(limiter, anyio.CapacityLimiter):
        raise TypeError(
            f"limiter must be an anyio.CapacityLimiter, got {limiter!r}: write "
            "limiter=anyio.CapacityLimiter(10)"
        )
