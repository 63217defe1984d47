"""``AG_UI``, read by ``HttpAgent`` (npm ``@ag-ui/client``), of 1.0 and of the release before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from in_thread import serving
from node import agent

from streamkit import Head, StreamCancelled, with_timeout
from streamkit.asgi import Shutdown
from streamkit.runs import Runs
from streamkit.sse import AG_UI, AG_UI_0, EventStream, Frame, RunEvents, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

PROFILES = {"agui1": AG_UI, "agui0": AG_UI_0}
WORDS = ["word \u00e9\u2028", "", "x\n"]

#: How each kind of an end is told: by an event, or by the code of an error with its message.
ENDS: dict[str, tuple[str, str] | None] = {
    "completed": None,
    "own": None,
    "open": None,
    "relayed": None,
    "relayed-failure": ("mine", "Not mine."),
    "cancelled": ("cancelled", "The stream was cancelled."),
    "timed_out": ("timed_out", "The stream took too long."),
    "failed": ("failed", "The stream failed."),
    "shutdown": ("shutdown", "The server is shutting down."),
    "lost": ("lost", "The stream was lost."),
}


async def answer(how: str) -> AsyncGenerator[Any, None]:
    if how == "busy":
        yield Head(409, {"content-type": "text/plain"})
        yield "Ask me later."
        return
    if how == "two":
        yield "a"
        yield {"type": "RUN_FINISHED", "threadId": "thread", "runId": "run"}
        yield {"type": "RUN_STARTED", "threadId": "thread", "runId": "other"}
        yield "b"
        return
    if how.startswith("large"):
        yield "x" * int(how.removeprefix("large")) * 2**20
        return
    for word in WORDS:
        # For beats between them.
        await anyio.sleep(0.12)
        yield word
    if how not in ("completed", "cancelled"):
        yield {"type": "STEP_STARTED", "stepName": "s"}
        yield {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "look"}
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "{}"}
    if how == "open":
        yield {"type": "TOOL_CALL_END", "toolCallId": "c"}
        yield "y"
        yield {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}
    if how == "own":
        yield {"type": "RUN_STARTED", "threadId": "thread", "runId": "run"}
        yield {"type": "RUN_FINISHED", "threadId": "thread", "runId": "run"}
    if how.startswith("relayed"):
        # As another server has said it, in an event and in a frame of several.
        ids = {"threadId": "thread", "runId": "run"}
        yield ServerSentEvent(json.dumps({"type": "RUN_STARTED", **ids}))
        events: list[Any] = [
            {"type": "TOOL_CALL_END", "toolCallId": "c"},
            {"type": "STEP_STARTED", "stepName": "t"},
            {"type": "RUN_ERROR", "message": "Not mine.", "code": "mine"}
            if how == "relayed-failure"
            else {"type": "RUN_FINISHED", **ids},
        ]
        for end in "\r\n", "\n":
            said = [f"data: {json.dumps(event)}{end}{end}" for event in events]
            yield Frame("".join(said[:2] if end == "\r\n" else said[2:]).encode())
        yield ServerSentEvent("[DONE]")
    if how == "cancelled":
        raise StreamCancelled("enough")
    if how == "shutdown":
        raise StreamCancelled(Shutdown())
    if how == "timed_out":
        await anyio.sleep_forever()
    if how == "failed":
        raise LookupError("secret")


class Application:
    """``/CLIENT/stream/HOW``, and ``/CLIENT/runs/HOW``, which reads a run."""

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
        _, client, what, how = scope["path"].split("/")
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message["more_body"]
        body = json.loads(content)
        profile = PROFILES[client]
        about = {"threadId": body["threadId"], "runId": body["runId"]}
        source: Any = answer(how)
        if how == "timed_out":
            source = with_timeout(source, idle=0.5)
        response: Any
        if what == "runs":
            run = await self.runs.start(source)
            response = RunEvents(self.runs, run.id, profile=profile, about=about)
        else:
            final: Any = (lambda outcome: profile.lost()) if how == "lost" else None
            if how == "cut":
                final = lambda outcome: []  # noqa: E731
            options = {"about": about, "final": final, "keepalive": 0.05}
            response = EventStream(source, profile=profile, **options)
        await response(scope, receive, send)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Application()) as url:
        yield url


def run(url: str, client: str, what: str) -> Any:
    """Let an agent run once. Returns what it was told."""
    return agent(client, f"{url}/{client}/{what}")


@pytest.mark.parametrize("client", PROFILES)
@pytest.mark.parametrize(
    ("what", "how"), [(what, how) for how in ENDS for what in ("stream", "runs") if how != "lost"]
)
def test_ends(url: str, client: str, what: str, how: str) -> None:
    """Each kind of an end is what it is to the agent, whatever is open."""
    check_end(run(url, client, f"{what}/{how}"), client, how)


@pytest.mark.parametrize("client", PROFILES)
def test_lost(url: str, client: str) -> None:
    """A loss is told by its code."""
    check_end(run(url, client, "stream/lost"), client, "lost")


def check_end(shown: Any, client: str, how: str) -> None:
    started, end, *_ = shown["told"]
    assert started == ["started", "thread", "run"]
    error = ENDS[how]
    if how == "cancelled" and client == "agui1":
        assert end == ["finished", "cancelled"]
    elif error is None:
        assert end == ["finished", None]
    else:
        assert end == ["error", *error]
    assert shown["messages"][0] == ["assistant", "".join(WORDS), 0]
    if how == "open":
        assert [text for _, text, _ in shown["messages"]][-2:] == ["y", ""]


@pytest.mark.parametrize("client", PROFILES)
def test_refused(url: str, client: str) -> None:
    """An agent that is refused has failed, and has the text of the answer."""
    shown = run(url, client, "stream/busy")
    assert [what for what, *_ in shown["told"]] == ["failed", "finalized"]
    assert "Ask me later." in shown["thrown"]


@pytest.mark.parametrize("client", PROFILES)
def test_cut(url: str, client: str) -> None:
    """A cut is no error to an agent: so there is always a last word."""
    shown = run(url, client, "stream/cut")
    assert [what for what, *_ in shown["told"]] == ["started", "finalized"]
    assert shown["thrown"] is None


@pytest.mark.parametrize("client", PROFILES)
def test_large(url: str, client: str) -> None:
    """An event of more than 10 MiB is an error to an agent of 1.0, and one of less is not."""
    shown = run(url, client, "stream/large9")
    assert [what for what, *_ in shown["told"]] == ["started", "finished", "finalized"]
    shown = run(url, client, "stream/large11")
    end = "failed" if client == "agui1" else "finished"
    assert [what for what, *_ in shown["told"]] == ["started", end, "finalized"]


@pytest.mark.parametrize("client", PROFILES)
def test_another_run(url: str, client: str) -> None:
    """After the end of a run a source may begin another one, which is ended like the first."""
    shown = run(url, client, "stream/two")
    assert shown["told"] == [
        *(["started", "thread", "run"], ["finished", None]),
        *(["started", "thread", "other"], ["finished", None]),
        ["finalized"],
    ]
    assert [text for _, text, _ in shown["messages"]] == ["a", "b"]
