"""Which backend runs, and which clock."""

from __future__ import annotations

import sys
from typing import Any, Literal, TypeAlias

Backend: TypeAlias = Literal["asyncio", "trio"]
Clock: TypeAlias = Literal["virtual", "real"]


def on_trio() -> bool:
    """Tell whether this is a trio task."""
    trio: Any = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


def running_backend() -> Backend:
    """Return the name of the running backend."""
    return "trio" if on_trio() else "asyncio"
