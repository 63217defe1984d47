"""What a run leaves to the garbage collector: nothing, so that forgetting it frees all of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from streamkit.runs import RunEnded, Runs
from streamkit.sse import RunEvents
from streamkit.websocket import RunMessages
from support import Client, Socket
from support.garbage import garbage


async def words() -> AsyncGenerator[str, None]:
    yield "a"
    await anyio.sleep(1)
    yield "b"


async def fails() -> AsyncGenerator[str, None]:
    yield "a"
    raise ValueError


async def blocked() -> AsyncGenerator[str, None]:
    yield "a"
    await anyio.sleep_forever()


async def attached(runs: Runs, run_id: str) -> None:
    stream = runs.attach(run_id)
    try:
        async with stream:
            async for _ in stream:
                pass
    except RunEnded:
        pass
    finally:
        # The traceback of an error includes this frame.
        del stream


async def events(runs: Runs, run_id: str) -> None:
    await Client(goes_after=5).get(RunEvents(runs, run_id))


async def messages(runs: Runs, run_id: str) -> None:
    await Socket(goes_after=5).open(RunMessages(runs, run_id))


async def unread(runs: Runs, run_id: str) -> None:
    await anyio.sleep(2)


# From Python 3.12 on, an error also leads to the frames below those that it has passed, and one of
# these has the run.
FAILING = [fails] if sys.version_info < (3, 12) else []


@pytest.mark.parametrize("read", [attached, events, messages, unread])
@pytest.mark.parametrize("source", [words, blocked, *FAILING])
async def test_no_cycle(source: Any, read: Any, caplog: pytest.LogCaptureFixture) -> None:
    """E7: when a run is forgotten, however it has ended, reference counts have freed it."""

    async def whole(runs: Runs) -> None:
        run = await runs.start(source())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, runs, run.id)
            await anyio.sleep(10)
            await runs.cancel(run.id)
        await anyio.sleep(100)

    # It keeps the errors that are logged.
    caplog.set_level(logging.CRITICAL + 1, "streamkit")
    async with Runs(keep=10) as runs:
        # What is cached with the first one stays.
        await whole(runs)
        with garbage() as found:
            await whole(runs)
    assert found == []
