"""What a process takes."""

from __future__ import annotations

import resource
from pathlib import Path


def megabytes(pid: int | str = "self") -> float:
    """Return what a process has in memory, where the system tells that in a file."""
    status = Path(f"/proc/{pid}/statm")
    if not status.exists():
        return 0.0
    return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
