"""
How a source is closed, or told something at a ``yield``, together with the generators inside it.

Each is closed with a ``GeneratorExit`` of its own, the innermost first. What the source is told
goes to the innermost one, and what leaves that is raised in the one around it, as if they had been
blocked in an ``await``. Then what was abandoned is closed, and last what is held by nothing but the
frames of an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from .chain import Generator, is_generator
from .ending import is_backend_cancellation
from .exceptions import StreamCancelled, is_group, was_thrown_at_yield, without
from .generators import Generators, current_generators


def close(iterator: Any) -> Awaitable[None]:
    """
    Close an iterator, with the generators inside it.

    :raises RuntimeError: if it is a generator that yields instead of ending

    """
    generators = current_generators()
    return _close_alone(iterator) if generators is None else _close_with(generators, iterator)


def throw(iterator: Any, exc: BaseException) -> Awaitable[Any]:
    """Raise an exception at the ``yield`` at which an iterator is, and ask for what follows."""
    generators = current_generators()
    if generators is None or not is_generator(iterator):
        thrown: Awaitable[Any] = iterator.athrow(exc)
        return thrown
    return _throw_inside(generators, iterator, exc)


async def close_abandoned(generators: Generators) -> BaseException | None:
    """
    Close what a source has abandoned that goes on afterwards. What this raises waits for its end.

    :return: a cancellation of the source that has ended this, to be raised in it

    """
    todo: list[Generator] = []
    try:
        while todo or generators.abandoned:
            if not todo:
                generator = generators.abandoned.pop(0)
                todo = generators.chain(generator).to_close(generator)
            generator = todo.pop(0)
            error = await _attempt(generator)
            rest = error and without(error, _is_cancellation)
            if rest is not None:
                generators.errors.append(rest)
            if rest is not error:
                return error
        return None
    finally:
        generators.abandoned[:0] = todo
        error = rest = None


async def close_all(
    close_source: Callable[[], Awaitable[object]],
    generators: Generators,
    failed: Iterable[BaseException | None],
) -> None:
    """
    Close a source, and then all that it has begun and left.

    :param failed: what it has raised: the frames may be all that holds a generator

    """
    errors = generators.errors
    try:
        await close_source()
    except GeneratorExit:
        raise
    except BaseException as exc:
        errors.append(_without_own_frames(exc))
    await _close_abandoned(generators, errors)
    frames = _frames_of(failed)
    if frames:
        chain = generators.chain(*frames)
        order = [each for held in chain.held_by_frames() for each in chain.to_close(held)]
        del frames, chain
        await _close_each(order, errors)
        await _close_abandoned(generators, errors)
    _raise_all(errors)


async def _close_with(generators: Generators, iterator: Any) -> None:
    errors: list[BaseException] = []
    if is_generator(iterator):
        await _close_each(generators.chain(iterator).to_close(iterator), errors)
    else:
        await _close_each([iterator], errors)
        await _close_each(generators.chain(iterator).to_close(iterator)[:-1], errors)
    await _close_abandoned(generators, errors)
    _raise_all(errors)


async def _throw_inside(generators: Generators, iterator: Generator, exc: BaseException) -> Any:
    told = exc
    try:
        todo = generators.chain(iterator).to_tell(iterator)
        while todo:
            generator, is_told = todo.pop(0)
            if is_told:
                exc = await _pass_through(generator, exc, told)
            else:
                exc = await _close_under(generator, exc)
            del generator
            # What it has left by the way.
            await _close_abandoned(generators, generators.errors)
        return await iterator.athrow(exc)
    finally:
        del told, exc


async def _pass_through(
    generator: Generator, exc: BaseException, told: BaseException
) -> BaseException:
    """Raise an exception in a generator. Returns what to raise in the one around it."""
    left: BaseException | None = None
    try:
        try:
            await generator.athrow(exc)
        except StopAsyncIteration:
            # It has handled that. The one around it is to be told all the same.
            return _fresh(told)
        except GeneratorExit:
            raise
        except BaseException as raised:
            left = _without_own_frames(raised)
        if left is None:
            # It has yielded, but nobody has asked it for an item.
            return await _close_under(generator, _fresh(told))
        # anyio would look for a cancellation of its own in the context of this one.
        return _fresh(left) if isinstance(left, StreamCancelled) else left
    finally:
        del exc, told, left


async def _close_under(generator: Generator, exc: BaseException) -> BaseException:
    """Close a generator that an exception leaves. Returns what to raise in the one around it."""
    try:
        error = await _attempt(generator)
        if error is None:
            return exc
        _add_context(error, exc)
        return error
    finally:
        error = None
        del exc


async def _close_abandoned(generators: Generators, errors: list[BaseException]) -> None:
    while generators.abandoned:
        for generator in generators.take_abandoned():
            await _close_each(generators.chain(generator).to_close(generator), errors)


async def _close_each(iterators: list[Any], errors: list[BaseException]) -> None:
    while iterators:
        error = await _attempt(iterators.pop(0))
        if error is not None:
            errors.append(error)
        error = None


async def _attempt(iterator: Any) -> BaseException | None:
    try:
        await _close_alone(iterator)
    except GeneratorExit:
        # The event loop drops the task: nothing can be awaited any more.
        raise
    except BaseException as exc:
        return _without_own_frames(exc)
    return None


async def _close_alone(iterator: Any) -> None:
    if not is_generator(iterator):
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
        return
    # Asked twice, so that one that yields in its clean-up is not left to the garbage collector.
    ignored = 0
    while iterator.ag_frame is not None and ignored < 2 and await _yields_on_exit(iterator):
        ignored += 1
    if ignored:
        raise RuntimeError(
            f"async generator {iterator!r} ignored GeneratorExit: it yielded while it was being "
            "closed; yield last items in 'except StreamCancelled', not in 'finally'"
        )


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


def _without_own_frames(exc: BaseException) -> BaseException:
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    return exc.with_traceback(traceback)


def _fresh(exc: BaseException) -> BaseException:
    """Return a cancellation to be raised in one more place."""
    return type(exc)(*exc.args).with_traceback(exc.__traceback__)


def _is_cancellation(exc: BaseException) -> bool:
    return isinstance(exc, StreamCancelled) or is_backend_cancellation(exc)


def _raise_all(errors: list[BaseException]) -> None:
    error = _together(errors)
    errors.clear()
    if error is not None:
        try:
            raise error
        finally:
            del error


def _together(errors: list[BaseException]) -> BaseException | None:
    failures = [error for error in errors if without(error, is_backend_cancellation) is not None]
    stopped = next((error for error in errors if error not in failures), None)
    if not failures:
        return stopped
    error = failures[0]
    if len(failures) > 1:
        error = BaseExceptionGroup("several generators failed while they were closed", failures)
    if stopped is not None:
        _add_context(error, stopped)
    return error


def _add_context(error: BaseException, context: BaseException) -> None:
    """Say that an error was raised while another exception was on its way."""
    seen = {id(context)}
    while error.__context__ is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__context__
    if id(error) not in seen:
        error.__context__ = context


def _frames_of(failed: Iterable[BaseException | None]) -> list[FrameType]:
    """Return the frames that some errors hold, the innermost of each first."""
    frames: dict[FrameType, None] = {}
    seen: set[int] = set()
    todo = list(failed)
    while todo:
        error = todo.pop(0)
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        todo += [error.__cause__, error.__context__]
        if is_group(error):
            todo += error.exceptions
        passed: list[FrameType] = []
        traceback: TracebackType | None = error.__traceback__
        while traceback is not None:
            passed.insert(0, traceback.tb_frame)
            traceback = traceback.tb_next
        frames.update(dict.fromkeys(passed))
    return list(frames)
