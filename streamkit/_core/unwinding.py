"""
How a source is closed, or told something at a ``yield``, together with the generators inside it.

Each is closed with a ``GeneratorExit`` of its own, the innermost first. What the source is told
goes to the innermost one, and what leaves that is raised in the one around it, as if they had been
blocked in an ``await``. Then what was abandoned is closed, and last what is held by nothing but the
frames of an error.

Everything here runs in the source task, and may be cancelled at each ``await``: by the end of the
grace, or as a source is that awaits. What was cancelled counts as closed, and the next one follows.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from types import FrameType, TracebackType
from typing import Any

import anyio

from .closing import add_context, attempt, close_alone, close_each, raise_all
from .exceptions import (
    is_cancellation,
    is_group,
    is_stream_cancelled,
    only_backend_cancellation,
    set_traceback,
    without,
    without_own_frames,
)
from .frames import Generator, is_generator
from .generators import Generators, current_generators


def close(iterator: Any) -> Awaitable[None]:
    """
    Close an iterator, with the generators inside it.

    :raises RuntimeError: if it is a generator that yields instead of ending

    """
    generators = current_generators()
    return close_alone(iterator) if generators is None else _close_with(generators, iterator)


def throw(iterator: Any, exc: BaseException) -> Awaitable[Any]:
    """Raise an exception at the ``yield`` at which an iterator is, and ask for what follows."""
    generators = current_generators()
    if generators is None or not is_generator(iterator):
        thrown: Awaitable[Any] = iterator.athrow(exc)
        return thrown
    return _throw_inside(generators, iterator, exc)


async def close_abandoned(generators: Generators) -> BaseException | None:
    """
    Close what a source has abandoned, before it goes on. Errors from this wait for its end.

    :return: a cancellation of the source that has ended this, to raise in it

    """
    todo: list[Generator] = []
    try:
        while todo or generators.abandoned:
            if not todo:
                generator = generators.abandoned.pop(0)
                todo = generators.chain(generator).to_close(generator)
            generator = todo.pop(0)
            error = await attempt(generator)
            rest = None if error is None else without(error, is_cancellation)
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
        # The event loop drops the task: it can no longer await anything.
        raise
    except BaseException as exc:
        errors.append(without_own_frames(exc))
    await _close_abandoned(generators, errors)
    frames = _frames_of(failed)
    if frames:
        chain = generators.chain(*frames)
        order = [each for held in chain.held_by_frames() for each in chain.to_close(held)]
        del frames, chain
        await close_each(order, errors)
        await _close_abandoned(generators, errors)
    raise_all(errors)


async def _close_with(generators: Generators, iterator: Any) -> None:
    errors: list[BaseException] = []
    if is_generator(iterator):
        await close_each(generators.chain(iterator).to_close(iterator), errors)
    else:
        await close_each([iterator], errors)
        inner = generators.chain(iterator).to_close(iterator)
        await close_each([each for each in inner if each is not iterator], errors)
    await _close_abandoned(generators, errors)
    raise_all(errors)


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
            # What it has left on the way.
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
            # It has handled that. The generator around it must still be told.
            return _fresh(told)
        except BaseException as raised:
            left = without_own_frames(raised)
        if left is None:
            # It has yielded, but nobody has asked it for an item.
            return await _close_under(generator, _fresh(told))
        if only_backend_cancellation(left) and anyio.current_effective_deadline() == -math.inf:
            # This is from a scope, which asks again: that of a task group around the loop, whose
            # children were cancelled before. If the group got this, it would hide that the source
            # was told.
            return _fresh(told)
        # anyio would look for a cancellation of its own in the context of this one.
        return _fresh(left) if type(left) is type(told) else left
    finally:
        del exc, told, left


async def _close_under(generator: Generator, exc: BaseException) -> BaseException:
    """Close a generator that an exception leaves. Returns what to raise in the one around it."""
    try:
        error = await attempt(generator)
        if error is None:
            return exc
        add_context(error, exc)
        return error
    finally:
        error = None
        del exc


async def _close_abandoned(generators: Generators, errors: list[BaseException]) -> None:
    while generators.abandoned:
        for generator in generators.take_abandoned():
            await close_each(generators.chain(generator).to_close(generator), errors)


def _fresh(exc: BaseException) -> BaseException:
    """Return a cancellation to raise in one more place."""
    args = (exc.reason,) if is_stream_cancelled(exc) else exc.args
    return set_traceback(type(exc)(*args), exc.__traceback__)


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
