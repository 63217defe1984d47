"""What a stream raises, and how a group of exceptions is taken apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeGuard

import anyio


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
    # Before any call: each end of a stream asks several times.
    given: object = exc
    if not isinstance(given, BaseExceptionGroup):
        return None if drop(exc) else exc
    assert is_group(exc)
    try:
        dropped, rest = exc.split(lambda leaf: not is_group(leaf) and drop(leaf))
    except BaseException:
        # Group classes of others are made by a method of theirs, which may fail.
        kept = [leaf for leaf in leaves(exc) if not drop(leaf)]
        dropped, rest = exc, BaseExceptionGroup(exc.message, kept) if kept else None
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


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, at any depth, or the exception itself."""
    if is_group(exc):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


def shares_leaf(exc: BaseException, other: BaseException | None) -> bool:
    """Tell whether the same exception is in both, so that meeting one reveals the other."""
    found = () if other is None else tuple(leaves(other))
    return any(leaf is each for leaf in leaves(exc) for each in found)


def first_leaf(exc: BaseException) -> BaseException:
    """Return an exception that is not a group: the first in a group, or the exception itself."""
    while is_group(exc):
        exc = exc.exceptions[0]
    return exc


def is_stream_cancelled(exc: BaseException) -> TypeGuard[StreamCancelled]:
    """Tell whether an exception is a :exc:`StreamCancelled`."""
    return isinstance(exc, StreamCancelled)


def is_backend_cancellation(exc: BaseException) -> bool:
    """Tell whether an exception is asyncio's or trio's own."""
    return not isinstance(exc, StreamCancelled) and isinstance(exc, anyio.get_cancelled_exc_class())


def error_in(exc: BaseException | None) -> BaseException | None:
    """Return the part of an exception that is not such a cancellation."""
    return None if exc is None else without(exc, is_backend_cancellation)


def only_backend_cancellation(exc: BaseException | None) -> bool:
    """Tell whether an exception is such a cancellation, or a group of nothing else."""
    return exc is not None and error_in(exc) is None


def is_cancellation(exc: BaseException) -> bool:
    """Tell whether an exception only says that something was told to stop."""
    return without(exc, lambda e: is_stream_cancelled(e) or is_backend_cancellation(e)) is None


def is_failure(exc: BaseException) -> bool:
    """Tell whether an exception, or a group, holds nothing that should end the program."""
    return without(exc, lambda leaf: isinstance(leaf, Exception | StreamCancelled)) is None


def set_traceback(exc: BaseException, traceback: TracebackType | None) -> BaseException:
    """Set the traceback of an exception, even if its class interferes."""
    return BaseException.with_traceback(exc, traceback)


def set_context(exc: BaseException, context: BaseException) -> None:
    """Set the context of an exception, even if its class interferes."""
    BaseException.__setattr__(exc, "__context__", context)


_HERE = f"{__package__}."


def without_own_frames(exc: BaseException, package: str = _HERE) -> BaseException:
    """
    Drop the frames of the source task, which would keep the whole stream alive.

    :param package: how the modules are called whose frames they are

    """
    traceback = exc.__traceback__
    # Code in exec() need not be in a module.
    while traceback is not None and str(
        traceback.tb_frame.f_globals.get("__name__", "")
    ).startswith(package):
        traceback = traceback.tb_next
    return set_traceback(exc, traceback)


def not_an_end(exc: BaseException) -> BaseException:
    """Return an exception of a hook, as it may leave an iteration: PEP 479."""
    if not isinstance(exc, StopIteration | StopAsyncIteration):
        return exc
    error = RuntimeError(f"a hook of a stage raised {type(exc).__name__}: return a value instead")
    error.__cause__ = exc
    return error


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


def was_cancelled_before(exc: BaseException) -> bool:
    """Tell whether an error was raised while a cancellation of the backend was on its way."""
    seen: set[int] = set()
    context = exc.__context__
    while context is not None and id(context) not in seen:
        if only_backend_cancellation(context):
            return True
        seen.add(id(context))
        context = context.__context__
    return False


def both(first: BaseException | None, second: BaseException | None) -> BaseException | None:
    """
    Return both of two errors: a group if there are two, so that neither is lost.

    A cancellation is not an error: together with one, it is its context.
    """
    if first is None or second is None:
        return second if first is None else first
    if is_cancellation(second):
        return first
    if is_cancellation(first):
        if second.__context__ is None:
            set_context(second, first)
        return second
    group = BaseExceptionGroup("the stream failed, and so did its closing", [first, second])
    group.add_note("first what ended the stream, then what was raised while it was closed")
    return group
