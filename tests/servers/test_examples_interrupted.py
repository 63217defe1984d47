"""The examples that are programs with a server of their own, interrupted everywhere."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from streamkit.sse import ServerSentEvent
from streamkit.testing import AsgiClient, Run, interrupt_everywhere

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS: Any = ("stop", "cancel", "native", "leave", "close")
# Enough for each point and kind, on a machine that does other things as well.
ENOUGH = 300.0


@pytest.fixture(autouse=True)
def _examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the examples be imported, in a folder of their own, and forgotten."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("web", "workers", "stop_elsewhere"):
        sys.modules.pop(name, None)


def test_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1, R8: wherever whoever starts a run is cancelled, the run is there, or never was."""
    number = 0

    async def steps() -> AsyncGenerator[dict[str, int], None]:
        yield {"step": 0}
        yield {"step": 1}

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        nonlocal number
        number += 1
        monkeypatch.setenv("WORKERS_FILE", str(tmp_path / f"{number}.db"))
        sys.modules.pop("workers", None)
        example: Any = importlib.import_module("workers")
        example.work = steps
        async with AsgiClient(example.app) as client:

            async def ask() -> bytes:
                async with client.request("POST", "/runs/run-1") as response:
                    return await response.read()

            yield ask
            async with client.request("GET", "/runs/run-1") as response:
                body = await response.read()
                assert response.status == 404 or b"event: end" in body

    def check(run: Run) -> None:
        assert run.told or b'"kind":"completed"' in run.result

    report = interrupt_everywhere(make, check, clock="real", kinds=KINDS, max_seconds=ENOUGH)
    assert report.points
    assert not any("beyond" in line for line in report.left_out)


def test_web(tmp_path: Path) -> None:
    """L7, U1: wherever the output of a command of the demo is ended, the command has ended."""
    web: Any = importlib.import_module("web")
    pids = tmp_path / "pids"
    command = ["sh", "-c", "echo $$ >> pids; echo one; echo two"]

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        pids.write_text("")
        yield web.output_of(command)
        for pid in pids.read_text().split():
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)

    def check(run: Run) -> None:
        said = [item for item in run.items if isinstance(item, ServerSentEvent) and not item.event]
        texts = [json.loads(item.data)["text"] for item in said]
        assert texts == ["one", "two"][: len(texts)]

    report = interrupt_everywhere(make, check, clock="real", kinds=KINDS, max_seconds=ENOUGH)
    assert report.points


def test_stop_elsewhere() -> None:
    """L1, F1: wherever the run is told to stop that others stop, it says what it has saved."""
    example: Any = importlib.import_module("stop_elsewhere")

    def check(run: Run) -> None:
        steps = [item for item in run.items if item.startswith("step")]
        assert steps == [f"step {number}" for number in range(1, len(steps) + 1)]
        if run.kind == "stop" and run.told:
            assert run.items[-1] == f"saved at step {len(steps)}: interrupted"

    interrupt_everywhere(example.count, check, max_seconds=ENOUGH)
