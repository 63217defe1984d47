"""langgraph: a graph whose node writes as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio_only, pytest.mark.one_of_each]


class State(TypedDict):
    question: str


async def test_graph(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: a node runs in a task of the graph; it is stopped, and has cleaned up."""
    running: list[str] = []

    async def node(state: State) -> State:
        running.append("node")
        try:
            get_stream_writer()(state["question"])
            await anyio.sleep_forever()
        finally:
            # As with a connection that is given back.
            await anyio.sleep(0.01)
            running.remove("node")
        return state

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph = builder.compile()

    async def parts() -> AsyncGenerator[Any, None]:
        async for part in graph.astream({"question": "?"}, stream_mode="custom"):
            yield part

    await way.leave(Library(parts, held=running.copy, silent=running.copy), caplog)
