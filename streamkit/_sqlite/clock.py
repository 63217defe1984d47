"""
The two clocks. Leases go by one that nobody can set, and that all processes of a machine share
since it was started; what is kept for some time after its end goes by the one on the wall.
"""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """Tells the time, and since when."""

    def __init__(self) -> None:
        self.boot: str = boot_id()

    def now(self) -> float:
        """Return seconds since the machine was started, or since another moment in its life."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970."""
        return time.time()


def boot_id(path: Path = _BOOT_ID) -> str:
    """
    Return what tells one start of the machine from another.

    Where the system has no name for it, that is empty, and a start is told by a clock that has gone
    back.
    """
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
