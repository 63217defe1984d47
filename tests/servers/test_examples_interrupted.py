"""The examples with processes, or with a server of their own, interrupted everywhere."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager
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
    for name in ("stop_elsewhere", "trio_app", "watch", "web", "workers"):
        sys.modules.pop(name, None)


def interrupt(make: Any, check: Any = None, **options: Any) -> None:
    options = {"clock": "real", "kinds": KINDS, "max_seconds": ENOUGH, **options}
    report = interrupt_everywhere(make, check, **options)
    assert report.points
    assert not report.unresolved
    assert not any("beyond" in line for line in report.left_out)


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

    interrupt(make, check)


def line_of(item: object) -> str | None:
    """Return the line of the command's output that an item is, or ``None`` for a remark."""
    if isinstance(item, bytes):
        return item.decode()
    if isinstance(item, ServerSentEvent) and not item.event:
        return str(json.loads(str(item.data))["text"])
    return None


@pytest.mark.parametrize("name", ["watch", "web"])
def test_output_of_a_command(name: str, tmp_path: Path) -> None:
    """L7, U1: wherever the output of a command is ended, the command has ended, too."""
    example: Any = importlib.import_module(name)
    pids = tmp_path / "pids"
    command = ["sh", "-c", "echo $$ >> pids; echo one; echo two; exec sleep 1000"]

    async def until_two() -> AsyncGenerator[Any, None]:
        async with aclosing(example.output_of(command)) as items:
            async for item in items:
                yield item
                if line_of(item) == "two":
                    # It would go on.
                    return

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        pids.write_text("")
        yield until_two()
        for pid in pids.read_text().split():
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)

    def check(run: Run) -> None:
        lines = [line_of(item) for item in run.items]
        said = [line for line in lines if line is not None]
        assert said == ["one", "two"][: len(said)]
        if name == "watch":
            remarks = run.items[len(said) :]
            assert len(remarks) <= run.told
            assert all("[partial result at interrupted; lines: " in remark for remark in remarks)

    interrupt(make, check)


def test_trio_app(tmp_path: Path) -> None:
    """L7, U1: wherever the lines of a file are ended, nobody follows that file any more."""
    example: Any = importlib.import_module("trio_app")
    followed = tmp_path / "log"
    followed.write_text("one\ntwo\n")

    @asynccontextmanager
    async def make() -> AsyncGenerator[Any, None]:
        async def two() -> AsyncGenerator[bytes, None]:
            async with aclosing(example.follow(str(followed))) as lines:
                yield await anext(lines)
                yield await anext(lines)

        yield two()

    interrupt(make, backends=["trio"])
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, check=True)
    assert str(followed).encode() not in listed.stdout


def test_stop_elsewhere() -> None:
    """L1, F1: wherever the run is told to stop that others stop, it says what it has saved."""
    example: Any = importlib.import_module("stop_elsewhere")

    def check(run: Run) -> None:
        steps = [item for item in run.items if item.startswith("step")]
        assert steps == [f"step {number}" for number in range(1, len(steps) + 1)]
        if run.kind == "stop" and run.told:
            assert run.items[-1] == f"saved at step {len(steps)}: interrupted"

    interrupt_everywhere(example.count, check, max_seconds=ENOUGH)
