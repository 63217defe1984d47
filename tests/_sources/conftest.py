"""No thread of a source outlives its test."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sync_source import HANGS_AFTER

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A thread that has done its work may still be on its way out."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("thread of "):
            thread.join(HANGS_AFTER)
            assert not thread.is_alive()
