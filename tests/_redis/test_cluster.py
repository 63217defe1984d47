"""The registry in a cluster: one slot for all its names, wherever that slot goes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from coredis.typing import Key

from streamkit.redis import Redis, RedisCancelRegistry
from support.clusters import CLUSTER_RIGHTS, SLOTS, Cluster, cluster_of
from support.valkey import (
    LIMIT,
    MARKS,
    PREFIX,
    fired,
    is_sent,
    new_prefix,
    note_wait,
    registry,
    until,
    warnings_in,
)

pytestmark = MARKS

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module", params=[1, 3])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that no test changes."""
    with cluster_of(request.param) as cluster:
        yield cluster


@asynccontextmanager
async def pair(
    cluster: Cluster, prefix: str
) -> AsyncGenerator[tuple[RedisCancelRegistry, RedisCancelRegistry], None]:
    """Yield two registries with one prefix: what two processes have."""
    async with Redis(connect=cluster.client) as one, Redis(connect=cluster.client) as other:
        async with (
            RedisCancelRegistry(one, prefix=prefix) as here,
            RedisCancelRegistry(other, prefix=prefix) as there,
        ):
            assert here.connected
            assert there.connected
            yield here, there


def prefix_of_the_first(primaries: int) -> str:
    """Return a prefix whose slot is with the first primary."""
    while True:
        prefix = new_prefix()
        if Key(f"{{{prefix}}}").slot < SLOTS // primaries:
            return prefix


async def test_all_arrive(cluster: Cluster) -> None:
    """C20: twelve keys under each of four prefixes, looked up at once: each is told."""
    reasons: dict[str, object] = {}

    async def hold(registry: RedisCancelRegistry, key: str) -> None:
        async with registry.open(key) as token:
            reasons[key] = await fired(token)

    keys = [str(number) for number in range(12)]
    for _ in range(4):
        reasons.clear()
        async with pair(cluster, new_prefix()) as (here, there):
            here.cancel("0", "0")
            here.cancel("1", "1")
            await is_sent(here)
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    tasks.start_soon(hold, there, key)
                await until(lambda: len(there) + len(reasons) == 12)
                for key in keys[2:]:
                    here.cancel(key, key)
        assert reasons == {key: key for key in keys}


async def test_wait(cluster: Cluster) -> None:
    """C11: who is there is known in a cluster, too; and a key that is used again is clean."""
    results: list[bool] = []

    async with pair(cluster, new_prefix()) as (here, there):
        async with anyio.create_task_group() as tasks:
            async with there.open("run") as token:
                tasks.start_soon(note_wait, results, here)
                await fired(token)
                await anyio.sleep(0.05)
                assert results == []
            with anyio.fail_after(LIMIT):
                await until(lambda: results)
        assert results == [True]
        await until(lambda: there._work.is_finished)
        async with there.open("run") as token:
            await anyio.sleep(0.05)
            assert not token.cancelled


async def test_by_address(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Misuse: the address of a node, as if it were the only server: it says what to write."""
    prefix = prefix_of_the_first(3)
    async with registry(f"redis://127.0.0.1:{cluster.nodes[0].port}", prefix) as here:
        await until(lambda: warnings_in(caplog))
        assert not here.connected
    assert warnings_in(caplog) == ["Redis refuses what it is asked"]
    assert "coredis.RedisCluster(host, port)" in caplog.text


def test_documented() -> None:
    """C20: the rights that these tests have are those that the documentation gives."""
    page = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    rights = CLUSTER_RIGHTS.replace(f"{{{PREFIX}:", "{chat}:")
    assert " ".join(rights.split()) in " ".join(page.split())


async def test_moved_slot(caplog: pytest.LogCaptureFixture) -> None:
    """C21: the slot goes to another node, which ends subscriptions: it is away, and then back."""
    caplog.set_level(logging.WARNING, "streamkit")
    prefix = prefix_of_the_first(2)
    with cluster_of(2) as cluster:
        source, target = cluster.primaries
        async with pair(cluster, prefix) as (here, there), there.open("run") as token:
            await anyio.to_thread.run_sync(cluster.move, Key(f"{{{prefix}}}").slot, source, target)
            await until(lambda: here.stats().reconnects and there.stats().reconnects)
            await until(lambda: here.connected and there.connected)
            here.cancel("run", "stop")
            assert await fired(token) == "stop"
            with anyio.fail_after(LIMIT):
                assert await here.cancel_and_wait("other")
    assert set(warnings_in(caplog)) == {"Redis is away", "Redis is back"}


async def test_fail_over(caplog: pytest.LogCaptureFixture) -> None:
    """C21: a primary dies, and its replica takes its place: what was sent meanwhile arrives."""
    prefix = prefix_of_the_first(3)
    with cluster_of(3, replicas=1) as cluster:
        async with pair(cluster, prefix) as (here, there), there.open("run") as token:
            cluster.primaries[0].kill()
            await until(lambda: not (here.connected or there.connected))
            here.cancel("run", "stop")
            assert await fired(token) == "stop"
            await until(lambda: here.connected and there.connected)
            with anyio.fail_after(LIMIT):
                assert await here.cancel_and_wait("other")
    assert sorted(warnings_in(caplog)) == ["Redis is away"] * 2 + ["Redis is back"] * 2


async def test_other_primary_dies() -> None:
    """C21: a primary dies that has none of our names: what is sent arrives after the fail-over."""
    prefix = new_prefix()
    while Key(f"{{{prefix}}}").slot < SLOTS // 3:
        prefix = new_prefix()
    with cluster_of(3, replicas=1) as cluster:
        async with pair(cluster, prefix) as (here, there), there.open("run") as token:
            cluster.primaries[0].kill()
            here.cancel("run", "stop")
            assert await fired(token) == "stop"
            await anyio.to_thread.run_sync(cluster.wait_fail_over)
            await until(lambda: here.connected and there.connected)
            with anyio.fail_after(LIMIT):
                assert await here.cancel_and_wait("other")
