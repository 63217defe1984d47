"""One shape for all async iteration: step a source, throw into it, close it."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from types import AsyncGeneratorType
from typing import Any, Generic, TypeAlias, TypeVar, cast

import anyio

from .generators import Generators
from .unwinding import close, throw

T = TypeVar("T")

#: Seconds that a source has to clean up, by default.
DEFAULT_GRACE = 5.0

#: What the combinators take: an async iterable, or an async context manager that yields one.
AsyncSource: TypeAlias = AsyncIterable[T] | AbstractAsyncContextManager[AsyncIterable[T], Any]


class Batches(Generic[T]):
    """
    A source of streamkit's own that yields lists of items.

    A list that is handed over as a whole costs less than its items one by one. No item of it may be
    metadata, and it belongs to the stream.

    :param lists: yields them, none of which is empty

    """

    def __init__(self, lists: AsyncGenerator[list[T], None]) -> None:
        self.lists: AsyncGenerator[list[T], None] = lists


class Source(Generic[T]):
    """
    A source in the hands of its source task.

    :param source: an async iterable, or an async context manager that yields one, which is entered
        with the first step and left when the source is closed; or batches
    :raises TypeError: if it is neither, saying what to write instead

    """

    def __init__(self, source: AsyncSource[T] | Batches[T]) -> None:
        #: Whether it yields lists of items.
        self.is_batched: bool = isinstance(source, Batches)
        if isinstance(source, Batches):
            source = cast("AsyncSource[T]", source.lists)
        self._given: Any = source
        kind: object = type(source)
        if kind is AsyncGeneratorType:
            # Nearly always, and the quickest to tell.
            self._source: Any = self._given
        # An object that is both must be entered: aiostream's streamers insist on it.
        elif hasattr(source, "__aenter__") and hasattr(source, "__aexit__"):
            manager = cast("AbstractAsyncContextManager[AsyncIterable[T], Any]", source)
            self._source = self._entered(manager)
        elif isinstance(source, AsyncIterable):
            self._source = self._given
        else:
            raise TypeError(_advice(source))
        self.name: str = getattr(source, "__qualname__", type(source).__qualname__)
        #: Seconds that it has to clean up.
        self.grace: float = DEFAULT_GRACE
        self._iterator: Any = None
        #: Asks for the next item, once :meth:`start` was called. An attribute, to cost one call.
        self.next: Callable[[], Awaitable[T]]

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The typed attributes that it has, as streams of anyio do."""
        has_some = isinstance(self._given, anyio.TypedAttributeProvider)
        return self._given.extra_attributes if has_some else {}

    @property
    def can_throw(self) -> bool:
        """Whether an exception can be raised at the ``yield`` at which the source is suspended."""
        return hasattr(self._iterator, "athrow")

    @property
    def iterator(self) -> object:
        """What is stepped, or ``None`` if it was not started."""
        return self._iterator

    @property
    def is_finished(self) -> bool:
        """Whether it is a generator that has ended, so that there is nothing left to close."""
        iterator = self._iterator
        is_whole = iterator is self._source and isinstance(iterator, AsyncGeneratorType)
        return is_whole and iterator.ag_frame is None

    def start(self, generators: Generators) -> None:
        """
        Make the iterator. Call it before the first item is asked for.

        :param generators: note the generators that it begins

        """
        self._iterator = self._source.__aiter__()
        self.next = self._iterator.__anext__
        generators.start(self._iterator, self._given)

    def throw(self, exc: BaseException) -> Awaitable[T]:
        """Raise an exception at the ``yield`` of the source, and ask for what follows."""
        return throw(self._iterator, exc)

    async def close(self) -> None:
        """
        Close the source, whether or not it was started.

        :raises RuntimeError: if it is a generator that yields instead of ending

        """
        if self._iterator is None:
            await close(self._given)
            return
        try:
            await close(self._iterator)
        finally:
            if self._iterator is not self._source:
                await close(self._source)

    async def _entered(
        self, manager: AbstractAsyncContextManager[AsyncIterable[T], Any]
    ) -> AsyncGenerator[T, None]:
        async with manager as entered:
            if not hasattr(entered, "__aiter__"):
                raise TypeError(_advice(entered))
            iterator: Any = entered.__aiter__()
            told: BaseException | None = None
            at_yield = False
            try:
                while True:
                    at_yield = False
                    step = iterator.__anext__() if told is None else throw(iterator, told)
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    at_yield = True
                    try:
                        told = None
                        yield item
                    except GeneratorExit:
                        raise
                    except BaseException as thrown:
                        # Raised here at a yield, but meant for what the manager has yielded.
                        if not hasattr(iterator, "athrow"):
                            raise
                        told = thrown
            finally:
                told = None
                if at_yield:
                    # It may hold scopes, which must not be left under one of ours.
                    await close(iterator)
                else:
                    # What the manager holds may be cancelled by now, a task group for instance.
                    with anyio.move_on_after(self.grace, shield=True):
                        await close(iterator)


def _advice(given: object) -> str:
    """Say what came instead of a source, and what to write."""
    what = f"expected an async iterable, got {type(given).__qualname__}"
    if inspect.isasyncgenfunction(given):
        return f"{what}: call the async generator function, {given.__name__}(...)"
    if inspect.iscoroutine(given):
        given.close()
        return f"{what}: await it and pass what it returns, or pass an async generator"
    if inspect.isgeneratorfunction(given):
        return f"{what}: write from_thread({given.__name__}), which runs it in a thread of its own"
    if callable(given):
        return f"{what}: call it, and pass the async iterable that it returns"
    if isinstance(given, Iterable):
        return (
            f"{what}, which is a sync iterable: write from_thread(...) around it, which iterates "
            "it in a thread of its own"
        )
    return f"{what}: pass an async generator, an async iterator or a receive stream"
