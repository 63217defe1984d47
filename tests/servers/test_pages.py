"""
The programs that are in the pages of the guide, as their readers run them.

A program is a block whose first line is a comment with the name of its file. ``tests/test_docs.py``
runs all blocks in virtual time; here these run in a process of their own: an application on
uvicorn, a script until it ends. A page whose program is in ``examples/`` links to it.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recipes import UVICORN, Program, running
from serving import PATIENCE, STARTS_WITHIN, eventually
from sockets import on_asyncio
from support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

PROGRAM = re.compile(
    r"^```python\n# (?P<name>\w+\.py)\n(?P<code>.*?)^```\n(\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)

# Not tasks: what a page says is shown by other tests.
OTHERS = {
    *("api", "architecture", "changelog", "cost", "demo", "guarantees", "index", "limits"),
    *("move", "ownership", "scenario-tests", "scenarios", "security", "trouble", "understand"),
}

# A page with a name is about what its program in ``examples/`` does, and shows it or links to it.
EXAMPLES = {
    "protocols": "ai_chat",
    "reading": "proxy",
    "recipes": "chat",
    "redis": "stop_elsewhere",
    "testing": "test_answer",
    "web": "chat",
    "websocket": "websocket",
    "workers": "workers",
}

# It has no program: all of its blocks are one.
WHOLE = {"own-log"}

FOUND = {page.stem: PROGRAM.search(page.read_text("utf-8")) for page in sorted(DOCS.glob("*.md"))}
SCRIPTS = {page: found for page, found in FOUND.items() if found and found["name"] != "app.py"}


class Application(Program):
    """An application that may answer no request before it is asked for what it streams."""

    def wait_until_it_answers(self) -> None:
        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE):
                return True
            return False

        eventually(listens, within=STARTS_WITHIN, what=self.output)


@contextmanager
def serving(page: str, directory: Path) -> Iterator[Program]:
    """Run the application of a page, and end it without a word about errors."""
    found = FOUND[page]
    assert found is not None, page
    (directory / found["name"]).write_text(found["code"], "utf-8")
    with running(Application([*UVICORN, "app:app"], directory)) as program:
        yield program
        program.terminate()
        program.end()


def run(directory: Path, *command: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout


def test_each_task_has_a_program() -> None:
    """Docs: each page about a task has a program that is started here, or in ``examples/``."""
    without = {page for page, found in FOUND.items() if found is None}
    assert without - OTHERS == {*EXAMPLES, *WHOLE}
    for page, example in EXAMPLES.items():
        assert (ROOT / "examples" / f"{example}.py").is_file(), page


@pytest.mark.parametrize("page", SCRIPTS)
def test_script(page: str, tmp_path: Path) -> None:
    """Docs: a script prints in real time what its page says."""
    found = SCRIPTS[page]
    (tmp_path / found["name"]).write_text(found["code"], "utf-8")
    assert run(tmp_path, found["name"]) == found["output"]


@pytest.mark.parametrize("page", sorted(WHOLE))
def test_whole_page(page: str, tmp_path: Path) -> None:
    """Docs: the blocks of a page, one after the other, are a program."""
    text = (DOCS / f"{page}.md").read_text("utf-8")
    code = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    said = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(code), "utf-8")
    assert run(tmp_path, "page.py") == "".join(said)


def test_start(tmp_path: Path) -> None:
    """Docs: a stream of Start is read, and stopped by a second request."""
    with serving("start", tmp_path) as app, app.events("GET", "/answers/7") as events:
        assert events.next().data == "To be,"
        assert app.post("/answers/7/stop").json() is True
        assert events.next().data == "(stopped)"


def test_asgi(tmp_path: Path) -> None:
    """Docs: the application without a framework streams, and ends with its client."""
    with serving("asgi", tmp_path) as app, app.events("GET", "/") as events:
        assert events.next().data == "To be, or"


def test_signal(tmp_path: Path) -> None:
    """Docs: a socket that an endpoint serves by itself says stop."""
    with serving("signals", tmp_path) as app:
        url = f"{app.url.replace('http', 'ws')}/answer"
        seen = on_asyncio(url, '{"reason": "the button"}')
        assert seen.messages == ['"To be,"', '"[the button]"']


def test_one_run(tmp_path: Path) -> None:
    """Docs: a second question is a 409, or comes in place of the first."""
    with serving("one-run", tmp_path) as app:
        with app.events("POST", "/chats/7") as first:
            assert first.next().data == "To be,"
            assert app.post("/chats/7").status_code == 409
            with app.events("POST", "/chats/7?instead=true") as second:
                assert second.next().data == "To be,"
            assert first.next().data == "[another question]"


def test_deploy(tmp_path: Path) -> None:
    """Docs: a server that is asked to end lets a stream finish, tells it, and tells its client."""
    with serving("deploys", tmp_path) as app, app.events("GET", "/answer") as events:
        assert events.next().data == "To be,"
        asked = time.monotonic()
        app.terminate()
        assert json.loads(events.rest()[-1].data)["kind"] == "shutdown"
        assert 0.9 < time.monotonic() - asked < 1 + PATIENCE
        assert "saved: Shutdown()" in app.output()


def test_telemetry(tmp_path: Path) -> None:
    """Docs: Prometheus finds how long streams took, and how they ended."""
    with serving("telemetry", tmp_path) as app:
        assert app.post("/chat").text == "To be, ornot to be"
        with app.client() as client:
            said = client.get("/metrics/").text
        assert 'stream_duration_seconds_count{outcome="completed",stream="chat"} 1.0' in said
        assert "streams_open 0.0" in said


def test_tests(tmp_path: Path) -> None:
    """Docs: the tests of the page about testing pass."""
    command = ("-m", "pytest", "-q", "--config-file=/dev/null", f"--rootdir={tmp_path}")
    # Where pytest-asyncio is installed, it warns of what is not said.
    options = ("-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider")
    path = ROOT / "examples" / "test_answer.py"
    assert "3 passed" in run(tmp_path, *command, *options, str(path))
