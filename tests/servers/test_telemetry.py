"""What FastAPI and streamkit tell OpenTelemetry of a client that goes, on every server."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from recipes import Program, running
from serving import COMMANDS, HERE, eventually
from support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OUTCOME = "streamkit.outcome"


@pytest.fixture(params=list(COMMANDS))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    command = ["-m", *COMMANDS[request.param], "telemetry_app:app"]
    paths = [HERE, HERE.parent, environment()["PYTHONPATH"]]
    program = Program(command, tmp_path, PYTHONPATH=os.pathsep.join(map(str, paths)))
    with running(program) as server:
        yield server
        server.terminate()
        server.end()


def told_by(server: Program) -> dict[str, Any]:
    with server.client() as client:
        answer = client.get("/told").json()
    assert isinstance(answer, dict)
    return answer


def when_over(server: Program, *, ends: int = 1) -> dict[str, Any]:
    """What was told, when the streams and their requests are over."""

    def found() -> dict[str, Any] | None:
        told = told_by(server)
        are_over = len(told["ends"]) == ends and len(told["spans"]) == ends and not told["active"]
        return told if are_over else None

    told = eventually(found, what=lambda: (told_by(server), server.output()))
    assert isinstance(told, dict)
    return told


def ask(server: Program, path: str, *, reads: int, by_reset: bool) -> None:
    """Read at least some bytes of an answer, and go."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = 0
        while received < reads:
            received += len(connection.recv(1_000))
        if by_reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize(
    ("kind", "by_reset", "on_disconnect", "end"),
    [
        ("silent", False, "cancel", "cancelled"),
        ("silent", True, "cancel", "cancelled"),
        ("silent", False, "close", "closed"),
        ("silent", True, "drain", "cancelled"),
        ("kept in send", True, "cancel", "cancelled"),
    ],
)
def test_disconnect(
    server: Program, kind: str, by_reset: bool, on_disconnect: str, end: str
) -> None:
    """Telemetry: a client that goes is no error: not on the span, and not in the metric of
    FastAPI."""
    path = f"/streams/{kind.replace(' ', '%20')}/7?on_disconnect={on_disconnect}"
    ask(server, path, reads=200, by_reset=by_reset)
    told = when_over(server)
    (span,), (request,) = told["spans"], told["requests"]
    assert told["ends"] == [[end, None]]
    assert span["status"] == "UNSET"
    assert "error.type" not in span
    # What is drained ends when its request is over.
    assert span.get(OUTCOME) == (None if on_disconnect == "drain" else end)
    assert request["count"] == 1
    assert "error.type" not in request
    assert told["routes"] == ["/streams/{kind}/{id}"]


@pytest.mark.parametrize(("kind", "status"), [("completed", "UNSET"), ("failed", "ERROR")])
def test_end(server: Program, kind: str, status: str) -> None:
    """Telemetry: the end is told on the span of FastAPI, before the last message ends that."""
    with server.client() as client:
        assert "event: end" in client.get(f"/streams/{kind}/7").text
    told = when_over(server)
    (span,) = told["spans"]
    assert (span["status"], span[OUTCOME]) == (status, kind)
    assert span.get("error.type") == (None if kind == "completed" else "ValueError")
    assert ["error.type" in request for request in told["requests"]] == [False]
