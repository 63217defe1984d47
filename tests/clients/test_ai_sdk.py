"""The chat of the AI SDK (npm ``ai``) comes back to a run, by its ``resumeStream()``.

Its protocol asks for ``API/ID/stream``, takes 204 for nothing to come back to, and does not say
what it has seen: it reads the answer from its beginning.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import uvicorn

from streamkit import StreamCancelled
from streamkit.runs import Runs
from streamkit.sse import Profile, RunEvents, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from streamkit import OutcomeKind

RESUME = Path(__file__).with_name("resume.js").read_text(encoding="utf-8")
WORDS = [f"word {number} \u00e9 " for number in range(40)]


def chunk(item: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(item))


def tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    chunks: dict[str, dict[str, Any]] = {
        "completed": {"type": "finish"},
        "cancelled": {"type": "abort"},
    }
    last = chunks.get(kind, {"type": "error", "errorText": message})
    return [chunk(last), ServerSentEvent("[DONE]")]


UI_MESSAGES = Profile(
    "UI_MESSAGES",
    event_of=chunk,
    tail=tail,
    resumes=False,
    nothing=204,
    headers={"x-vercel-ai-ui-message-stream": "v1"},
)


async def answer(chat: str) -> AsyncGenerator[dict[str, Any], None]:
    yield {"type": "start", "messageId": f"answer-{chat}"}
    yield {"type": "text-start", "id": "t"}
    for number, word in enumerate(WORDS):
        if chat == "fails" and number == 30:
            raise LookupError("secret")
        if chat == "stopped" and number == 30:
            raise StreamCancelled("enough")
        yield {"type": "text-delta", "id": "t", "delta": word}
        await anyio.sleep(0.02)
    yield {"type": "text-end", "id": "t"}


class Application:
    """What the AI SDK asks a server for: ``POST /chat`` and ``GET /chat/ID/stream``."""

    def __init__(self) -> None:
        self.runs = Runs()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.runs:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["method"] == "POST":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            chat = json.loads(body)["id"]
            await self.runs.start(answer(chat), id=chat)
        else:
            _, _, chat, _ = scope["path"].split("/")
        await RunEvents(self.runs, chat, profile=UI_MESSAGES)(scope, receive, send)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(Application(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def chats(url: str, chat: str, *, asks: bool = True) -> list[Any]:
    """Ask and leave, and come back in two more pages. Returns what each of them shows."""
    where = os.environ.get("EVENTSOURCE")
    assert where, "EVENTSOURCE must be where npm has installed ai: run 'nox -s clients'"
    result = subprocess.run(
        [
            "node",
            "--input-type=module",
            "--eval",
            RESUME,
            json.dumps([f"{url}/chat", chat, asks]),
        ],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.stderr == ""
    shown = json.loads(result.stdout)
    assert isinstance(shown, list)
    return shown


def test_comes_back(url: str) -> None:
    """Runs: a chat that was left comes back to its answer, all of it, in every page."""
    (status, error, left), *others = chats(url, "whole")
    assert (status, error) == ("ready", None)
    text = left[1][2]
    assert "".join(WORDS).startswith(text)
    assert 0 < len(text) < len("".join(WORDS))
    whole = ["answer-whole", "assistant", "".join(WORDS)]
    assert others == [["ready", None, [whole]]] * 2
    # When it has ended, too.
    assert chats(url, "whole", asks=False) == others


def test_fails(url: str) -> None:
    """Runs: each page is told that the answer has failed, after what there was of it."""
    _, *others = chats(url, "fails")
    answer = ["answer-fails", "assistant", "".join(WORDS[:30])]
    assert others == [["error", "The stream failed.", [answer]]] * 2


def test_stopped(url: str) -> None:
    """Runs: an answer that was stopped is no failure, and what there was of it is there."""
    _, *others = chats(url, "stopped")
    answer = ["answer-stopped", "assistant", "".join(WORDS[:30])]
    assert others == [["ready", None, [answer]]] * 2


def test_nothing_to_come_back_to(url: str) -> None:
    """Runs: a chat without a run has nothing to come back to, and knows that it is none."""
    assert chats(url, "unknown", asks=False) == [["ready", None, []]] * 2
