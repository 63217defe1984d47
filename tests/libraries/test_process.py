"""A child process: its lines, through anyio and through asyncio itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

# It prints a line, and then is silent for ever.
COMMAND = [sys.executable, "-S", "-E", "-c", "print('one', flush=True); input()"]


def not_reaped(processes: list[Any]) -> list[int]:
    return [process.pid for process in processes if process.returncode is None]


async def test_anyio(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7: a process of anyio's; it has ended, and was waited for."""
    started: list[anyio.abc.Process] = []

    async def texts() -> AsyncGenerator[str, None]:
        async with await anyio.open_process(COMMAND, stderr=None) as process:
            started.append(process)
            assert process.stdout is not None
            try:
                async for text in TextReceiveStream(process.stdout):
                    yield text
            finally:
                process.terminate()
                await process.wait()

    await way.leave(Library(texts, held=lambda: not_reaped(started)), caplog)


@pytest.mark.asyncio_only
async def test_asyncio(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7: a process of asyncio's; it has ended, and was waited for."""
    started: list[asyncio.subprocess.Process] = []

    async def lines() -> AsyncGenerator[bytes, None]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                yield line
        finally:
            process.terminate()
            await process.wait()

    await way.leave(Library(lines, held=lambda: not_reaped(started)), caplog)
