"""What ``make`` gives: a source, a stream or an async function, and an object for the check."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from .._core.stage import Stage
from .._core.stream import Stream, with_stage


@dataclass(frozen=True)
class Subject:
    """
    What is interrupted.

    :ivar given: what the check gets besides the run: nothing, or one object
    :ivar source: a source or a stream, or ``None``
    :ivar work: otherwise a coroutine

    """

    given: tuple[Any, ...]
    source: Any = None
    work: Coroutine[Any, Any, Any] | None = None

    def stream(self, stage: Stage[Any, Any]) -> Stream[Any]:
        """Return the subject as a stream, with a stage on it."""
        return with_stage(self.source, stage)


@asynccontextmanager
async def made_by(make: Callable[[], Any]) -> AsyncGenerator[Subject, None]:
    """Enter what ``make`` returns, and leave it after the check."""
    made = make()
    # A stream is entered by its consumer. If an object is iterable as well, as aiostream's
    # streamers are, it is a source.
    if hasattr(made, "__aenter__") and not isinstance(made, AsyncIterable):
        async with made as entered:
            yield _subject(entered)
    else:
        yield _subject(made)


def _subject(made: Any) -> Subject:
    given: tuple[Any, ...] = ()
    if isinstance(made, tuple):
        things: tuple[Any, ...] = made  # pyright: ignore[reportUnknownVariableType]
        if len(things) != 2:
            raise TypeError(
                f"make gave {len(things)} things: give the source, or the source and what check "
                "gets beside the run; put several into one, as a tuple for instance"
            )
        made, given = things[0], things[1:]
    if inspect.iscoroutinefunction(made):
        made = made()
    if inspect.iscoroutine(made):
        return Subject(given, work=made)
    if isinstance(made, AsyncIterable) or hasattr(made, "__aenter__"):
        return Subject(given, source=made)
    if inspect.isasyncgenfunction(made):
        raise TypeError(
            f"make gave an async generator function: call it, {made.__name__}(...), for each run"
        )
    raise TypeError(
        f"make gave {type(made).__qualname__}: let it return or yield a source, a stream or an "
        "async function"
    )
