"""One connection for several that use it, which come and go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import coredis
import pytest
from coredis import PureToken

from streamkit.redis import Redis, RedisCancelRegistry
from support import Backend
from support.valkey import (
    LIMIT,
    MARKS,
    Outage,
    admin,
    fired,
    is_sent,
    new_prefix,
    registry,
    until,
    warnings_in,
)

pytestmark = MARKS


async def count_connections(url: str, prefix: str) -> tuple[int, int]:
    """Count those that are subscribed to names of ours, and all others but one of this function."""
    async with admin(url) as client:
        clients = await client.client_list()
        channels = await client.pubsub_channels(f"{prefix}:answers:*")
    return len(channels), sum(1 for each in clients if each["user"] == "tester")


async def test_shared(url: str) -> None:
    """C20: two registries over one connection: each hears its own, one outlives the other."""
    prefixes = new_prefix(), new_prefix()
    async with Redis(url) as redis:
        assert not redis.connected
        async with RedisCancelRegistry(redis, prefix=prefixes[0]) as first:
            assert redis.connected
            async with RedisCancelRegistry(redis, prefix=prefixes[1]) as second:
                assert (await count_connections(url, prefixes[1]))[1] == 2
                async with first.open("run") as one, second.open("run") as other:
                    async with registry(url, prefixes[1]) as there:
                        there.cancel("run", "stop")
                        assert await fired(other) == "stop"
                    assert not one.cancelled
            await until_unsubscribed(url, prefixes[1])
            async with first.open("again") as token, registry(url, prefixes[0]) as there:
                there.cancel("again", "stop")
                assert await fired(token) == "stop"
            assert first.connected
            assert first.stats().reconnects == 0
        assert not redis.connected
        async with RedisCancelRegistry(redis, prefix=prefixes[0]) as third:
            assert third.connected


async def until_unsubscribed(url: str, prefix: str) -> None:
    with anyio.fail_after(LIMIT):
        while (await count_connections(url, prefix))[0]:
            await anyio.sleep(0.01)


async def test_come_and_go(url: str) -> None:
    """C20: many registries come and go at once over one connection, which is never made anew."""
    prefix = new_prefix()

    async def use(number: int) -> None:
        for key in "abcde":
            async with RedisCancelRegistry(redis, prefix=f"{prefix}:{number}") as here:
                async with here.open(key) as token:
                    here.cancel(key, "stop")
                    assert await fired(token) == "stop"
                assert await here.cancel_and_wait("other", timeout=LIMIT)

    async with Redis(url) as redis, RedisCancelRegistry(redis, prefix=prefix) as stays:
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(use, number)
        assert stays.connected
        assert stays.stats().reconnects == 0


async def test_one_is_refused(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """C20: one of two has no rights for its names: that is told once, and the other one works."""
    async with Redis(url) as redis, registry(url) as there:
        async with (
            RedisCancelRegistry(redis, prefix=there._prefix) as here,
            RedisCancelRegistry(redis, prefix="forbidden") as refused,
            here.open("run") as token,
        ):
            there.cancel("run", "stop")
            assert await fired(token) == "stop"
            await anyio.sleep(0.5)
            assert not refused.connected
            assert not redis.connected
    assert warnings_in(caplog) == ["Redis refuses what it is asked"]


async def test_outage(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    """C20: both are away and back again, with one warning."""
    async with (
        Redis(outage.url) as redis,
        RedisCancelRegistry(redis, prefix=new_prefix()) as first,
        RedisCancelRegistry(redis, prefix=new_prefix()) as second,
    ):
        outage.begin()
        await until(lambda: not (first.connected or second.connected))
        first.cancel("run")
        assert first.stats().unsent == 1
        outage.end()
        await until(lambda: first.connected and second.connected)
        await is_sent(first)
        assert first.stats().reconnects == second.stats().reconnects == 1
    assert warnings_in(caplog) == ["Redis is away", "Redis is back"]


async def test_joins_during_an_outage(outage: Outage) -> None:
    """C20: a registry is entered while the server is away: it waits for an attempt, and goes on."""
    async with Redis(outage.url) as redis, RedisCancelRegistry(redis, prefix=new_prefix()) as first:
        outage.begin()
        await until(lambda: not first.connected)
        async with RedisCancelRegistry(redis, prefix=new_prefix()) as second:
            assert not second.connected
            outage.end()
            await until(lambda: first.connected and second.connected)


async def test_own_client(url: str) -> None:
    """C20: a client of one's own, and one inside of a context manager: a new one per attempt."""
    made: list[object] = []

    def client() -> coredis.Redis[bytes]:
        made.append(client := coredis.Redis[bytes].from_url(url))
        return client

    @asynccontextmanager
    async def connect() -> AsyncGenerator[coredis.Redis[bytes], None]:
        async with client() as entered:
            yield entered

    prefix = new_prefix()
    async with Redis(connect=client) as one, Redis(connect=connect) as other:
        async with (
            RedisCancelRegistry(one, prefix=prefix) as here,
            RedisCancelRegistry(other, prefix=prefix) as there,
            there.open("run") as token,
        ):
            here.cancel("run", "stop")
            assert await fired(token) == "stop"
            assert len(made) == 2
            async with admin(url) as killer:
                await killer.client_kill(type_=PureToken.PUBSUB)
            await until(lambda: here.stats().reconnects and there.stats().reconnects)
            assert len(made) == len(set(map(id, made))) >= 4


