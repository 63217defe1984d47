"""A body that is cut anywhere, read from a log in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runners import log_of

from streamkit.runs import Runs
from support.cut_bodies import CUTS, check_each_cut
from support.valkey import MARKS, new_prefix

if TYPE_CHECKING:
    from streamkit.sse import Profile

pytestmark = MARKS


@CUTS
async def test_at_every_byte(url: str, profile: Profile, items: list[Any]) -> None:
    """Runs: cut after any byte, the client comes back and has all then, and nothing twice."""
    async with Runs(log_of(url, new_prefix())) as runs:
        await check_each_cut(runs, profile, items)
