"""What is left to the garbage collector, because it is in a cycle."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def garbage() -> Generator[list[str], None, None]:
    """Yield a list, which then has the names of the objects of streamkit that are in cycles."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        names = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
        found += [name for name in names if name.startswith("streamkit.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