class TestMistakes:
    @pytest.mark.parametrize(
        ("connect", "told"),
        [
            (lambda: "redis://localhost", "return a new client, got str"),
            (lambda: anyio.create_task_group(), "coredis client, got TaskGroup"),
            (lambda: coredis.Redis(decode_responses=True), "decode_responses=True"),
        ],
    )
    async def test_connect(self, connect: Any, told: str) -> None:
        """Misuse: what the function returns is no client that can be used: a bare error."""
        with pytest.raises(TypeError, match=told):
            async with Redis(connect=connect) as redis, RedisCancelRegistry(redis):
                raise AssertionError("must not be entered")

    async def test_not_open(self, url: str) -> None:
        """Misuse: the connection was not entered, or is entered twice, or was left."""
        redis = Redis(url)
        with pytest.raises(RuntimeError, match="async with redis, RedisCancelRegistry"):
            await RedisCancelRegistry(redis).__aenter__()
        async with redis:
            with pytest.raises(RuntimeError, match="used once"):
                await redis.__aenter__()
        assert repr(redis) == "<Redis, not connected>"
        with pytest.raises(RuntimeError, match="async with redis, RedisCancelRegistry"):
            await RedisCancelRegistry(redis).__aenter__()

    async def test_left_before_its_users(self, url: str) -> None:
        """G9: the connection is left before the registry: that is left in peace, and at once."""
        redis = Redis(url)
        await redis.__aenter__()
        async with RedisCancelRegistry(redis, prefix=new_prefix()) as here:
            await redis.__aexit__(None, None, None)
            assert not here.connected
            here.cancel("run")


def test_other_loop(backend: Backend, url: str) -> None:
    """Misuse: the connection was entered in another event loop."""

    async def other() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await RedisCancelRegistry(redis).__aenter__()

    async def main() -> None:
        async with redis:
            await anyio.to_thread.run_sync(anyio.run, other)

    redis = Redis(url)
    backend.run(main)


async def test_same_prefix(url: str) -> None:
    """C20: two registries with one prefix over one connection: both hear, also when one is left."""
    prefix = new_prefix()
    async with Redis(url) as redis, RedisCancelRegistry(redis, prefix=prefix) as first:
        async with RedisCancelRegistry(redis, prefix=prefix) as second, registry(url, prefix) as it:
            async with first.open("run") as one, second.open("run") as other:
                it.cancel("run", "stop")
                assert [await fired(one), await fired(other)] == ["stop", "stop"]
            with anyio.fail_after(LIMIT):
                assert await second.cancel_and_wait("run")
        await until_unsubscribed(url, f"{prefix}:none")
        async with first.open("again") as token, registry(url, prefix) as it:
            it.cancel("again", "stop")
            assert await fired(token) == "stop"
        assert first.stats().reconnects == 0
