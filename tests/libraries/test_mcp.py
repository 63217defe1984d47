"""MCP: a session with a server in a child process, which calls a tool that never returns."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mcp import Client, StdioServerParameters

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

SERVER = Path(__file__).with_name("mcp_server.py")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_session(way: Way, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y2: a session holds task groups across each yield; they unwind, the server has ended."""
    notes = tmp_path / "notes.txt"
    notes.touch()
    parameters = StdioServerParameters(
        command=sys.executable, args=["-S", "-E", str(SERVER), str(notes)]
    )

    async def parts() -> AsyncGenerator[str, None]:
        async with Client(parameters, mode="legacy") as client:
            for tool in (await client.list_tools()).tools:
                yield tool.name
            await client.call_tool("think")
            yield "never"

    def called() -> list[int]:
        return [int(line) for line in notes.read_text().splitlines()]

    def alive() -> list[int]:
        return [pid for pid in called() if is_there(pid)]

    await way.leave(Library(parts, held=alive, silent=called), caplog)
