"""What is open in a process is not open in one that is forked from it."""

from __future__ import annotations

import os

import pytest

from streamkit._core.process import check_process


def test_process() -> None:
    """Misuse: used in another process than it was opened in: an error with some advice."""
    check_process("it", os.getpid())
    with pytest.raises(
        RuntimeError, match=r"^it was opened in another process, which this one was"
    ):
        check_process("it", os.getpid() + 1)
    with pytest.raises(RuntimeError, match="write 'async with' in each worker"):
        check_process("it", os.getpid() + 1)
    with pytest.raises(RuntimeError, match=r"forked from: do not$"):
        check_process("it", os.getpid() + 1, "do not")
