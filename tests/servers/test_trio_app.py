"""The file that ``examples/trio_app.py`` follows, on hypercorn with trio."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from recipes import Program, running
from serving import eventually
from support.event_stream import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HYPERCORN = ["-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:{port}"]


@pytest.fixture
def followed(tmp_path: Path) -> Path:
    path = tmp_path / "followed.log"
    path.write_text("one\ntwo\n")
    return path


@pytest.fixture
def server(followed: Path) -> Iterator[Program]:
    command = [*HYPERCORN, "trio_app:app"]
    with running(Program(command, followed.parent, FOLLOWED=str(followed))) as server:
        yield server
        assert processes(followed) == []


def processes(followed: Path) -> list[str]:
    """Return the processes that follow the file."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "args"], capture_output=True, text=True, check=True, timeout=10
    )
    return [line for line in listed.stdout.splitlines() if str(followed) in line]


def test_follow(server: Program, followed: Path) -> None:
    """Recipe: lines come as they are written, to each client; who leaves ends its process."""
    with server.events("GET", "/lines") as first:
        assert [first.next().data, first.next().data] == ["one", "two"]
        with server.events("GET", "/lines") as second:
            assert [second.next().data, second.next().data] == ["one", "two"]
            with followed.open("a") as file:
                file.write("thr")
                file.flush()
                time.sleep(0.2)  # for the line to come in two pieces
                file.write("ee\nfour\n")
            for events in first, second:
                assert [events.next().data, events.next().data] == ["three", "four"]
            assert len(processes(followed)) == 2
        eventually(lambda: len(processes(followed)) == 1)
        with followed.open("a") as file:
            file.write("five\n")
        assert first.next().data == "five"
    eventually(lambda: processes(followed) == [])
    server.terminate()
    server.end()


def test_sigterm(server: Program, followed: Path) -> None:
    """Recipe: a server that is asked to end tells its clients, and leaves no process behind."""
    with server.events("GET", "/lines") as events:
        assert [events.next().data, events.next().data] == ["one", "two"]
        server.terminate()
        assert events.rest() == [
            Event('{"kind":"shutdown","message":"The server is shutting down."}', "end")
        ]
    server.end()
    assert processes(followed) == []
