"""The wheel in an empty environment, on each Python of this machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from conftest import ROOT, run

PYTHONS = os.environ["STREAMKIT_PYTHONS"].split()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest, built: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return the Python of an environment that has the wheel, and what that asks for."""
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--no-python-downloads", "--python", request.param, tmp_path / "v")
    folder = tmp_path / "v" / ("Scripts" if os.name == "nt" else "bin")
    run(*uv, "pip", "install", "--quiet", "--python", folder / "python", built[1])
    return folder / "python"


def readme() -> tuple[str, str]:
    """Return the first program of the README, and what it prints."""
    text = (ROOT / "README.md").read_text("utf-8")
    program = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert program is not None
    return program[1], program[2]


def test_wheel(python: Path, tmp_path: Path) -> None:
    """Package: anyio alone comes with the wheel; nothing warns, and the README's example runs."""
    installed = run(sys.executable, "-m", "uv", "pip", "list", "--python", python)
    needed = {"anyio", "anyio-streamkit", "idna", "sniffio", "typing-extensions"}
    assert {line.split()[0] for line in installed.splitlines()[2:]} <= needed
    where = run(python, "-W", "error", "-c", "import streamkit; print(streamkit.__file__)")
    assert Path(where).is_relative_to(tmp_path)
    program, printed = readme()
    (tmp_path / "example.py").write_text(program, "utf-8")
    assert run(python, "-W", "error", tmp_path / "example.py") == printed
