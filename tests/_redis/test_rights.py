"""A server that refuses: it is said what, once; and what is enough to be refused nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import coredis
import pytest

from streamkit.redis import Redis, RedisCancelRegistry
from support.valkey import (
    LIMIT,
    LOG_RIGHTS,
    MARKS,
    PREFIX,
    RIGHTS,
    admin,
    admin_url,
    first_warning,
    new_prefix,
    registry,
    silent_server,
    until,
    warnings_in,
)

pytestmark = MARKS

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("right", "told"),
    [
        (f"&{PREFIX}:*", f"PUBLISH {PREFIX}:"),
        (f"~{PREFIX}:*", f"SET {PREFIX}:"),
        ("+mget", "'mget'"),
        ("+set", "'set'"),
        ("+publish", "'publish'"),
        ("+subscribe", "'subscribe'"),
        ("+ping", "'ping'"),
        ("+pubsub|channels", "'pubsub|channels'"),
    ],
)
async def test_missing(url: str, right: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    """C20: a right is missing: it says which, and is not connected until it is given."""
    user = admin_url(url).replace("redis://", "redis://other:any@")
    rights = [each for each in RIGHTS.split() if each != right]
    async with admin(url) as client:
        await client.acl_setuser("other", "reset", "on", "nopass", *rights)
        async with registry(user) as here:
            assert not here.connected
            await until(lambda: warnings_in(caplog))
            assert warnings_in(caplog) == ["Redis refuses what it is asked"]
            assert told in first_warning(caplog)
            assert not here.connected
            await client.acl_setuser("other", right)
            await until(lambda: here.connected)
            with anyio.fail_after(LIMIT):
                assert await here.cancel_and_wait("run")
    assert warnings_in(caplog) == ["Redis refuses what it is asked", "Redis is back"]


async def test_read_only(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """C20: connected to a server that takes no writes, and has nothing to do: it is told."""
    async with admin(url) as client, Redis(connect=lambda: admin(url)) as redis:
        await client.replicaof("127.0.0.1", 1)
        try:
            async with RedisCancelRegistry(redis, prefix=new_prefix()) as here:
                await until(lambda: warnings_in(caplog))
                assert not here.connected
                assert "read only" in first_warning(caplog)
                await client.replicaof()
                await until(lambda: here.connected)
        finally:
            await client.replicaof()


def test_documented() -> None:
    """C20: the rights that the tests have are those that the documentation gives."""
    page = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    for rights in RIGHTS, LOG_RIGHTS:
        assert " ".join(rights.replace(PREFIX, "chat").split()) in " ".join(page.split())


@pytest.mark.usefixtures("impatient")
async def test_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """C20: coredis logs an error for each attempt: ours are dropped, others are not."""
    caplog.set_level(logging.DEBUG)
    with silent_server() as silent:
        async with registry(silent):
            await anyio.sleep(1.5)
            assert [record for record in caplog.records if record.name == "coredis"] == []
            assert warnings_in(caplog) == ["Redis is away"]
            options = {"connect_timeout": 0.1, "stream_timeout": 0.1}
            with pytest.raises(BaseExceptionGroup):
                async with coredis.Redis.from_url(silent, **options) as client:
                    await client.ping()
    assert [record for record in caplog.records if record.name == "coredis"]
    assert logging.getLogger("coredis").filters == []
