"""What type checkers make of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from streamkit import Stream, with_keepalive
from streamkit.runs import Entry, MemoryLog, RunInfo, RunLog, Runs, RunStats
from streamkit.testing import LogConformance, log_conformance

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from streamkit import Outcome


async def source() -> AsyncGenerator[str, None]:
    yield "item"


async def on_end(outcome: Outcome, info: RunInfo) -> None: ...


async def on_lost(info: RunInfo) -> None: ...


async def check() -> None:
    log: RunLog = MemoryLog()
    async with Runs(log, on_lost=on_lost) as runs:
        assert_type(runs, Runs)
        info = await runs.start(source(), on_end=on_end, data={"any": "thing"})
        assert_type(info, RunInfo)
        assert_type(runs.attach(info.id, after=17), Stream[Entry[Any]])
        assert_type(with_keepalive(runs.attach(info.id), 15, None), Stream[Entry[Any] | None])
        async with runs.attach(info.id, after="now") as stream:
            async for entry in stream:
                assert_type(entry.position, int)
                assert_type(entry.cursor, str)
        assert_type(await runs.cancel(info.id), bool)
        assert_type(await runs.cancel_and_wait(info.id, "stop", timeout=5), bool)
        assert_type(await runs.get(info.id), RunInfo)
        assert_type(runs.stats(), RunStats)
    assert_type(Entry(1, "item", "0e").item, str)
    assert_type(log_conformance(MemoryLog), type[LogConformance])
