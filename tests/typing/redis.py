"""The registry and the log over Redis. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from typing import assert_type

import coredis

from streamkit import CancelToken, Stream, with_cancellation
from streamkit.redis import Holder, Redis, RedisCancelRegistry, RedisLog, RedisRegistryStats
from streamkit.runs import RunLog, Runs


@asynccontextmanager
async def behind_sentinel() -> AsyncGenerator[coredis.Redis[bytes], None]:
    raise NotImplementedError
    yield


async def registries(source: AsyncIterable[int]) -> None:
    async with (
        Redis("redis://localhost", connect_timeout=1) as redis,
        Redis(connect=lambda: coredis.Redis("localhost")),
        Redis(connect=lambda: coredis.RedisCluster("localhost", 7000)),
        Redis(connect=behind_sentinel),
        RedisCancelRegistry(redis, prefix="chat") as runs,
        RedisCancelRegistry("redis://localhost"),
    ):
        assert_type(redis.connected, bool)
        assert_type(runs.open("run"), Holder)
        assert_type(with_cancellation(source, runs.open("run", must_look_up=True)), Stream[int])
        async with runs.open("run") as token:
            assert_type(token, CancelToken)
        assert_type(runs.stats(), RedisRegistryStats)


def no_registries() -> None:
    Redis(coredis.Redis())  # type: ignore[arg-type]
    Redis(connect=coredis.Redis())  # type: ignore[arg-type]
    RedisCancelRegistry(None)  # type: ignore[arg-type]


async def logs() -> None:
    async with (
        Redis("redis://localhost") as redis,
        Runs(RedisLog(redis, prefix="chat", lease=10, outage=20, max_held=100, reconcile=2)),
        Runs(RedisLog("redis://localhost", prefix="chat", connect_timeout=1)),
    ):
        log: RunLog = RedisLog(redis, prefix="chat")
        assert_type(log.lease, float)
        assert_type(RedisLog(redis, prefix="chat").connected, bool)


def no_logs() -> None:
    RedisLog("redis://localhost")  # type: ignore[call-arg]
    RedisLog(None, prefix="chat")  # type: ignore[arg-type]
