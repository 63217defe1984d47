"""What a program needs that a test starts in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Return the environment of a program that imports this checkout, and is read as it runs."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # Python writes to a pipe or a file in blocks otherwise.
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
