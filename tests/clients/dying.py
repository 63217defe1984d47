"""
A process whose runs are in a file, and go on until it is killed.

``python dying.py FILE ITEMS RUN_ID...`` starts runs of some items, a JSON array, and says so.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import anyio

from streamkit.runs import Runs
from streamkit.sqlite import SQLiteLog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Seconds.
LEASE = 0.5


async def some(items: list[Any]) -> AsyncGenerator[Any, None]:
    for item in items:
        yield item
    await anyio.sleep_forever()


async def main(path: str, items: str, *run_ids: str) -> None:
    async with Runs(SQLiteLog(path, lease=LEASE)) as runs:
        for run_id in run_ids:
            await runs.start(some(json.loads(items)), id=run_id)
        for run_id in run_ids:
            while (await runs.get(run_id)).last < len(json.loads(items)):
                await anyio.sleep(0.01)
        print("started", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
