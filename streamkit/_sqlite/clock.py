"""
The two clocks. Leases use the monotonic clock, which nobody can set, and which all processes of a
machine share until it is restarted. How long an ended run is kept is measured by the wall clock.
"""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """Tells the time by both clocks, and identifies the boot of the machine."""

    def __init__(self) -> None:
        self.boot: str = boot_id()

    def now(self) -> float:
        """Return seconds since the machine was started, or since another moment of this boot."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970."""
        return time.time()


def boot_id(path: Path = _BOOT_ID) -> str:
    """
    Return what identifies this boot of the machine.

    If the system has no name for it, this is empty, and a restart is recognized by a clock that has
    gone back.
    """
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
