"""The examples with the SDK of OpenAI and other libraries, interrupted everywhere."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from openai import AsyncOpenAI
from starlette.websockets import WebSocket

from libraries.test_everywhere import ENOUGH, interrupt, url as url
from libraries.upstream import TEXTS
from streamkit import StreamCancelled, with_cancellation
from streamkit.testing import AsgiClient, Run, interrupt_everywhere
from support import Socket
from support.socket import STOP

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RUN = "00000000-0000-0000-0000-000000000001"
WHOLE = "".join(TEXTS)
JSON = {"content-type": "application/json"}


@pytest.fixture
def example(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """One of the examples, in a folder of its own, forgotten afterwards."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module(request.param)
    del sys.modules[request.param]


def model_at(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("example", ["chat"], indirect=True)
def test_chat(example: Any, url: str, tmp_path: Path) -> None:
    """L7, Y8: a chat with a stop button: wherever its request is cancelled, the answer is saved."""
    saved = tmp_path / f"{RUN}.json"

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        saved.unlink(missing_ok=True)
        example.model = model_at(url)
        async with AsgiClient(example.app) as client:

            async def ask() -> bytes:
                body = b'{"question": "?"}'
                request = client.request("POST", f"/chat/{RUN}", body=body, headers=JSON)
                async with request as response:
                    return await response.read()

            yield ask

    def check(run: Run) -> None:
        if not saved.exists():
            # Cancelled before there was anything to save.
            assert run.told
            return
        record = json.loads(saved.read_text(encoding="utf-8"))
        assert WHOLE.startswith(record["answer"])
        assert run.told or (record["answer"], record["ended"]) == (WHOLE, "completed")

    interrupt(make, check, kinds=["cancel", "native"])


@pytest.mark.parametrize("example", ["chat_resume"], indirect=True)
def test_chat_resume(example: Any, url: str) -> None:
    """L7, Y8: the answer of a chat to come back to is in the database as far as it was shown."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        example.model = model_at(url)
        async with example.lifespan(example.app):
            async with example.new_session() as db:
                db.add(message := example.Message("alice", "?"))
                await db.commit()
            yield example.answer(message.id), message.id

    async def check(run: Run, id: int) -> None:
        async with example.new_session() as db:
            message = await db.get_one(example.Message, id)
        # What was said last may be saved, and not shown.
        assert message.answer.startswith("".join(run.items))

    interrupt(make, check, backends=["asyncio"], kinds=["stop", "cancel", "leave"])


@pytest.mark.parametrize("example", ["ai_chat"], indirect=True)
def test_ai_chat(example: Any, url: str) -> None:
    """L7, Y8: wherever the answer of a chat of the AI SDK is ended, its connection is back."""
    messages = [{"role": "user", "parts": [{"type": "text", "text": "?"}]}]

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        async with model_at(url) as example.model:
            yield example.answer(messages), example.model

    def check(run: Run, model: Any) -> None:
        pool = model._client._transport._pool
        assert all(connection.is_idle() for connection in pool.connections)
        assert WHOLE.startswith("".join(run.items))

    interrupt(make, check, kinds=["stop", "leave"])


@pytest.mark.parametrize("example", ["ai_chat"], indirect=True)
def test_ai_chat_request(example: Any, url: str) -> None:
    """L1: whoever asks is cancelled anywhere: the answer comes to its end, and to the next one."""
    body = json.dumps({"id": "c", "messages": [{"role": "user", "parts": [{"text": "?"}]}]})

    async def ask(client: AsgiClient) -> bytes:
        request = client.request("POST", "/api/chat", body=body.encode(), headers=JSON)
        try:
            async with request as response:
                return await response.read()
        finally:
            # The run goes on. Its readers end with it.
            with anyio.CancelScope(shield=True):
                async with client.request("GET", "/api/chat/c/stream") as response:
                    await response.read()

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        # Its runs are entered once.
        app = importlib.reload(example)
        app.model = model_at(url)
        async with AsgiClient(app.app) as client:
            yield partial(ask, client)
            assert b'"finish"' in await ask(client)
            assert app.active == {}

    def check(run: Run) -> None:
        assert run.told or b'"finish"' in run.result

    interrupt(make, check, kinds=["cancel", "native"])


@pytest.mark.parametrize("example", ["own_signals"], indirect=True)
@pytest.mark.parametrize("says", [{1.5: STOP}, {}], ids=["stops", "listens"])
def test_own_signals(example: Any, says: dict[float, str]) -> None:
    """L1, C21: wherever a stream is ended that the client of a socket may stop, nobody listens."""

    async def steps() -> AsyncGenerator[int, None]:
        for step in range(3):
            yield step
            await anyio.sleep(1)

    async def read(scope: Any, receive: Any, send: Any) -> list[int]:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        async with with_cancellation(steps(), example.told_by(websocket)) as stream:
            return [step async for step in stream]

    async def serve() -> list[int]:
        read_by: list[list[int]] = []

        async def app(*args: Any) -> None:
            read_by.append(await read(*args))

        await Socket(says=says, is_strict=False).open(app)
        return read_by[0]

    def check(run: Run) -> None:
        if run.kind is None and says:
            assert isinstance(run.error, StreamCancelled)
        elif run.kind is None:
            assert run.result == [0, 1, 2]

    interrupt_everywhere(lambda: serve, check, max_seconds=ENOUGH)
