"""``poll``: a question, asked again and again, as a signal."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from random import random
from types import TracebackType

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, current_token

from .._core.arguments import seconds
from .._core.backend import error_of_stray
from .._core.exceptions import StreamCancelled
from .token import CancelToken

_logger = logging.getLogger("streamkit")


@dataclass(frozen=True, slots=True)
class PollFailed:
    """The reason of a cancellation that nobody asked for: the check kept failing."""

    #: How many checks in a row have failed.
    errors: int
    #: What the last of them raised. A check that took too long counts as a :exc:`TimeoutError`.
    last: Exception

    def __str__(self) -> str:
        return f"the check failed, {self.errors} in a row, the last with {self.last!r}"


def poll(
    check: Callable[[], Awaitable[object]],
    every: float,
    *,
    timeout: float = 5.0,
    jitter: float = 0.0,
    on_error: Callable[[Exception], object] | None = None,
    max_errors: int | None = 10,
) -> AbstractAsyncContextManager[CancelToken, None]:
    """
    Ask again and again whether to stop: for a signal that is kept in a row or on a server.

    While the block is open, a task asks at once, and then ``every`` seconds after each answer,
    whether or not items flow. It does not keep the block, or the stream, from starting. When the
    answer is yes, the token fires and the asking ends. When the block ends, the asking ends as
    well: a check that is under way is cancelled and waited for.

    A check that raises, or takes longer than ``timeout``, does not stop the stream. It is
    asked again ``every`` seconds later, until ``max_errors`` checks in a row have failed. Then the
    token fires with a :class:`PollFailed` as its reason. The first error in a row is logged.

    :param check: an async callable without arguments. A falsy result means: go on. ``True`` means:
        stop, for no particular reason. Anything else means: stop, for this reason. A
        :exc:`StreamCancelled` that it raises stops with its reason
    :param every: seconds from an answer to the next check: finite, and more than 0
    :param timeout: seconds after which a check is cancelled and counts as failed
    :param jitter: lengthens each pause at random, by up to this fraction of ``every``, from 0 to 1,
        so that many processes do not all ask at once
    :param on_error: a sync callable that is told each error, in place of the log
    :param max_errors: how many checks in a row may fail, or ``None`` to go on whatever happens
    :return: an async context manager that yields the token; used once
    :raises TypeError: if an argument is of the wrong type. Whether a check is async shows when it
        is first called: if not, the stream ends, and the error is raised where the block is left
    :raises ValueError: if a number is out of its range

    """
    return _Poll(_Check(check, every, timeout, jitter, on_error, max_errors))


def shared_poll(
    key: Hashable,
    check: Callable[[], Awaitable[object]],
    every: float,
    *,
    timeout: float = 5.0,
    jitter: float = 0.0,
    on_error: Callable[[Exception], object] | None = None,
    max_errors: int | None = 10,
) -> AbstractAsyncContextManager[CancelToken, None]:
    """
    Ask again and again whether to stop, once for all blocks of this event loop with the same key.

    Like :func:`poll`, but however many blocks are open, only one of them asks, with its own
    ``check`` and at its own pace, and all of them get the same token. When that block ends, another
    one goes on from there, without an extra check. The key is forgotten with the last block: the
    next block after that asks at once, and gets a new token.

    :param key: any hashable: what is asked about, such as ``("run", run_id)``. All code in an
        event loop shares its keys, so choose one that nothing else uses
    :param check: see :func:`poll`, as for all other parameters
    :param every: seconds from an answer to the next check
    :param timeout: seconds after which a check is cancelled and counts as failed
    :param jitter: lengthens each pause at random, by up to this fraction of ``every``
    :param on_error: a sync callable that is told each error, in place of the log
    :param max_errors: how many checks in a row may fail, whichever block made them, or ``None``
    :return: an async context manager that yields the token of the key; used once
    :raises TypeError: if an argument is of the wrong type, or ``key`` is not hashable
    :raises ValueError: if a number is out of its range

    """
    hash(key)
    return _SharedPoll(_Check(check, every, timeout, jitter, on_error, max_errors), key)


class _Question:
    """What is known of the answer, shared by all blocks that want it."""

    def __init__(self) -> None:
        self.token = CancelToken()
        self.turn = anyio.Lock()
        #: When to ask next, on the clock of anyio.
        self.due = -math.inf
        #: How many checks in a row have failed.
        self.errors = 0
        #: How many blocks are open.
        self.blocks = 0


class _Check:
    """A check, and what its answers lead to."""

    def __init__(
        self,
        check: Callable[[], Awaitable[object]],
        every: float,
        timeout: float,
        jitter: float,
        on_error: Callable[[Exception], object] | None,
        max_errors: int | None,
    ) -> None:
        _check_callables(check, on_error)
        self._check = check
        self._every = seconds("every", every, positive=True)
        self._timeout = seconds("timeout", timeout, positive=True)
        self._jitter = _fraction("jitter", jitter)
        self._on_error = on_error
        self._max_errors = _limit("max_errors", max_errors)
        self.name = str(getattr(check, "__qualname__", type(check).__qualname__))
        #: What is wrong with the check, once that is known.
        self.misuse: str | None = None

    async def run(self, question: _Question) -> None:
        """Ask once, and fire the token if that is the answer."""
        # If this is cancelled halfway, whoever asks next keeps the pace.
        question.due = anyio.current_time() + self._every
        answer: object = None
        error: Exception | None = None
        try:
            with anyio.move_on_after(self._timeout) as scope:
                awaitable: object = self._check()
                if not isawaitable(awaitable):
                    self._refuse(question, awaitable)
                    return
                answer = await awaitable
            if scope.cancelled_caught:
                error = TimeoutError(f"{self.name} has not answered in {self._timeout} seconds")
            elif answer:
                question.token.cancel(None if answer is True else answer)
        except StreamCancelled as stop:
            question.token.cancel(stop.reason)
        except Exception as exc:
            error = exc
        except BaseException as exc:
            error = error_of_stray(exc, self.name)
            if error is None:
                raise
        try:
            self._note(question, error)
            question.due = anyio.current_time() + self._every * (1 + self._jitter * random())
        finally:
            # The error keeps this frame, and the reason of the token keeps the error.
            del question, error, answer

    def _refuse(self, question: _Question, answer: object) -> None:
        self.misuse = (
            f"check must be an async callable, but {self.name} returned "
            f"{type(answer).__qualname__}: write 'async def', and for code that blocks "
            "'await anyio.to_thread.run_sync(...)' in it"
        )
        question.token.cancel(PollFailed(1, TypeError(self.misuse)))

    def _note(self, question: _Question, error: Exception | None) -> None:
        if error is None:
            question.errors = 0
            return
        question.errors += 1
        self._report(question.errors, error)
        if self._max_errors is not None and question.errors >= self._max_errors:
            question.token.cancel(PollFailed(question.errors, error))

    def _report(self, errors: int, error: Exception) -> None:
        if self._on_error is not None:
            try:
                self._on_error(error)
            except (Exception, StreamCancelled):
                _logger.exception("on_error of poll() failed")
        elif errors == 1:
            _logger.warning(
                "poll(): %s failed, and further errors are not logged until it succeeds",
                self.name,
                exc_info=error,
            )


class _Poll(AbstractAsyncContextManager[CancelToken, None]):
    # A class, not a generator: the task group must not wrap an error that leaves the block.

    def __init__(self, check: _Check) -> None:
        self._check = check
        self._entered = False
        self._tasks: TaskGroup
        # A scope of its own: that of the group would reach the body as well.
        self._asking = anyio.CancelScope()

    async def __aenter__(self) -> CancelToken:
        if self._entered:
            raise RuntimeError("a poll is used once: call poll() anew for each block or stream")
        self._entered = True
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        question = self._join()
        self._tasks.start_soon(self._ask, question, name=f"poll of {self._check.name}")
        return question.token

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        # On asyncio, a scope that ends inside another cancelled one hands its Task.uncancel() on to
        # that one, though that belongs to another task: a native cancellation of this task would be
        # taken back. A shield keeps the two apart.
        self._asking.shield = True
        self._asking.cancel()
        # The awaited tasks have been cancelled. A cancellation from outside can't make this
        # shorter, and would take the place of the body's exception.
        self._tasks.cancel_scope.shield = True
        # Not given the body's exception, which would come back in a group.
        await self._tasks.__aexit__(None, None, None)
        if self._check.misuse is not None and (exc is None or isinstance(exc, StreamCancelled)):
            raise TypeError(self._check.misuse)

    def _join(self) -> _Question:
        return _Question()

    def _leave(self) -> None:
        pass

    async def _ask(self, question: _Question) -> None:
        try:
            with self._asking:
                async with question.turn:
                    while not question.token.cancelled:
                        await anyio.sleep_until(question.due)
                        if not question.token.cancelled:
                            await self._check.run(question)
        finally:
            # As in the check: this frame refers to it.
            del question


# The questions of the shared polls of all event loops. Each loop only touches its own keys.
_questions: dict[tuple[EventLoopToken, Hashable], _Question] = {}


class _SharedPoll(_Poll):
    def __init__(self, check: _Check, key: Hashable) -> None:
        super().__init__(check)
        self._key = key
        self._place: tuple[EventLoopToken, Hashable]

    def _join(self) -> _Question:
        self._place = (current_token(), self._key)
        question = _questions.get(self._place)
        if question is None:
            question = _questions[self._place] = _Question()
        question.blocks += 1
        return question

    def _leave(self) -> None:
        question = _questions[self._place]
        question.blocks -= 1
        if not question.blocks:
            del _questions[self._place]


def _check_callables(check: object, on_error: object) -> None:
    if not callable(check):
        if iscoroutine(check):
            check.close()
        raise TypeError(
            f"check must be an async callable, got {type(check).__qualname__}: write "
            "poll(is_cancelled, 0.5), without calling is_cancelled"
        )
    if on_error is not None and (not callable(on_error) or iscoroutinefunction(on_error)):
        raise TypeError(
            f"on_error must be a sync callable that takes the error, got {on_error!r}; to go on "
            "whatever happens, write max_errors=None"
        )


def _fraction(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number from 0 to 1, got {value!r}; write {name}=0.1")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}; write {name}=0.1")
    return value


def _limit(name: str, value: object) -> int | None:
    what = f"{name} must be an integer > 0 or None"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}, got {value!r}; write {name}=10")
    if value <= 0:
        raise ValueError(f"{what}, got {value!r}; write {name}=10")
    return value
