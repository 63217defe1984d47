"""
Where a suspended source is: the innermost frame that is not the event loop's, or anyio's.

What a coroutine awaits can be read from it, down to the future or the trap at the end. Async
generators are stepped through objects that do not say whose they are: the garbage collector knows.
"""

from __future__ import annotations

import gc
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

# What a wait ends in, on any backend, what only passes it on, and what is around the source.
_BELOW = frozenset(
    {"anyio", "asyncio", "contextlib", "outcome", "trio", __name__.partition(".")[0]}
)

# What has a frame.
_PARTS = frozenset({CoroutineType, AsyncGeneratorType, GeneratorType})
# What only steps one of these.
_STEPS = frozenset(
    {"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}
)


def where(suspended: object) -> str | None:
    """
    Return the file and the line at which something is suspended.

    :param suspended: a coroutine or an async generator that does not run
    :return: ``"file:line"``, or ``None`` if there is no frame to be seen

    """
    found = None
    for frame in frames(suspended):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _BELOW:
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return found


def frames(suspended: Any) -> list[FrameType]:
    """Return the frames from the outermost to the innermost."""
    found: list[FrameType] = []
    frame: FrameType | None
    while suspended is not None:
        kind = type(suspended)  # pyright: ignore[reportUnknownVariableType]
        if kind is CoroutineType:
            frame, suspended = suspended.cr_frame, suspended.cr_await
        elif kind is AsyncGeneratorType:
            frame, suspended = suspended.ag_frame, suspended.ag_await
        elif kind is GeneratorType:
            frame, suspended = suspended.gi_frame, suspended.gi_yieldfrom
        elif kind.__name__ in _STEPS:
            suspended = next(filter(_is_part, gc.get_referents(suspended)), None)
            continue
        else:
            break
        if frame is not None:
            found.append(frame)
    return found


def _is_part(value: object) -> bool:
    return type(value) in _PARTS or type(value).__name__ in _STEPS
