"""What a stream raises, and how a group of exceptions is taken apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeGuard


class StreamCancelled(BaseException):
    """
    Raised inside a source that is told to stop, and by a stream whose source let it out.

    It derives from :exc:`BaseException`, like the cancellation exceptions of the backends, so that
    a retry loop or an ``except Exception`` does not eat it. On asyncio the object that is raised
    *inside* the source is also an :exc:`asyncio.CancelledError`, because task groups, locks and
    conditions only unwind correctly for that class. What a consumer receives is always the plain
    class: the consumer is not being cancelled.

    :param reason: why the stream was stopped: any object, as given to :meth:`CancelToken.cancel`

    """

    def __init__(self, reason: object = None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return "the stream was cancelled" if self.reason is None else str(self.reason)


def without(exc: BaseException, drop: Callable[[BaseException], bool]) -> BaseException | None:
    """
    Take the exceptions that ``drop`` accepts out of ``exc``, which may be a group.

    :return: the same object if there was nothing to take out, ``None`` if nothing is left

    """
    if not is_group(exc):
        return None if drop(exc) else exc
    dropped, rest = exc.split(lambda leaf: not is_group(leaf) and drop(leaf))
    return exc if dropped is None else rest


def is_group(exc: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    """Tell whether an exception holds others."""
    return isinstance(exc, BaseExceptionGroup)


def bare(exc: BaseException) -> BaseException:
    """Return the one exception in a group of one, or the exception itself."""
    while is_group(exc) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def cancelled_only(exc: BaseException) -> StreamCancelled | None:
    """Return a :exc:`StreamCancelled` that comes alone, or in groups that hold nothing else."""
    if without(exc, is_stream_cancelled) is not None:
        return None
    leaf = first_leaf(exc)
    assert isinstance(leaf, StreamCancelled)
    return leaf


def first_leaf(exc: BaseException) -> BaseException:
    """Return an exception that is no group: the first in a group, or the exception itself."""
    while is_group(exc):
        exc = exc.exceptions[0]
    return exc


def is_stream_cancelled(exc: BaseException) -> bool:
    """Tell whether an exception is a :exc:`StreamCancelled`."""
    return isinstance(exc, StreamCancelled)


def was_thrown_at_yield(exc: BaseException) -> bool:
    """
    Tell whether an exception is the ``GeneratorExit`` that closes an async generator.

    A generator that holds a task group lets it out in a group, which then comes out of ``aclose()``
    and of :func:`contextlib.aclosing`. One that somebody has raised, in a child task for instance,
    is an error like any other.
    """
    if not isinstance(exc, GeneratorExit):
        return False
    code = None
    traceback = exc.__traceback__
    while traceback is not None:
        code, traceback = traceback.tb_frame.f_code, traceback.tb_next
    return code is not None and bool(code.co_flags & inspect.CO_ASYNC_GENERATOR)


def both(first: BaseException | None, second: BaseException | None) -> BaseException | None:
    """Return what there is of two errors: a group of both, so that neither is lost."""
    if first is None or second is None:
        return first or second
    group = BaseExceptionGroup("the stream failed, and so did its closing", [first, second])
    group.add_note("first what ended the stream, then what was raised while it was closed")
    return group
