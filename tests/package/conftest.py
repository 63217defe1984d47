"""Builds the sdist, and out of it the wheel, once for all tests; ``dist`` is what is published."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command away from the checkout, which would be imported, and return what it prints."""
    hidden = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=DIST.parent / "tests" / "package",
        env={name: value for name, value in os.environ.items() if name not in hidden} | (env or {}),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def built() -> tuple[Path, Path]:
    """Return the sdist and the wheel."""
    for old in DIST.glob("*"):
        old.unlink()
    run(sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", DIST, ROOT)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def sdist(built: tuple[Path, Path]) -> set[str]:
    """Return the names of the files in the sdist, without the folder that they are in."""
    with tarfile.open(built[0]) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> dict[str, str]:
    """Return the files in the wheel."""
    with zipfile.ZipFile(built[1]) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}
