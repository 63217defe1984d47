"""The registry with a server that Sentinel watches: the replica takes its place."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import coredis
import pytest
from coredis.connection import TCPLocation

from streamkit.redis import Redis, RedisCancelRegistry
from support.clusters import watched
from support.valkey import LIMIT, MARKS, fired, new_prefix, until, warnings_in

pytestmark = MARKS


async def test_fail_over(caplog: pytest.LogCaptureFixture) -> None:
    """C21: the primary dies: Sentinel is asked anew, and what was sent meanwhile arrives."""
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
            RedisCancelRegistry(one, prefix=prefix) as here,
            RedisCancelRegistry(other, prefix=prefix) as there,
            there.open("run") as token,
        ):
            assert here.connected
            assert there.connected
            servers.primary.kill()
            await until(lambda: not (here.connected or there.connected))
            here.cancel("run", "stop")
            assert await fired(token) == "stop"
            await until(lambda: here.connected and there.connected)
            with anyio.fail_after(LIMIT):
                assert await here.cancel_and_wait("other")
    assert sorted(warnings_in(caplog)) == ["Redis is away"] * 2 + ["Redis is back"] * 2
