"""A run whose process was killed, and the reader of a run whose own server ends: what chats and
agents show.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dying import LEASE
from in_thread import serving
from node import AGENTS, SDKS, agent, chats

from streamkit.runs import Runs
from streamkit.sqlite import SQLiteLog
from streamkit.sse import AG_UI, AG_UI_0, VERCEL_UI, RunEvents
from support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = {"agui1": AG_UI, "agui0": AG_UI_0}
LOST = "The stream was lost."
ENDS = "The server is shutting down."

CHUNKS = [
    "word \u00e9\u2028",
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "hm"},
    {"type": "tool-input-start", "toolCallId": "c", "toolName": "look"},
    {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": '{"a'},
]
EVENTS = [
    "word \u00e9\u2028",
    {"type": "STEP_STARTED", "stepName": "s"},
    {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "look"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "{}"},
]


@contextmanager
def producing(path: Path, items: list[Any], *run_ids: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process run that has runs in a file."""
    command = [sys.executable, str(Path(__file__).with_name("dying.py")), str(path)]
    with subprocess.Popen(
        [*command, json.dumps(items), *run_ids], env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            yield process
        finally:
            process.kill()


class Application:
    """Readers of the runs in a file: ``/CLIENT/.../ID/...``."""

    def __init__(self, path: Path) -> None:
        self.runs = Runs(SQLiteLog(str(path), lease=LEASE))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.runs:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, client, run_id, *_ = scope["path"].split("/")
        options: Any = {"profile": VERCEL_UI}
        if client in PROFILES:
            content, more = b"", True
            while more:
                message = await receive()
                content, more = content + message["body"], message["more_body"]
            body = json.loads(content)
            about = {"threadId": body["threadId"], "runId": body["runId"]}
            options = {"profile": PROFILES[client], "about": about}
        await RunEvents(self.runs, run_id, keepalive=0.2, **options)(scope, receive, send)


def check_chat(shown: Any, error: str) -> None:
    assert (shown["status"], shown["error"], shown["errors"]) == ("error", error, [error])
    assert shown["finish"] == [{"isAbort": False, "isDisconnect": False, "isError": True}]
    assert shown["data"] == []
    [message] = shown["messages"]
    assert message["parts"] == [
        ["text", "done", CHUNKS[0]],
        ["reasoning", "done", "hm"],
        ["tool-look", "output-error", error],
    ]


def check_agent(shown: Any, code: str, error: str) -> None:
    assert shown["told"][0] == ["started", "thread", "run"]
    assert shown["told"][1] == ["error", code, error]
    assert shown["messages"][0] == ["assistant", EVENTS[0], 0]
    assert sum(calls for _, _, calls in shown["messages"]) == 1


@pytest.mark.parametrize("sdk", SDKS)
def test_a_chat(sdk: str, tmp_path: Path) -> None:
    """Runs: a chat whose run is lost while it reads, and one that comes later, have an error, and
    show what there was, with nothing that is still open.
    """
    path = tmp_path / "runs.db"
    with producing(path, CHUNKS, "lost") as process, serving(Application(path)) as url:
        kill = threading.Timer(2.0, process.kill)
        kill.start()
        live, later = chats(sdk, f"{url}/chat", "resume", "resume", chat="lost")
        kill.join()
    check_chat(live, LOST)
    check_chat(later, LOST)
    assert live["messages"] == later["messages"]


@pytest.mark.parametrize("client", AGENTS)
def test_an_agent(client: str, tmp_path: Path) -> None:
    """Runs: so it is with an agent, which is told by a code."""
    path = tmp_path / "runs.db"
    with producing(path, EVENTS, "lost") as process, serving(Application(path)) as url:
        kill = threading.Timer(2.0, process.kill)
        kill.start()
        live, later = (agent(client, f"{url}/{client}/lost") for _ in range(2))
        kill.join()
    check_agent(live, "lost", LOST)
    check_agent(later, "lost", LOST)


@pytest.mark.parametrize("client", [*SDKS, *AGENTS])
def test_the_server_of_the_reader_ends(client: str, tmp_path: Path) -> None:
    """Runs: who reads a run of another process is told when its own server ends, since a cut would
    look like the end.
    """
    path = tmp_path / "runs.db"
    application = Application(path)
    items = EVENTS if client in PROFILES else CHUNKS
    with producing(path, items, "elsewhere"), serving(application) as url:
        end = threading.Timer(2.0, application.runs.shut_down)
        end.start()
        if client in PROFILES:
            check_agent(agent(client, f"{url}/{client}/elsewhere"), "shutdown", ENDS)
        else:
            [shown] = chats(client, f"{url}/chat", "resume", chat="elsewhere")
            check_chat(shown, ENDS)
        end.join()
