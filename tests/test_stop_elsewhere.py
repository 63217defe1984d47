"""The example that stops a run from a second terminal, as two real processes and a real server."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "stop_elsewhere.py"

# Real seconds for a program that takes two.
LIMIT = 30

each_backend = pytest.mark.parametrize("runs_on", ["asyncio", "trio"])


@contextmanager
def running(backend: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start a run. Yields its process, when it has begun, and the command that stops it."""
    # Out of the reach of a Ctrl-C for the tests, and with the default for SIGINT.
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLE), "--backend", backend],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert "another terminal" in process.stdout.readline()
            command = process.stdout.readline().split()
            assert process.stdout.readline() == "step 1\n"
            yield process, command
        finally:
            process.kill()


@each_backend
def test_from_another_process(runs_on: str) -> None:
    """C21: the printed command stops the run, which saves what it has, and waits for that.

    A stop that worked is no failure of the program.
    """
    with running(runs_on) as (process, command):
        result = subprocess.run(
            [*command, "enough of it"],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
            env=environment(),
        )
        assert result.stdout == f"{command[-1]} has stopped\n"
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(LIMIT) == 0
    lines = rest.splitlines()
    assert lines[-2].startswith("saved at step ")
    assert lines[-2].endswith(": enough of it")
    assert lines[-1].startswith("[cancelled: enough of it; items: ")


async def test_lasts_a_minute() -> None:
    """There is time to go to the second terminal."""
    spec = spec_from_file_location("stop_elsewhere", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    began, steps = anyio.current_time(), 0
    async for _ in example.count():
        steps += 1
    assert (steps, round(anyio.current_time() - began)) == (24, 60)


@each_backend
def test_sigint(runs_on: str) -> None:
    """Z2: Ctrl-C cancels through the same key."""
    with running(runs_on) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(LIMIT) == 0
    assert "[cancelled: Ctrl-C; items: " in rest


def test_without_a_server() -> None:
    """Misuse: no server at the address, or no address: it says so."""
    command = [sys.executable, str(EXAMPLE)]
    result = subprocess.run(
        [*command, "--url", "redis://127.0.0.1:1", "stop", "run"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(),
    )
    assert (result.returncode, result.stdout) == (1, "no server at redis://127.0.0.1:1\n")
    result = subprocess.run(
        [*command, "stop", "run"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(),
    )
    assert result.returncode == 2
    assert "--url is needed" in result.stderr
