"""Under which names processes meet, and whom they do not meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import anyio
import coredis
import pytest
from coredis.typing import Key

from streamkit._redis.wire import Cancellation, Names, parse_message
from streamkit.redis import MAX_REASON, Redis, RedisCancelRegistry
from support.valkey import LIMIT, MARKS, admin, admin_url, fired, is_sent, new_prefix, registry

pytestmark = MARKS

PROCESS = "0" * 32


def test_usual_names() -> None:
    """C20: the names of the usual database are those of earlier releases."""
    names = Names("p", PROCESS)
    assert names.channel == "p:cancel"
    assert names.own_channel == f"p:answers:{PROCESS}"
    assert names.stored("run") == b"p:cancel:run"
    assert names.is_for_answers(names.own_channel)
    assert not names.is_for_answers("p:answers:x")
    assert not names.is_for_answers(f"p:answers:answers:{PROCESS}")


@pytest.mark.parametrize("prefix", ["p", "a{b", "a{}b", "a{b}c", "a}b", "{b}", "{b"])
def test_names_in_a_cluster(prefix: str) -> None:
    """C20: in a cluster all names are in one slot, whatever the prefix is."""
    names = Names(prefix, PROCESS, in_cluster=True)
    every = [names.channel, names.own_channel, names.stored("{run}"), names.settled("id")]
    assert len({Key(name).slot for name in every}) == 1


def test_long_reason() -> None:
    """H1: a reason that is too long is cut, and what has an id that is too long is dropped."""
    names = Names("p", PROCESS)

    def parse(reason: str, cancellation_id: str = "id") -> object:
        content = json.dumps({"id": cancellation_id, "reason": reason})
        message = {"key": "run", "content": content, "requests": [[names.own_channel, "1" * 101]]}
        return parse_message(json.dumps(message), names)

    parsed = parse("ä" * MAX_REASON)
    assert isinstance(parsed, Cancellation)
    assert parsed.reason == "ä" * (MAX_REASON // 2)
    assert parsed.requests == []
    assert parse("reason", "1" * 101) is None


@pytest.mark.parametrize("prefix", ["a*b", "a[b]", "a?", "a\\b"])
async def test_special_prefix(url: str, prefix: str) -> None:
    """C11: a prefix that would be a pattern is none: the processes are found all the same."""
    prefix = f"{new_prefix()}{prefix}"
    async with registry(url, prefix) as here, registry(url, prefix) as there:
        with anyio.fail_after(LIMIT):
            assert await here.cancel_and_wait("run")
        assert there.connected


async def test_prefix_within_another(url: str) -> None:
    """C11: a prefix begins with another one's names: its processes are not waited for."""
    prefix = new_prefix()
    async with registry(url, prefix) as here, registry(url, f"{prefix}:answers"):
        with anyio.fail_after(LIMIT):
            assert await here.cancel_and_wait("run")


def by_path(url: str, prefix: str) -> RedisCancelRegistry:
    return RedisCancelRegistry(f"{url}/1", prefix=prefix)


def by_query(url: str, prefix: str) -> RedisCancelRegistry:
    return RedisCancelRegistry(f"{url}?db=1", prefix=prefix)


def by_option(url: str, prefix: str) -> RedisCancelRegistry:
    return RedisCancelRegistry(url, prefix=prefix, db=1)


@pytest.mark.parametrize("make", [by_path, by_query, by_option])
async def test_database(url: str, make: Callable[[str, str], RedisCancelRegistry]) -> None:
    """C20: another database of the same server is another world, however it is given."""
    prefix, url = new_prefix(), admin_url(url)
    client = partial(coredis.Redis.from_url, url, db=1)
    async with (
        Redis(connect=client) as redis,
        registry(url, prefix) as production,
        make(url, prefix) as staging,
        RedisCancelRegistry(redis, prefix=prefix) as other,
        production.open("run") as untouched,
        other.open("run") as token,
    ):
        with anyio.fail_after(LIMIT):
            assert await staging.cancel_and_wait("other")
        staging.cancel("run", "stop")
        assert await fired(token) == "stop"
        await is_sent(staging)
        with anyio.fail_after(LIMIT):
            assert await production.cancel_and_wait("other")
        assert not untouched.cancelled
    async with admin(url) as zero:
        assert not await zero.exists([f"{prefix}:cancel:run"])
