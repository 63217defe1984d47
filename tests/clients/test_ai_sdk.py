"""``VERCEL_UI``, read by the chat of the AI SDK (npm ``ai``), in each release that reads it.

What a user of the chat sees is asserted: its status and error, the parts of the message and their
states, and what ``onFinish``, ``onData`` and ``onError`` are told.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import pytest
from in_thread import serving
from node import SDKS, chats

from streamkit import Head, StreamCancelled, with_timeout
from streamkit.asgi import Shutdown
from streamkit.runs import Runs
from streamkit.sse import VERCEL_UI, EventStream, Frame, RunEvents, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

WORDS = [f"word {number} \u00e9\u2028 " for number in range(40)]
TEXT = "".join(WORDS)
SOME = "".join(WORDS[:3])

#: What the kinds of an end look like to all releases: the status, and the error.
ENDS = {
    "completed": ("ready", None),
    "own": ("ready", None),
    "relayed": ("ready", None),
    "relayed failure": ("error", "Not mine."),
    "cancelled": ("ready", None),
    "timed_out": ("error", "The stream took too long."),
    "failed": ("error", "The stream failed."),
    "shutdown": ("error", "The server is shutting down."),
    "lost": ("error", "The stream was lost."),
    "tools": ("error", "The stream failed."),
}


async def answer(how: str) -> AsyncGenerator[Any, None]:
    """Yield three words, and end in a way; or forty."""
    if how == "whole":
        for word in WORDS:
            yield word
            await anyio.sleep(0.02)
        return
    for word in WORDS * 20 if how == "long" else WORDS[:3]:
        yield word
    if how == "own":
        yield {"type": "finish-step"}
        yield {"type": "reasoning-start", "id": "r"}
        yield {"type": "reasoning-delta", "id": "r", "delta": "hm"}
        yield {"type": "finish"}
    if how.startswith("relayed"):
        # As another server has said it, in an event and in a frame of several.
        yield ServerSentEvent(json.dumps({"type": "start", "messageId": "other"}))
        end: Any = {"type": "error", "errorText": "Not mine."}
        end = end if how == "relayed failure" else {"type": "finish"}
        chunks = [
            {"type": "reasoning-start", "id": "r"},
            {"type": "reasoning-delta", "id": "r", "delta": "hm"},
            end,
        ]
        yield Frame(b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks))
        yield ServerSentEvent("[DONE]")
    if how == "cancelled":
        raise StreamCancelled("enough")
    if how == "timed_out":
        await anyio.sleep_forever()
    if how == "shutdown":
        raise StreamCancelled(Shutdown())
    if how == "tools":
        yield {"type": "reasoning-start", "id": "r"}
        yield {"type": "tool-input-start", "toolCallId": "c", "toolName": "look"}
        yield {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": '{"a'}
        yield {"type": "tool-input-start", "toolCallId": "d", "toolName": "see", "dynamic": True}
    if how in ("failed", "tools"):
        raise LookupError("secret")


async def refusing(how: str) -> AsyncGenerator[Any, None]:
    if how == "busy":
        yield Head(409, {"content-type": "text/plain"})
        yield "Ask me later."
    else:
        raise LookupError("secret")


async def cut() -> AsyncGenerator[Any, None]:
    """Nobody says anything of the end."""
    yield Frame(VERCEL_UI.encode("word"))


class Application:
    """Chats: ``/stream/HOW``, ``/runs/HOW``, whose answers are runs, and ``/refuse/HOW``."""

    def __init__(self) -> None:
        self.runs = Runs(max_items=200)
        self.chats: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.runs:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, what, how, *rest = scope["path"].split("/")
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        source: Any = answer(how)
        if how == "timed_out":
            source = with_timeout(source, idle=0.1)
        response: Any
        if what == "stream":
            final = (lambda outcome: VERCEL_UI.lost()) if how == "lost" else None
            response = EventStream(source, profile=VERCEL_UI, final=final)
        elif what == "refuse":
            response = EventStream(refusing(how), profile=VERCEL_UI)
        elif what == "cut":
            response = EventStream(cut(), profile=VERCEL_UI, final=lambda outcome: [])
        elif rest[1:] == ["cancel"]:
            await self.runs.cancel_and_wait(self.chats[rest[0]])
            response = EventStream(cut())
        else:
            if scope["method"] == "POST":
                chat = json.loads(body)["id"]
                self.chats[chat] = (await self.runs.start(source)).id
            else:
                chat = rest[0]
            response = RunEvents(self.runs, self.chats.get(chat, "none"), profile=VERCEL_UI)
        await response(scope, receive, send)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Application, str]]:
    application = Application()
    with serving(application) as url:
        yield application, url


@pytest.fixture
def url(served: tuple[Application, str]) -> str:
    return served[1]


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def parts_of(how: str) -> list[list[Any]]:
    parts: list[list[Any]] = [["text", "done", SOME]]
    if how == "own" or how.startswith("relayed"):
        parts.append(["reasoning", "done", "hm"])
    if how == "tools":
        failed = "The stream failed."
        parts.append(["reasoning", "done", ""])
        parts.append(["tool-look", "output-error", failed])
        parts.append(["dynamic-tool", "output-error", failed])
    return parts


def check_end(how: str, shown: Any) -> None:
    status, error = ENDS[how]
    assert (shown["status"], shown["error"]) == (status, error)
    assert [message["parts"] for message in shown["messages"]] == [parts_of(how)]
    is_error = status == "error"
    flags = {"isAbort": False, "isDisconnect": False, "isError": is_error}
    assert shown["finish"] == [flags]
    assert shown["errors"] == ([error] if is_error else [])
    told = [["data-end", {"kind": "cancelled"}]] if how == "cancelled" else []
    assert shown["data"] == told


@pytest.mark.parametrize("how", ENDS)
def test_ends(url: str, sdk: str, how: str) -> None:
    """Each kind of an end is what it is in the chat, and nothing is shown as streaming after it."""
    [shown] = chats(sdk, f"{url}/stream/{quote(how)}", "ask")
    check_end(how, shown)


@pytest.mark.parametrize("how", [how for how in ENDS if how != "lost"])
def test_ends_of_a_run(url: str, sdk: str, how: str) -> None:
    """Runs: who comes later, twice in one page, sees the same, in one message with one id."""
    chat = f"{sdk}-{how.replace(' ', '-')}"
    first, second = chats(sdk, f"{url}/runs/{quote(how)}", "ask", "resume", chat=chat)
    check_end(how, first)
    check_end(how, second)
    assert first["messages"] == second["messages"]
    [again] = chats(sdk, f"{url}/runs/{quote(how)}", "resume", "again", chat=chat)
    assert again["messages"] == first["messages"]


def test_comes_back(url: str, sdk: str) -> None:
    """Runs: a chat that was left comes back to its answer, all of it, in every page."""
    chat = f"{sdk}-whole"
    left, page, other = chats(sdk, f"{url}/runs/whole", "leave", "resume", "resume", chat=chat)
    assert (left["status"], left["finish"][0]["isAbort"]) == ("ready", True)
    [message] = left["messages"]
    [[kind, _, text]] = message["parts"]
    assert kind == "text"
    assert TEXT.startswith(text)
    assert 0 < len(text) < len(TEXT)
    whole = {"id": message["id"], "parts": [["text", "done", TEXT]]}
    for shown in page, other:
        assert (shown["status"], shown["messages"]) == ("ready", [whole])


def test_comes_back_in_the_same_page(url: str, sdk: str) -> None:
    """Runs: a chat that was left and comes back without a reload has its message once."""
    chat = f"{sdk}-same"
    [shown] = chats(sdk, f"{url}/runs/whole", "leave", "again", chat=chat)
    assert shown["status"] == "ready"
    assert len(shown["messages"]) == 1


def test_cancel(url: str, sdk: str) -> None:
    """Runs: an answer that is cancelled is told so to the page that reads it, and to the others."""
    chat = f"{sdk}-cancel"
    for shown in chats(sdk, f"{url}/runs/whole", "cancel", "resume", chat=chat):
        assert (shown["status"], shown["error"]) == ("ready", None)
        assert shown["data"] == [["data-end", {"kind": "cancelled"}]]
        [[_, state, text]] = shown["messages"][0]["parts"]
        assert state == "done"
        assert TEXT.startswith(text)
        assert len(text) < len(TEXT)


def test_nothing_to_come_back_to(url: str, sdk: str) -> None:
    """Runs: a chat without a run has nothing to come back to, and knows that it is none."""
    [shown] = chats(sdk, f"{url}/runs/completed", "resume", chat="unknown")
    assert (shown["status"], shown["error"], shown["messages"]) == ("ready", None, [])


def test_trimmed(url: str, sdk: str) -> None:
    """Runs: an answer whose beginning is gone is an error, and no message without a beginning."""
    _, shown = chats(sdk, f"{url}/runs/long", "ask", "resume", chat=f"{sdk}-long")
    assert shown["status"] == "error"
    assert json.loads(shown["error"])["code"] == "gap"
    assert shown["messages"] == []


@pytest.mark.parametrize(
    ("how", "error"), [("busy", "Ask me later."), ("fails", "Internal Server Error")]
)
def test_refused(url: str, sdk: str, how: str, error: str) -> None:
    """Who is refused has an error, whose text is that of the answer."""
    [shown] = chats(sdk, f"{url}/refuse/{how}", "ask")
    assert (shown["status"], shown["error"], shown["messages"]) == ("error", error, [])


def test_cut(url: str, sdk: str) -> None:
    """A cut looks like the end of a complete answer: so there is always a last word."""
    [shown] = chats(sdk, f"{url}/cut/now", "ask")
    assert (shown["status"], shown["error"]) == ("ready", None)
    assert shown["messages"][0]["parts"] == [["text", "streaming", "word"]]
