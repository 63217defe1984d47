"""Runs and those who read them, compared with a model of a few lines."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, strategies as st

from streamkit import StreamCancelled
from streamkit.runs import Gap, MemoryLog, RunLog, Runs
from support import BACKENDS, Backend
from support.files import VirtualSQLiteLog

from . import examples
from .runs_model import ENDS, World, quiet, steps

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


@contextmanager
def in_memory() -> Iterator[RunLog]:
    yield MemoryLog()


@contextmanager
def in_a_file() -> Iterator[RunLog]:
    with TemporaryDirectory() as place:
        # For so long, who is ahead of a run that goes on waits: in no time, as for one in memory.
        yield VirtualSQLiteLog(Path(place) / "runs.db", outage=1e-7)


@examples(1 + 450 // len(BACKENDS))
@given(plan=st.lists(steps, max_size=30))
def test_runs(backend: Backend, plan: list[object]) -> None:
    """Who starts, reads, cancels and removes runs, and when: all is as the model says."""
    with quiet(), in_memory() as log:
        backend.run(World(plan, log).main)


@examples(1 + 150 // len(BACKENDS))
@given(plan=st.lists(steps, max_size=30))
def test_runs_in_a_file(backend: Backend, plan: list[object]) -> None:
    """The same model, for a log in a file."""
    with quiet(), in_a_file() as log:
        backend.run(World(plan, log).main)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled", "told while trimmed"])
async def test_readers_that_come_back(ending: str, seed: int) -> None:
    """100 readers leave and come back: what each has seen, put together, is the log."""
    random = Random(seed)
    count = 80
    done = 0

    async def source() -> AsyncGenerator[int, None]:
        try:
            for number in range(1, count + 1):
                # Often at once, so that several are written together.
                await anyio.sleep(random.choice([0, 0, 0, 0.01, 0.1]))
                yield number
            if ending == "failed":
                raise LookupError
            if ending == "cancelled":
                await anyio.sleep_forever()
        except StreamCancelled:
            yield count + 1
            raise

    end = ENDS.get(ending)
    ends = () if end is None else (end,)

    async def read() -> None:
        nonlocal done
        await anyio.sleep(random.random() * 5)
        seen: list[Any] = []
        cursor: Any = None
        for _ in range(10_000):
            with anyio.move_on_after(random.choice([0.0, 0.001, 0.05, 0.5, 5.0])):
                try:
                    async with runs.attach("chat", after=cursor) as stream:
                        wanted = random.choice([1, 2, 10, 1_000])
                        async for entry in stream:
                            seen.append(entry.item)
                            cursor = entry.cursor
                            wanted -= 1
                            if not wanted:
                                break
                            if random.random() < 0.05:
                                await anyio.sleep(random.random() / 10)
                        else:
                            assert ending in {"completed", "told while trimmed"}
                            break
                except ends:
                    break
                except Gap as gap:
                    seen.extend(range((seen[-1] if seen else 0) + 1, gap.first))
                    cursor = gap.first - 1
            await anyio.sleep(random.choice([0.0, 0.01, 1.0]))
        else:
            raise AssertionError("it never came to the end")
        first = seen[0]
        assert first == 1 or ending == "told while trimmed"
        assert seen == list(range(first, count + 1 + (ending == "cancelled")))
        done += 1

    max_items = 30 if ending == "told while trimmed" else 10_000
    with quiet():
        async with Runs(max_items=max_items) as runs, anyio.create_task_group() as tasks:
            await runs.start(source(), id="chat")
            for _ in range(100):
                tasks.start_soon(read)
            if ending == "cancelled":
                await anyio.sleep(30)
                assert await runs.cancel_and_wait("chat", "stop")
    assert done == 100
