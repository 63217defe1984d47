"""
A thread that notices a run that never suspends: the run blocks the event loop, so nothing in the
loop can notice it.

It notes the line, and raises an exception there, as often as needed.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

from .abandoned import Abandoned
from .once import Terms
from .places import Place, place_of_stack

# Real seconds: far more than any sound step takes.
PATIENCE = 5.0


class Watchdog:
    """Watches the runs of the thread that made it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._over = threading.Event()
        self._terms: Terms | None = None
        self._dog = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._dog.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._dog.join()

    @contextmanager
    def watching(self, terms: Terms) -> Generator[None, None, None]:
        """Watch the visits in this block."""
        self._terms = terms
        try:
            yield
        finally:
            self._terms = None

    def _watch(self) -> None:
        pulse: object = None
        while not self._over.wait(PATIENCE):
            terms = self._terms
            visit = None if terms is None else terms.visit
            eye = None if visit is None else visit.eye
            now = None if eye is None or not eye.is_running else (eye, eye.pulse)
            if eye is not None and now is not None and now == pulse:
                eye.is_over, eye.stuck_at = True, self._place()
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(Abandoned)
                )
            pulse = now

    def _place(self) -> Place:
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        frame = frames.get(self._thread)
        stack: list[tuple[str, int, str]] = []
        while frame is not None:
            code = frame.f_code
            stack.insert(0, (code.co_filename, frame.f_lineno, code.co_name))
            frame = frame.f_back
        return place_of_stack(tuple(stack))
