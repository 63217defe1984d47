"""The examples, which are the recipes of the docs, interrupted everywhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit.client import connect, openai_chat_end
from streamkit.runs import Runs
from streamkit.testing import AsgiClient, Run, interrupt_everywhere
from support import Socket
from support.scripted import Script, events, script
from support.socket import STOP

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the examples be imported, and forgotten: their names are short."""
    import sys

    before = {*sys.modules}
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    for name in {*sys.modules} - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).parent == EXAMPLES:
            del sys.modules[name]


def interrupt(make: Any, check: Any = None, **options: Any) -> None:
    report = interrupt_everywhere(make, check, max_seconds=600, **options)
    assert len(report.points) > 2
    assert not report.unresolved
    # On trio, tasks run in any order, and not each run comes to each point.
    assert not any("beyond" in line for line in report.left_out)


def short(source: Any, count: int) -> Any:
    """Return an iterator of the first items of one that takes its time."""

    async def first() -> AsyncIterator[Any]:
        items = source
        try:
            for _ in range(count):
                yield await anext(items)
        finally:
            await items.aclose()

    return first()


def test_letta_response() -> None:
    """L1, L7: in place of letta's response: the agent is free again, wherever the run is ended."""
    letta: Any = import_module("letta_response")

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async def is_cancelled() -> bool:
            return False

        letta.busy.clear()
        yield letta.watched(short(letta.agent("agent-1"), 3), "run-1", is_cancelled)

    def check(run: Run) -> None:
        assert not letta.busy
        assert [item["seq_id"] for item in run.items[1:]] == [1, 2, 3][: len(run.items[1:])]

    interrupt(make, check)


def test_letta_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1: in place of letta's response: whoever asks, and is cancelled, leaves no agent busy."""
    letta: Any = import_module("letta_response")
    agent = letta.agent
    monkeypatch.setattr(letta, "agent", lambda agent_id: short(agent(agent_id), 3))

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        letta.busy.clear()
        letta.states.clear()
        async with AsgiClient(letta.app) as client:

            async def ask() -> bytes:
                async with client.request("POST", "/agents/agent-1/messages") as response:
                    return await response.read()

            yield ask
            # It drains: whoever goes, the run goes on.
            await anyio.sleep(100)
            assert not letta.busy
            assert set(letta.states.values()) <= {"completed", "closed"}

    def check(run: Run) -> None:
        assert run.told or run.result.endswith(b"[DONE]\n\n")

    interrupt(make, check, ignore=["agent", "short.<locals>.first", "with_heads"])


def test_websocket() -> None:
    """L1, WS71: the answer over a WebSocket, with a page that stops it."""
    example: Any = import_module("websocket")
    example.WORDS = "To be, or"

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        yield example.words("")

    def check(run: Run) -> None:
        words = [item["text"] for item in run.items]
        assert words[: run.outcome.items if run.outcome else 0] == words
        if run.kind == "stop" and run.told and len(words) < 3:
            assert words[-1] == "[stopped by interrupted]"

    interrupt(make, check)


def test_websocket_request(capsys: pytest.CaptureFixture[str]) -> None:
    """L1, WS71: a page stops its answer, and its socket is cancelled anywhere: it ends once."""
    from starlette.websockets import WebSocket

    example: Any = import_module("websocket")
    example.WORDS = "To be, or"

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with example.StreamHost() as host:
            socket = Socket(says={0.5: STOP}, state={"host": host})

            async def serve() -> None:
                await socket.open(
                    lambda scope, receive, send: example.answer(WebSocket(scope, receive, send))
                )

            yield serve, socket
        assert capsys.readouterr().out.count("after") <= 1

    def check(run: Run, socket: Socket) -> None:
        if run.kind is None:
            assert socket.log.events[-1] == (1000, "cancelled")

    interrupt(make, check)


CHUNK = b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n'


def test_proxy() -> None:
    """L1, L7: the proxy's answer of its upstream, which is closed wherever the answer is ended."""
    proxy: Any = import_module("proxy")

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Script]]:
        server = script(events(1, CHUNK % b"a", 1, CHUNK % b"b", b"data: [DONE]\n\n"))
        async with server.client(base_url="http://example.com") as client:
            yield (
                connect(
                    client,
                    "/v1/chat/completions",
                    method="POST",
                    content=b"{}",
                    last_word=openai_chat_end,
                    head=proxy.ANSWERED,
                ),
                server,
            )

    def check(run: Run, server: Script) -> None:
        assert all(body.is_closed and len(body.tasks) == 1 for body in server.bodies)

    interrupt(make, check)


@pytest.mark.parametrize("asks", [b'{"stream": true}', b"{}"], ids=["events", "whole"])
def test_proxy_request(asks: bytes) -> None:
    """L1, L7: whoever asks the proxy, and is cancelled, leaves no answer of the upstream open."""
    proxy: Any = import_module("proxy")
    server: Script

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, object]]:
        async with (
            server.client(base_url="http://example.com") as client,
            proxy.StreamHost() as host,
        ):
            yield {"client": client, "host": host}

    app = proxy.Starlette(
        routes=[proxy.Route("/v1/{path:path}", proxy.proxy, methods=["POST"])], lifespan=lifespan
    )

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Script]]:
        nonlocal server
        server = script(events(1, CHUNK % b"a", 1, CHUNK % b"b", b"data: [DONE]\n\n"))
        async with AsgiClient(app) as client:

            async def ask() -> bytes:
                path = "/v1/chat/completions"
                async with client.request("POST", path, body=asks) as response:
                    return await response.read()

            yield ask, server

    def check(run: Run, server: Script) -> None:
        assert all(body.is_closed for body in server.bodies)
        assert run.told or run.result.endswith(b"data: [DONE]\n\n")

    interrupt(make, check)


def test_proxy_whole() -> None:
    """L1, L7: any other answer of the upstream, as the proxy gives it."""
    proxy: Any = import_module("proxy")

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Script]]:
        server = script((200, {"content-type": "application/json"}, b"[1,", 1, b"2]"))
        async with server.client() as client:
            yield proxy.whole(client.stream("GET", "http://example.com/v1/models")), server

    def check(run: Run, server: Script) -> None:
        assert all(body.is_closed for body in server.bodies)

    interrupt(make, check)


def test_openai_background() -> None:
    """L1: the events of a background response, as OpenAI's API has them."""
    example: Any = import_module("openai_background")
    asked = example.Asked(model="m", input="Hi", background=True)

    async def run() -> Any:
        async with Runs() as runs:
            response = example.new_response(asked)
            info = await runs.start(example.events(response, "Hi"))
            async with runs.attach(info.id) as entries:
                last = [entry async for entry in entries][-1]
            return last.item["type"], (await example.response_of(runs, await runs.get(info.id)))

    def check(run: Run) -> None:
        if run.kind is None:
            kind, response = run.result
            assert (kind, response["status"]) == ("response.completed", "completed")

    interrupt(lambda: example.events(example.new_response(asked), "Hi"))
    interrupt(lambda: run, check)


def test_openai_background_request() -> None:
    """L1: a client of a background response is cancelled, and the response is complete."""
    example: Any = import_module("openai_background")
    body = json.dumps({"model": "m", "input": "Hi", "background": True, "stream": True}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer alice"}

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with AsgiClient(example.app) as client:

            async def ask() -> bytes:
                request = client.request("POST", "/v1/responses", body=body, headers=headers)
                async with request as response:
                    return await response.read()

            yield ask
            await anyio.sleep(10)

    def check(run: Run) -> None:
        assert run.told or b'"response.completed"' in run.result

    interrupt(make, check, ignore=["events", "answer"])
