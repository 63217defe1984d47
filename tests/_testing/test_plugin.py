"""The markers for pytest, under each plugin that runs async tests: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import environment

if TYPE_CHECKING:
    from pathlib import Path

#: What marks a test for each plugin, and what else a module needs.
PLUGINS = {
    "anyio": "pytest.mark.anyio",
    "asyncio": "pytest.mark.asyncio",
    "trio": "pytest.mark.trio",
}

TESTS = """
import anyio
import pytest
import time

pytestmark = {marker}
kept = []

@pytest.fixture
def anyio_backend():
    return {backend}

async def words():
    yield "a"
    yield "b"

@pytest.mark.leaves_nothing_behind
async def test_clean():
    await anyio.sleep(0)

@pytest.mark.leaves_nothing_behind
async def test_generator():
    kept.append(words())
    await anext(kept[0])

@pytest.mark.leaves_nothing_behind
async def test_open_stream():
    anyio.create_memory_object_stream()

@pytest.mark.leaves_nothing_behind
async def test_error():
    raise ValueError("its own")

@pytest.mark.virtual_time
@pytest.mark.leaves_nothing_behind
async def test_an_hour(tmp_path):
    assert tmp_path.is_dir()
    began, real = anyio.current_time(), time.monotonic()
    await anyio.sleep(3600)
    assert anyio.current_time() - began >= 3600
    assert time.monotonic() - real < 60

@pytest.mark.virtual_time
async def test_twice_an_hour({clock}):
    await anyio.sleep(3600)

async def test_unmarked():
    kept.append(words())
    await anext(kept[-1])
"""


def run_pytest(folder: Path, tests: str, *options: str) -> list[str]:
    """Run tests in a process of its own, and return what it prints."""
    (folder / "test_it.py").write_text(tests, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "pytest_streamkit", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "-rA", "--tb=short", *options, "test_it.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )
    return result.stdout.splitlines() + result.stderr.splitlines()


@pytest.mark.parametrize(
    ("plugin", "kind"),
    [("anyio", '"asyncio"'), ("anyio", '"trio"'), ("asyncio", None), ("trio", None)],
)
def test_plugins(plugin: str, kind: str | None, tmp_path: Path) -> None:
    """G13: what a test leaves behind fails it, and time is virtual, whoever runs the test."""
    others = [option for name in PLUGINS if name != plugin for option in ("-p", f"no:{name}")]
    if kind == '"trio"':
        kind = (
            "('trio', {'clock': __import__('trio.testing').testing"
            ".MockClock(autojump_threshold=0)})"
        )
    clock = "autojump_clock" if plugin == "trio" else ""
    lines = run_pytest(
        tmp_path, TESTS.format(marker=PLUGINS[plugin], backend=kind, clock=clock), *others
    )
    told = "\n".join(lines)
    outcomes = {
        line.partition("::")[2].partition(" ")[0]: line.partition(" ")[0]
        for line in lines
        if line.startswith(("PASSED", "FAILED", "ERROR"))
    }
    assert outcomes == {
        "test_clean": "PASSED",
        "test_generator": "FAILED",
        "test_open_stream": "FAILED",
        "test_error": "FAILED",
        "test_an_hour": "PASSED",
        "test_twice_an_hour": "PASSED",
        "test_unmarked": "PASSED",
    }, told
    assert "left behind: generator words" in told
    assert "left behind: open MemoryObjectReceiveStream, open MemoryObjectSendStream" in told
    assert "ValueError: its own" in told


def test_error_in_a_cycle(tmp_path: Path) -> None:
    """G13: an error that nobody took is found if the garbage collector frees its task."""
    tests = """
import asyncio
import pytest

async def fail():
    mine = asyncio.current_task()
    raise ValueError(mine)

@pytest.mark.asyncio
@pytest.mark.leaves_nothing_behind
async def test_it():
    asyncio.ensure_future(fail())
    await asyncio.sleep(0.01)
"""
    lines = run_pytest(tmp_path, tests)
    assert any("left behind: error nobody took: ValueError" in line for line in lines), lines


def test_garbage_of_another_test(tmp_path: Path) -> None:
    """G13: what an earlier test has left, and is collected later, is not that of a clean one."""
    tests = """
import asyncio
import anyio
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

async def fail():
    mine = asyncio.current_task()
    raise ValueError(mine)

async def test_unmarked():
    streams = [anyio.create_memory_object_stream()]
    streams.append(streams)
    asyncio.ensure_future(fail())
    await asyncio.sleep(0.01)

@pytest.mark.leaves_nothing_behind
async def test_clean():
    pass
"""
    lines = run_pytest(tmp_path, tests)
    assert any("2 passed" in line for line in lines), lines


def test_not_async(tmp_path: Path) -> None:
    """G13: a test that is not async cannot have the markers: it fails, and the others run."""
    tests = """
import pytest

@pytest.mark.virtual_time
def test_it(tmp_path):
    raise AssertionError("must not run")

def test_other():
    pass
"""
    lines = run_pytest(tmp_path, tests)
    assert any("make it 'async def'" in line for line in lines)
    assert any("1 failed, 1 passed" in line for line in lines), lines
    assert not any("must not run" in line for line in lines)


def test_of_unittest(tmp_path: Path) -> None:
    """G13: nor can a method of unittest, which pytest runs without any wrapper."""
    tests = """
import unittest

import pytest

class Tests(unittest.IsolatedAsyncioTestCase):
    @pytest.mark.virtual_time
    async def test_it(self):
        raise AssertionError("must not run")

    async def test_other(self):
        pass
"""
    lines = run_pytest(tmp_path, tests)
    assert any("another class than one of unittest" in line for line in lines)
    assert any("1 failed, 1 passed" in line for line in lines), lines
    assert not any("must not run" in line for line in lines)


def test_trio_in_real_time(tmp_path: Path) -> None:
    """G13: where trio runs with its own clock, the error says what to write."""
    tests = TESTS.format(marker=PLUGINS["anyio"], backend='"trio"', clock="")
    lines = run_pytest(tmp_path, tests, "-k", "hour", "-p", "no:trio", "-p", "no:asyncio")
    assert any("let the fixture anyio_backend return" in line for line in lines)


def test_imports_nothing() -> None:
    """G13: the plugin imports nothing of streamkit as long as no test has a marker."""
    program = (
        "import sys, pytest; before = {*sys.modules}; import pytest_streamkit; "
        "print(*{*sys.modules} - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    assert result.stdout.split() == ["pytest_streamkit"]
