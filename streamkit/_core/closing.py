"""How one async generator is closed, and what becomes of the errors when several are."""

from __future__ import annotations

from functools import partial
from typing import Any

from .backend import error_of_stray
from .exceptions import (
    error_in,
    is_backend_cancellation,
    set_context,
    was_thrown_at_yield,
    without,
    without_own_frames,
)
from .frames import Generator, is_generator


async def close_alone(iterator: Any) -> None:
    if not is_generator(iterator):
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
        return
    # Asked twice, so that a generator that yields in its clean-up is not left to the garbage
    # collector.
    ignored = 0
    while iterator.ag_frame is not None and ignored < 2 and await _yields_on_exit(iterator):
        ignored += 1
    if ignored:
        raise RuntimeError(
            f"async generator {iterator!r} ignored GeneratorExit: it yielded while it was being "
            "closed; yield last items in 'except StreamCancelled', not in 'finally'"
        )


async def attempt(iterator: Any) -> BaseException | None:
    try:
        await close_alone(iterator)
    except BaseException as exc:
        error = error_of_stray(exc, getattr(iterator, "__qualname__", type(iterator).__qualname__))
        return without_own_frames(exc) if error is None else error
    return None


async def close_each(iterators: list[Any], errors: list[BaseException]) -> None:
    while iterators:
        error = await attempt(iterators.pop(0))
        if error is not None:
            errors.append(error)
        error = None


def raise_all(errors: list[BaseException]) -> None:
    error = _together(errors)
    errors.clear()
    if error is not None:
        try:
            raise error
        finally:
            del error


def add_context(error: BaseException, context: BaseException) -> None:
    """Say that an error was raised while another exception was on its way."""
    seen = {id(context)}
    while error.__context__ is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__context__
    if id(error) not in seen:
        set_context(error, context)


async def _yields_on_exit(generator: Generator) -> bool:
    # Unlike aclose(), this knows the GeneratorExit that it throws. A task group that the generator
    # holds across its yield wraps it in a group, where it is taken out by identity, and what the
    # children raised is not dropped with it (python-trio/trio#3324).
    leaving = GeneratorExit()
    try:
        await generator.athrow(leaving)
    except StopAsyncIteration:
        return False
    except BaseException as exc:
        rest = without(exc, partial(_closes, leaving))
        try:
            if rest is exc:
                raise
            if rest is not None:
                raise rest from None
        finally:
            del rest
        return False
    else:
        return True
    finally:
        # Its traceback includes this frame.
        del leaving


def _closes(leaving: BaseException, exc: BaseException) -> bool:
    # Not only this one: contextlib.aclosing() throws its own.
    return exc is leaving or was_thrown_at_yield(exc)


def _together(errors: list[BaseException]) -> BaseException | None:
    failures = [error for error in errors if error_in(error) is not None]
    if not failures:
        return errors[0] if errors else None
    error = failures[0]
    if len(failures) > 1:
        error = BaseExceptionGroup("several generators failed while they were closed", failures)
    # A cancellation is not an error.
    for stopped in filter(is_backend_cancellation, errors):
        add_context(error, stopped)
    return error
