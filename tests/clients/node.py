"""The clients that are programs of Node.js: each runs once, and says what it has shown."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

#: The releases of the AI SDK, and of AG-UI, as ``noxfile.py`` names them.
SDKS = ["ai5", "ai6", "ai7"]
AGENTS = ["agui1", "agui0"]


def chats(sdk: str, api: str, *does: str, chat: str = "chat") -> list[Any]:
    """Let chats of the AI SDK do something one after another. Returns what each of them shows."""
    shown = _run("ai_sdk.js", [sdk, api, chat, does])
    assert isinstance(shown, list)
    return shown


def agent(client: str, url: str) -> Any:
    """Let an agent of AG-UI run once. Returns what it was told."""
    return _run("ag_ui.js", [client, url])


def _run(program: str, options: list[Any]) -> Any:
    where = os.environ.get("EVENTSOURCE")
    assert where, "EVENTSOURCE must be where npm has installed them: run 'nox -s clients'"
    code = (HERE / program).read_text(encoding="utf-8")
    result = subprocess.run(
        ["node", "--input-type=module", "--eval", code, json.dumps(options)],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    return json.loads(result.stdout)
