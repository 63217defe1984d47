"""A stream with one defect, to see that it is found. Without one, it does as it should."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any, Self

import anyio
import anyio.lowlevel
import trio

from streamkit import Outcome, StreamCancelled, StreamTimeout

from .record import GRACE, Record

#: What each defect is found as, and in which case: source, chain, consumer, faults.
DEFECTS: dict[str, tuple[str, str]] = {
    "doubles an item": ("order", "sleeping/alone/plain/none"),
    "swaps two items": ("order", "sleeping/alone/plain/none"),
    "drops the last item": ("loss", "sleeping/alone/plain/none"),
    "does not close": ("generator-left", "sleeping/alone/leaving/none"),
    "closes elsewhere": ("wrong-task", "sleeping/alone/leaving/none"),
    "closes in another context": ("wrong-context", "sleeping/alone/leaving/none"),
    "cuts the clean-up": ("clean-up-lost", "sleeping/alone/leaving/none"),
    "has no bound": ("unbounded", "hanging_clean_up/alone/leaving/none"),
    "cancels natively": ("told-natively", "sleeping/alone/plain/none"),
    "tells twice": ("told-twice", "swallowing/alone/leaving/none"),
    "waits for ever": ("hang", "sleeping/alone/leaving/none"),
    "spins": ("hang", "sleeping/alone/leaving/none"),
    "leaves a task": ("live-task", "sleeping/alone/plain/none"),
    "makes a group": ("wrapped", "raising/alone/plain/none"),
    "copies the error": ("wrapped", "raising/alone/plain/none"),
    "loses the error": ("error-lost", "raising/alone/plain/none"),
    "ends instead": ("clean-end-of-failure", "raising/alone/plain/none"),
    "takes the cancellation": ("cancellation-lost", "sleeping/alone/plain/native@6"),
    "takes the scope": ("cancellation-lost", "sleeping/alone/plain/scope@1"),
    "forgets a request": ("cancelling", "sleeping/alone/plain/native@6"),
    "has no outcome": ("outcome-missing", "sleeping/alone/plain/none"),
    "says closed": ("outcome-kind", "sleeping/alone/plain/none"),
    "says completed": ("outcome-kind", "sleeping/alone/leaving/none"),
    "miscounts": ("outcome-items", "sleeping/alone/plain/none"),
    "is stuck nowhere": ("outcome-stuck", "sleeping/alone/plain/none"),
    "raises a limit": ("outcome-error", "raising/alone/plain/none"),
    "calls on_end twice": ("on-end", "sleeping/full/plain/none"),
    "warns": ("warning", "sleeping/alone/plain/none"),
    "tells the loop": ("loop-error", "sleeping/alone/plain/none"),
    "fails unseen": ("unraisable", "sleeping/alone/plain/none"),
    "fails by itself": ("strange-error", "sleeping/alone/plain/none"),
}

#: Of asyncio alone: trio has no such thing.
ASYNCIO_ONLY = {"takes the cancellation", "forgets a request", "tells the loop"}


class _FailsUnseen:
    def __del__(self) -> None:
        raise RuntimeError("nobody is called")


class Toy:
    """
    Steps a source in the task of the consumer.

    :param defect: what it does wrong

    """

    def __init__(self, record: Record, source: Any, defect: str = "") -> None:
        self.outcome: Outcome | None = None
        self._record = record
        self._source = source
        self._defect = defect
        self._items = 0
        self._kept: list[Any] = []
        self._kind = "closed"
        self._error: BaseException | None = None

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    async def __aenter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._defect == "takes the scope":
            with anyio.CancelScope(shield=True):
                return await self._next()
        await anyio.lowlevel.checkpoint()
        if self._defect == "cancels natively":
            with anyio.move_on_after(2):
                return await self._next()
            raise anyio.ClosedResourceError
        return await self._next()

    async def _next(self) -> Any:
        try:
            item = self._kept.pop() if self._kept else await self._source.__anext__()
        except StopAsyncIteration:
            self._kind = "completed"
            raise
        except Exception as error:
            self._kind, self._error = "failed", error
            raise self._instead_of(error) from None
        self._items += 1
        if self._defect == "doubles an item" and self._items == 2:
            self._kept.append(item)
        if self._defect == "swaps two items" and self._items == 2:
            self._kept.append(item)
            return await self._source.__anext__()
        if self._defect == "drops the last item" and item == 3:
            return await self._next()
        return item

    def _instead_of(self, error: Exception) -> BaseException:
        match self._defect:
            case "makes a group":
                return ExceptionGroup("one", [error])
            case "copies the error":
                return type(error)(*error.args)
            case "loses the error" | "ends instead":
                return StopAsyncIteration()
            case "raises a limit":
                return StreamTimeout(None)  # type: ignore[arg-type]
        return error

    async def aclose(self) -> None:
        """Close the source, in the grace."""
        grace = {"cuts the clean-up": 0.05, "has no bound": 1000.0}.get(self._defect, GRACE)
        with anyio.move_on_after(grace, shield=True):
            if self._defect in ("closes elsewhere", "closes in another context"):
                await _elsewhere(self._source.aclose)
            elif self._defect == "tells twice":
                for _ in range(2):
                    await self._source.athrow(StreamCancelled("again"))
                await self._source.aclose()
            elif self._defect != "does not close":
                await self._source.aclose()

    async def __aexit__(self, exc_type: object, exc: object, traceback: object) -> bool:
        await self.aclose()
        kind: Any = {"says closed": "closed", "says completed": "completed"}.get(
            self._defect, self._kind
        )
        outcome = Outcome(
            kind=kind,
            error=self._error,
            items=self._items + (self._defect == "miscounts"),
            stuck_at="nowhere:1" if self._defect == "is stuck nowhere" else None,
            started_at=0,
            ended_at=0,
        )
        if self._defect != "has no outcome":
            self.outcome = outcome
        if self._record.chain == "full":
            self._record.outcomes_told += [outcome] * (1 + (self._defect == "calls on_end twice"))
        await self._do_harm()
        return self._defect == "takes the cancellation" and exc is not None

    async def _do_harm(self) -> None:
        match self._defect:
            case "waits for ever":
                with anyio.CancelScope(shield=True):
                    await anyio.sleep_forever()
            case "spins":
                while True:
                    await anyio.lowlevel.checkpoint()
            case "leaves a task":
                _spawn(lambda: anyio.sleep(3))
            case "warns":
                warnings.warn("no reason", ResourceWarning, stacklevel=1)
            case "tells the loop":
                asyncio.get_running_loop().call_exception_handler({"message": "no reason"})
            case "fails unseen":
                _FailsUnseen()
            case "fails by itself":
                raise RuntimeError("no reason")
            case "forgets a request":
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()


def _spawn(function: Callable[[], Any]) -> Any:
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.spawn_system_task(function)
    return asyncio.get_running_loop().create_task(function())


async def _elsewhere(function: Callable[[], Any]) -> None:
    done = anyio.Event()

    async def call() -> None:
        await function()
        done.set()

    task = _spawn(call)
    await done.wait()
    del task
