"""The log in a file does what the model of the protocol says, step by step."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest

from protocol.walk import LEASE, TICK, Walk
from support.files import VirtualSQLiteLog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.one_of_each
@pytest.mark.parametrize("seed", range(10))
async def test_walks(seed: int, tmp_path: Path) -> None:
    """What is called of it is answered as in the model."""
    random = Random(seed)
    log = VirtualSQLiteLog(str(tmp_path / "runs.db"), lease=LEASE)
    async with log.open():
        for number in range(5):
            await Walk(log, f"{number}", partial(anyio.sleep, TICK), random).take(60)
