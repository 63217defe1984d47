"""Sources to wrap, and records of what happened to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")


class Log(list[tuple[float, object]]):
    """A list of ``(seconds since the first entry or start(), event)``; call it to add one."""

    _start: float | None = None

    def start(self) -> None:
        self._start = anyio.current_time()

    def __call__(self, event: object) -> None:
        if self._start is None:
            self.start()
        assert self._start is not None
        # Rounded, for the sum of two virtual sleeps is a sum of floats.
        self.append((round(anyio.current_time() - self._start, 6), event))

    @property
    def events(self) -> list[object]:
        return [event for _, event in self]


async def aiter_of(*items: T) -> AsyncGenerator[T, None]:
    """Yield the items, without ever blocking."""
    for item in items:
        yield item


class PlainSource(Generic[T]):
    """An async iterator that is no generator: it has neither ``athrow`` nor ``aclose``."""

    def __init__(self, *items: T) -> None:
        self._items = iter(items)

    def __aiter__(self) -> PlainSource[T]:
        return self

    async def __anext__(self) -> T:
        await anyio.lowlevel.checkpoint()
        for item in self._items:
            return item
        raise StopAsyncIteration


class Probe(Generic[T]):
    """Makes one source with :meth:`source` and notes what happens in it.

    :param items: what the source yields
    :param every: seconds before each item
    :param block: wait for ever after the last item
    :param error: raise this after the last item

    """

    def __init__(
        self,
        *items: T,
        every: float = 0.0,
        block: bool = False,
        error: BaseException | None = None,
    ) -> None:
        self.items = items
        self.every = every
        self.block = block
        self.error = error
        #: the items that it has yielded so far
        self.produced: list[T] = []
        #: how often its ``finally`` ran
        self.closed = 0
        #: what was raised in it, and whether that was in an "await" or at a "yield"
        self.seen: list[tuple[str, BaseException]] = []
        #: the ids of the tasks in which each stage ("start", "step", "close") ran
        self.tasks: dict[str, list[int]] = {"start": [], "step": [], "close": []}

    async def source(self) -> AsyncGenerator[T, None]:
        where = "await"
        self._note_task("start")
        try:
            for item in self.items:
                self._note_task("step")
                where = "await"
                await anyio.sleep(self.every)
                where = "yield"
                self.produced.append(item)
                yield item
            where = "await"
            if self.block:
                await anyio.sleep_forever()
            if self.error is not None:
                raise self.error
        except BaseException as exc:
            if exc is not self.error:
                self.seen.append((where, exc))
            raise
        finally:
            self._note_task("close")
            self.closed += 1

    @property
    def started(self) -> bool:
        return bool(self.tasks["start"])

    @property
    def task_ids(self) -> set[int]:
        """All tasks in which it ever ran: one, if all is well."""
        return {task for stage in self.tasks.values() for task in stage}

    def _note_task(self, stage: str) -> None:
        self.tasks[stage].append(anyio.get_current_task().id)
