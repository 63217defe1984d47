"""Notice that a process is one of several workers, which do not see what it keeps in memory."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_NUMBERS = re.compile(rb"\d+")


def has_siblings(environ: dict[str, str] | None = None, processes: Path = _PROCESSES) -> bool:
    """
    Tell whether this process looks like one of several workers of a server.

    It does if the environment says that there are several workers, as servers read it there; or if
    its parent has another child that was started with the same command, apart from numbers. If the
    system does not list processes, only the environment counts.
    """
    count = (os.environ if environ is None else environ).get("WEB_CONCURRENCY", "")
    if count.isdecimal() and int(count) > 1:
        return True
    parent, own = os.getppid(), os.getpid()
    with suppress(OSError, ValueError):
        listed = (processes / str(parent) / "task" / str(parent) / "children").read_text("ascii")
        command = _command(processes, own)
        return any(
            _command(processes, number) == command
            for number in map(int, listed.split())
            if number != own
        )
    return False


def _command(processes: Path, number: int) -> bytes | None:
    try:
        command = (processes / str(number) / "cmdline").read_bytes()
    except OSError:
        # It has ended meanwhile.
        return None
    return _NUMBERS.sub(b"", command)
