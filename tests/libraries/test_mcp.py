"""MCP: sessions that call a tool that never returns, of a server here and of one in a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

SERVER = Path(__file__).with_name("mcp_server.py")


async def parts(client: Client) -> AsyncGenerator[str, None]:
    async with client:
        for tool in (await client.list_tools()).tools:
            yield tool.name
        await client.call_tool("think")
        yield "never"


async def test_stdio(way: Way, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y2: a session holds task groups across each yield; they unwind, the server has ended."""
    notes = tmp_path / "notes.txt"
    notes.touch()
    parameters = StdioServerParameters(
        command=sys.executable, args=["-S", "-E", str(SERVER), str(notes)]
    )

    def source() -> AsyncGenerator[str, None]:
        return parts(Client(parameters, mode="legacy"))

    def noted(what: str) -> list[int]:
        lines = map(str.split, notes.read_text().splitlines())
        return [int(pid) for event, pid in lines if event == what]

    def alive() -> list[int]:
        return [pid for pid in noted("started") if is_there(pid)]

    await way.leave(Library(source, held=alive, silent=lambda: noted("called")), caplog)
    assert noted("started")


async def test_in_process(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y2: a server in a task of the session; its tool is stopped, and has cleaned up."""
    running: list[str] = []
    server = MCPServer("thinker")

    @server.tool()
    async def think() -> str:
        running.append("think")
        try:
            await anyio.sleep_forever()
        finally:
            # As with a connection that is given back.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            running.remove("think")
        return "never"

    def source() -> AsyncGenerator[str, None]:
        return parts(Client(server))

    await way.leave(Library(source, held=running.copy, silent=running.copy), caplog)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
