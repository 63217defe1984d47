"""One shape for all that can be iterated asynchronously: step it, throw into it, close it."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import AbstractAsyncContextManager
from functools import partial
from operator import is_
from types import AsyncGeneratorType
from typing import Any, Generic, TypeAlias, TypeVar

from ._exceptions import without

T = TypeVar("T")

#: What the combinators take: an async iterable, or an async context manager that yields one.
AsyncSource: TypeAlias = AsyncIterable[T] | AbstractAsyncContextManager[AsyncIterable[T], Any]


class Source(Generic[T]):
    """
    A source in the hands of its source task.

    :param source: an async iterable, or an async context manager that yields one, which is entered
        with the first step and left when the source is closed
    :raises TypeError: if it is neither, saying what to write instead

    """

    def __init__(self, source: AsyncSource[T]) -> None:
        self.name = getattr(source, "__qualname__", type(source).__qualname__)
        self._given: Any = source
        self._iterator: AsyncIterator[T]
        if isinstance(source, AsyncIterable):
            self._iterator = source.__aiter__()
        elif hasattr(source, "__aenter__") and hasattr(source, "__aexit__"):
            self._iterator = self._given = _entered(source)
        else:
            raise TypeError(_advice(source))
        self._throw: Callable[[BaseException], Awaitable[T]] | None = getattr(
            self._iterator, "athrow", None
        )

    @property
    def can_throw(self) -> bool:
        """Whether an exception can be raised at the ``yield`` at which the source is suspended."""
        return self._throw is not None

    def step(self, throw: BaseException | None = None) -> Awaitable[T]:
        """Ask for the next item, or raise an exception in the source and ask for what follows."""
        if throw is None:
            return self._iterator.__anext__()
        assert self._throw is not None
        return self._throw(throw)

    async def close(self) -> None:
        """
        Close the source, whether or not it was started.

        :raises RuntimeError: if it is a generator that yields instead of ending

        """
        if isinstance(self._iterator, AsyncGeneratorType):
            await _close_generator(self._iterator)
        elif hasattr(self._iterator, "aclose"):
            await self._iterator.aclose()
        if self._given is not self._iterator and hasattr(self._given, "aclose"):
            await self._given.aclose()


async def _entered(
    manager: AbstractAsyncContextManager[AsyncIterable[T], Any],
) -> AsyncGenerator[T, None]:
    async with manager as entered:
        if not isinstance(entered, AsyncIterable):
            raise TypeError(_advice(entered))
        iterator = entered.__aiter__()
        try:
            async for item in iterator:
                yield item
        finally:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()


async def _close_generator(generator: AsyncGeneratorType[Any, None]) -> None:
    # Unlike aclose(), this knows the GeneratorExit that it throws. A task group that the generator
    # holds across its yield wraps it in a group, where it is taken out by identity, and what the
    # children raised is not dropped with it (python-trio/trio#3324).
    ignored = 0
    while generator.ag_frame is not None and ignored < 2:
        leaving = GeneratorExit()
        try:
            await generator.athrow(leaving)
        except StopAsyncIteration:
            pass
        except BaseException as exc:
            rest = without(exc, partial(is_, leaving))
            if rest is exc:
                raise
            if rest is not None:
                raise rest from None
        else:
            ignored += 1
    if ignored:
        raise RuntimeError(
            f"async generator {generator!r} ignored GeneratorExit: it yielded while it was being "
            "closed; yield last items in 'except StreamCancelled', not in 'finally'"
        )


def _advice(given: object) -> str:
    """Say what came in place of a source, and what to write."""
    what = f"expected an async iterable, got {type(given).__qualname__}"
    if inspect.isasyncgenfunction(given):
        return f"{what}: call the async generator function, {given.__name__}(...)"
    if inspect.iscoroutine(given):
        given.close()
        return f"{what}: await it and pass what it returns, or pass an async generator"
    if callable(given):
        return f"{what}: call it, and pass the async iterable that it returns"
    if isinstance(given, Iterable):
        return (
            f"{what}, which is a sync iterable: wrap it in an async generator, "
            "'async def source(): for item in ...: yield item'"
        )
    return f"{what}: pass an async generator, an async iterator or a receive stream"
