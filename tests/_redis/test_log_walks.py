"""The log in Redis does what the model of the protocol says, step by step."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from protocol.walk import LEASE, TICK, Walk
from streamkit._runs.log import DOUBT, REMEMBER
from streamkit.redis import RedisLog
from support.valkey import MARKS, admin, log_url, new_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = MARKS

#: So much slower, for the time that a call takes on a busy machine to be nothing.
SLOWER = 100

#: Puts back all times that are kept of a run, as if time had passed. KEYS: meta, early.
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


@pytest.fixture(autouse=True)
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit._redislog.log.DOUBT", SLOWER * DOUBT)
    monkeypatch.setattr("streamkit._redislog.log.REMEMBER", SLOWER * REMEMBER)


@asynccontextmanager
async def walks(url: str, random: Random, *, with_harm: bool) -> AsyncGenerator[Walk, None]:
    prefix = new_prefix()
    log = RedisLog(log_url(url), prefix=prefix, lease=SLOWER * LEASE)

    keys = [f"{prefix}:run:{{a}}:{key}" for key in ("meta", "early", "entries")]
    saved = [f"{prefix}:run:{{a}}:saved-{key}" for key in ("meta", "early", "entries")]

    async def pass_time() -> None:
        for meta, early, _ in keys, saved:
            await client.eval(PASS_TIME, [meta, early], [round(1000 * SLOWER * TICK)])

    async def harm(what: str) -> None:
        match what:
            case "save":
                await copy(keys, saved)
            case "rollback":
                await copy(saved, keys)
            case "flush":
                await client.delete(keys)
            case _:
                await client.delete(keys[:1])

    async def copy(sources: list[str], targets: list[str]) -> None:
        await client.delete(targets)
        for source, target in zip(sources, targets, strict=True):
            await client.copy(source, target)

    async with admin(url) as client, log.open():
        yield Walk(log, "a", pass_time, random, harm if with_harm else None)


@pytest.mark.parametrize("seed", range(10))
async def test_walks(url: str, seed: int) -> None:
    """What is called of it is answered as in the model."""
    async with walks(url, Random(seed), with_harm=False) as walk:
        await walk.take(100)


@pytest.mark.parametrize("seed", range(10))
async def test_walks_with_harm(url: str, seed: int) -> None:
    """Also where the server loses what it had: it is written again, or the run takes no more."""
    async with walks(url, Random(seed), with_harm=True) as walk:
        await walk.take(100)
