"""Real logs do what the model of the protocol says."""

from __future__ import annotations

from functools import partial
from random import Random

import anyio
import pytest

from streamkit.runs import MemoryLog

from .walk import LEASE, TICK, Walk


@pytest.mark.parametrize("seed", range(10))
async def test_memory(seed: int) -> None:
    """What is called of a log in memory is answered as in the model."""
    random = Random(seed)
    log = MemoryLog(lease=LEASE)
    async with log.open():
        for number in range(20):
            await Walk(log, f"{number}", partial(anyio.sleep, TICK), random).take(60)
