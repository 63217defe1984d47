"""The log in Redis does what the model of the protocol says, step by step."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from protocol.walk import LEASE, TICK, Walk
from streamkit.redis import RedisLog
from support.valkey import MARKS, admin, log_url, new_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = MARKS

#: Puts all times back that are kept of a run, for the time that has passed. KEYS: meta, early.
PASS_TIME = """
for _, field in ipairs({"alive", "doubted", "watched", "refreshed"}) do
  if redis.call("HEXISTS", KEYS[1], field) == 1 then
    redis.call("HINCRBY", KEYS[1], field, -ARGV[1])
  end
end
local known = redis.call("HGETALL", KEYS[2])
for place = 1, #known, 2 do
  local limit, reason = known[place + 1]:match("^(%d+):(.*)$")
  redis.call("HSET", KEYS[2], known[place],
    string.format("%.0f", limit - ARGV[1]) .. ":" .. reason)
end
"""


@pytest.fixture(autouse=True)
def _deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log hear of nothing: it would renew by itself what is doubted."""
    for name in "_want", "_want_no_more":
        monkeypatch.setattr(f"streamkit._redislog.desk.Desk.{name}", lambda *arguments: None)


@asynccontextmanager
async def walks(url: str, random: Random) -> AsyncGenerator[Walk, None]:
    prefix = new_prefix()
    log = RedisLog(log_url(url), prefix=prefix, lease=LEASE)

    async def pass_time() -> None:
        keys = f"{prefix}:run:{{a}}:meta", f"{prefix}:run:{{a}}:early"
        await client.eval(PASS_TIME, keys, [round(1000 * TICK)])

    async with admin(url) as client, log.open():
        yield Walk(log, "a", pass_time, random)


@pytest.mark.parametrize("seed", range(20))
async def test_walks(url: str, seed: int) -> None:
    """What is called of it is answered as in the model."""
    async with walks(url, Random(seed)) as walk:
        await walk.take(100)
