"""A log in a cluster: its runs are spread over all nodes, each with all of its names on one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import coredis
import pytest
from coredis.connection import TCPLocation
from runners import Reader, log_of

from streamkit.redis import Redis, RedisLog
from streamkit.runs import LogUnavailable, RunCancelled, Runs, Terms
from streamkit.testing import LogConformance
from support.clusters import CLUSTER_LOG_RIGHTS, Cluster, cluster_of, watched
from support.valkey import MARKS, PREFIX, new_prefix, until

pytestmark = MARKS

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of(3) as cluster:
        yield cluster


class TestInACluster(LogConformance):
    """What is asked of a log, but for what takes long and has nothing to do with a cluster."""

    cluster: Cluster

    @pytest.fixture(autouse=True)
    def _serve(self, cluster: Cluster) -> None:
        type(self).cluster = cluster

    @staticmethod
    def factory() -> RedisLog:
        return InACluster(TestInACluster.cluster)

    test_lease = test_buried = test_kept = test_kept_for_readers = None  # type: ignore[assignment]


class InACluster(RedisLog):
    """A log with a connection of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._own = lambda: Redis(connect=cluster.keeper)
        super().__init__(self._own(), prefix=new_prefix(), lease=3.0, reconcile=1.0)
        self._opened._make = self._own


async def numbers(last: int) -> AsyncGenerator[int, None]:
    for number in range(1, last + 1):
        yield number
        await anyio.sleep(0.002)


async def test_spread(cluster: Cluster) -> None:
    """Thirty runs are written and read at once, and one is stopped elsewhere."""
    prefix = new_prefix()
    seen: dict[str, list[Any]] = {}

    async def read(runs: Runs, run_id: str) -> None:
        async with runs.attach(run_id) as stream:
            seen[run_id] = [entry.item async for entry in stream]

    async with (
        Redis(connect=cluster.keeper) as one,
        Redis(connect=cluster.keeper) as other,
        Runs(log_of(one, prefix)) as here,
        Runs(log_of(other, prefix)) as there,
    ):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                await here.start(numbers(50), id=f"run{number}")
                tasks.start_soon(read, there, f"run{number}")
        assert seen == {f"run{number}": list(range(1, 51)) for number in range(30)}
        await here.start(numbers(10_000), id="run")
        reader = Reader(there)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.read)
            await reader.until(20)
            assert await there.cancel_and_wait("run", "enough", timeout=20)
            assert isinstance(await reader.over(), RunCancelled)
        reader.check()


async def test_fail_over_in_a_cluster() -> None:
    """C20: the node of a run dies, and its replica takes its place: each reader has all of it."""
    prefix = new_prefix()
    with cluster_of(3, replicas=1) as cluster:
        async with (
            Redis(connect=cluster.keeper) as one,
            Redis(connect=cluster.keeper) as other,
            Runs(log_of(one, prefix, lease=4.0, outage=30.0)) as here,
            Runs(log_of(other, prefix, outage=30.0)) as there,
        ):
            run_id = await on_the_first(here, cluster)
            await watch_fail_over(here, there, run_id, cluster.primaries[0].kill)


async def on_the_first(runs: Runs, cluster: Cluster) -> str:
    """Start a run whose names are on the first node, and return its id."""
    for number in range(100):
        run_id = f"run{number}"
        await runs.start(numbers(10**6), id=run_id)
        if f"{{{run_id}}}" in cluster.primaries[0].ask(f"KEYS *:{{{run_id}}}:meta"):
            return run_id
        await runs.cancel(run_id)
    raise AssertionError("there is none")


async def watch_fail_over(here: Runs, there: Runs, run_id: str, fail: Any) -> None:
    seen: list[int] = []

    async def read() -> None:
        with pytest.raises(RunCancelled):
            async with there.attach(run_id) as stream:
                async for entry in stream:
                    seen.append(entry.item)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await until(lambda: len(seen) > 50)
        fail()
        before = len(seen)
        await until(lambda: len(seen) > before + 200)
        assert await there.cancel_and_wait(run_id, timeout=20)
    assert seen == list(range(1, len(seen) + 1))


async def test_fail_over_with_sentinel() -> None:
    """C21: the primary dies, and Sentinel tells the new one: each reader has all of it."""
    prefix = new_prefix()
    with watched() as servers:
        places = [TCPLocation("127.0.0.1", servers.sentinel.port)]

        @asynccontextmanager
        async def connect() -> AsyncGenerator[coredis.Redis[bytes], None]:
            async with coredis.Sentinel(places, connect_timeout=1) as sentinel:
                async with sentinel.primary_for(servers.name) as client:
                    yield client

        async with (
            Redis(connect=connect) as one,
            Redis(connect=connect) as other,
            Runs(log_of(one, prefix, lease=4.0, outage=30.0)) as here,
            Runs(log_of(other, prefix, outage=30.0)) as there,
        ):
            await here.start(numbers(10**6), id="run")
            await watch_fail_over(here, there, "run", servers.primary.kill)


async def test_client_for_one_server(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Misuse: a client for one server has come to a cluster: it is said what to write."""
    log = RedisLog(
        f"redis://127.0.0.1:{cluster.primaries[0].port}", prefix=new_prefix(), outage=1.0
    )
    async with log.open():
        with pytest.raises(LogUnavailable):
            for number in range(20):
                await log.create(str(number), "0e", Terms(), lambda requests: None)
    assert "this is a node of a cluster: write Redis(connect=" in caplog.text


def test_documented() -> None:
    """C20: the rights that these tests have are those that the documentation gives."""
    page = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    rights = CLUSTER_LOG_RIGHTS.replace(f"{PREFIX}:", "chat:")
    assert " ".join(rights.split()) in " ".join(page.split())
