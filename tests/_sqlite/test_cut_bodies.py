"""A body that is cut anywhere, read from a log in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from streamkit.runs import Runs
from streamkit.sqlite import SQLiteLog
from support.cut_bodies import CUTS, check_each_cut

if TYPE_CHECKING:
    from pathlib import Path

    from streamkit.sse import Profile

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]


@CUTS
async def test_at_every_byte(tmp_path: Path, profile: Profile, items: list[Any]) -> None:
    """Runs: cut after any byte, the client comes back and has all then, and nothing twice."""
    async with Runs(SQLiteLog(tmp_path / "runs.db")) as runs:
        await check_each_cut(runs, profile, items)
