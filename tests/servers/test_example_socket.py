"""The answer of ``examples/websocket.py``, on uvicorn in each of its implementations."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from recipes import UVICORN, Program, running
from sockets import on_asyncio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["websockets-sansio", "websockets", "wsproto"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    command = [*UVICORN, "--ws", request.param, "websocket:app"]
    with running(Program(command, tmp_path)) as server:
        # The older implementation says that it is old.
        server.trouble()
        yield server


def texts(messages: list[str | bytes]) -> list[str]:
    return [json.loads(message)["text"] for message in messages]


def test_stop(server: Program) -> None:
    """Recipe: a stop that is said in the socket."""
    url = f"{server.url.replace('http', 'ws')}/answer"
    seen = on_asyncio(url, '{"type": "stop", "reason": "the button"}')
    assert texts(seen.messages)[:: len(seen.messages) - 1] == ["To", "[stopped by the button]"]
    assert (seen.code, seen.reason) == (1000, "cancelled")
    seen = on_asyncio(f"{url}?question=busy")
    assert texts(seen.messages) == ["Somebody else is asking."]
    assert (seen.code, seen.reason) == (1008, "refused")
    server.terminate()
    server.end()


def test_sigterm(server: Program) -> None:
    """WS67: the streams end before uvicorn hears of it: the last word arrives, and 1001."""
    seen = on_asyncio(f"{server.url.replace('http', 'ws')}/answer", server.terminate)
    assert texts(seen.messages)[-1] == "[stopped by the server]"
    assert (seen.code, seen.reason) == (1001, "shutdown")
    server.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers(number: signal.Signals, tmp_path: Path) -> None:
    """WS67: so it is with several workers, which are told by what ends them all, and once more by
    their supervisor."""
    with running(Program([*UVICORN, "--workers", "2", "websocket:app"], tmp_path)) as server:
        end = partial(os.killpg, server.pid, number)
        seen = on_asyncio(f"{server.url.replace('http', 'ws')}/answer", end)
        assert texts(seen.messages)[-1] == "[stopped by the server]"
        assert (seen.code, seen.reason) == (1001, "shutdown")
        server.end()
