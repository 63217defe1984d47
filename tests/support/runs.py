"""How tests read a run to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from streamkit.runs import RunEnded

if TYPE_CHECKING:
    from streamkit.runs import Runs


async def items_of(runs: Runs, run_id: str, **options: Any) -> list[Any]:
    """Read a run to its end, which must be a good one."""
    async with runs.attach(run_id, **options) as stream:
        return [entry.item async for entry in stream]


async def end_of(runs: Runs, run_id: str, **options: Any) -> tuple[list[Any], RunEnded]:
    """Read a run to its end, which must be another."""
    items = []
    async with runs.attach(run_id, **options) as stream:
        with pytest.raises(RunEnded) as caught:
            async for entry in stream:
                items.append(entry.item)
    return items, caught.value
