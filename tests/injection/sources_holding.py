"""Sources that hold something of the backend's across a ``yield``: scopes, groups, timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import trio

from streamkit import StreamCancelled

from .frame import Frame
from .record import Record
from .sources import source


def check_own(record: Record, frame: Frame, scope: anyio.CancelScope, whole: bool) -> None:
    """Note it if the code after a scope runs although the scope was not what ended its body."""
    if not whole and not scope.cancel_called:
        record.problem("ran-on", f"{frame.name}: the code after its own scope ran")


@source
async def in_scope(record: Record) -> AsyncIterator[int]:
    """Yield and wait in a scope that others may cancel."""
    async with Frame(record) as frame:
        whole = False
        with anyio.move_on_after(1000) as record.own_scope:
            for seconds in (0, 1, 2):
                await anyio.sleep(seconds)
                yield record.produce()
            whole = True
        check_own(record, frame, record.own_scope, whole)
        await anyio.sleep(0.5)
        yield record.produce()
        record.completed = True


@source
async def own_limits(record: Record) -> AsyncIterator[int]:
    """Wait under limits that are reached, and clean up in a shield on the way out of them."""
    async with Frame(record):
        for _ in range(3):
            with anyio.move_on_after(1) as record.own_scope:
                try:
                    await anyio.sleep(50)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.1)
            await anyio.sleep(0)
            yield record.produce()
        record.completed = True


@source
async def in_group(record: Record) -> AsyncIterator[int]:
    """Hold a task group, whose children take a lock on their way out."""
    lock = anyio.Lock()

    async def child() -> None:
        try:
            await anyio.sleep(100)
        finally:
            async with lock:
                await anyio.sleep(0)

    async with Frame(record) as frame:
        whole = False
        async with anyio.create_task_group() as group:
            record.own_scope = group.cancel_scope
            group.start_soon(child)
            group.start_soon(child)
            for seconds in (0, 1, 2):
                await anyio.sleep(seconds)
                yield record.produce()
            whole = True
            group.cancel_scope.cancel()
        check_own(record, frame, record.own_scope, whole)
        yield record.produce()
        record.completed = True


@source
async def group_handling(record: Record) -> AsyncIterator[int]:
    """Handle what it is told inside of its task group, whose children have a clean-up."""

    async def child() -> None:
        async with Frame(record, "child", child=True, shielded=True):
            await anyio.sleep(100)

    async with Frame(record) as frame:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            try:
                for seconds in (0, 1, 2):
                    await anyio.sleep(seconds)
                    yield record.produce()
                record.completed = True
            except StreamCancelled as stop:
                frame.sees(stop)
                await anyio.sleep(0.2)
                yield record.produce()
            group.cancel_scope.cancel()


@source
async def waiting_for_group(record: Record) -> AsyncIterator[int]:
    """Be blocked in the end of a task group."""

    async def child(seconds: float) -> None:
        await anyio.sleep(seconds)

    async with Frame(record):
        for _ in range(2):
            async with anyio.create_task_group() as group:
                group.start_soon(child, 1)
                group.start_soon(child, 2)
            yield record.produce()
        record.completed = True


@source
async def native_group(record: Record) -> AsyncIterator[int]:
    """Hold what the backend itself has: a group with children, and a timeout."""

    async def child() -> None:
        async with Frame(record, "child", child=True, shielded=True):
            await anyio.sleep(3)

    async with Frame(record):
        async with AsyncExitStack() as stack:
            if record.backend == "trio":
                nursery = await stack.enter_async_context(trio.open_nursery())
                nursery.start_soon(child)
                stack.enter_context(trio.move_on_after(1000))
            else:
                group = await stack.enter_async_context(asyncio.TaskGroup())
                group.create_task(child())
                await stack.enter_async_context(asyncio.timeout(1000))
            for seconds in (0, 1, 1):
                await anyio.sleep(seconds)
                yield record.produce()
        yield record.produce()
        record.completed = True


@source
async def native_limits(record: Record) -> AsyncIterator[int]:
    """Wait under limits of the backend's own, which are reached."""
    async with Frame(record):
        for _ in range(3):
            if record.backend == "trio":
                with trio.move_on_after(1):
                    await trio.sleep(50)
            else:
                try:
                    async with asyncio.timeout(1):
                        await asyncio.sleep(50)
                except TimeoutError:
                    pass
            yield record.produce()
        record.completed = True


@source
async def native_task(record: Record) -> AsyncIterator[int]:
    """Await a native task, whose clean-up takes two turns; on trio a nursery with one child."""

    async def work(seconds: float) -> None:
        try:
            await anyio.sleep(seconds)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
                await anyio.sleep(0.1)

    async with Frame(record):
        for seconds in (0, 2):
            if record.backend == "trio":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work, seconds)
            else:
                await asyncio.create_task(work(seconds))
            yield record.produce()
        record.completed = True
