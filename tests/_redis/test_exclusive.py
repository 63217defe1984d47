"""One holder in all processes: a lease on the server, which is renewed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from coredis import PureToken
from workers import worker

from streamkit import KeyHeld, Released, StreamCancelled, with_cancellation
from streamkit._redis.lease import Lease, Leases
from streamkit._redis.store import Store
from streamkit.redis import KeyLost, Redis, RedisCancelRegistry, RegistryUnavailable
from support import Backend
from support.clusters import cluster_of
from support.valkey import (
    LIMIT,
    MARKS,
    RIGHTS,
    Outage,
    admin,
    admin_url,
    fired,
    new_prefix,
    registry,
    two_of_them,
    until,
)

pytestmark = MARKS


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that last for a second."""
    for module in "lease", "store":
        monkeypatch.setattr(f"streamkit._redis.{module}.LEASE", 1.0)
    monkeypatch.setattr("streamkit._redis.lease._RENEW_AFTER", 0.3)


async def hold(here: RedisCancelRegistry) -> None:
    async with here.open("run", exclusive=True) as token:
        await token.wait()


async def wait_until_free(here: RedisCancelRegistry) -> None:
    """Wait until the key can be held: what was given back is on its way."""
    with anyio.fail_after(LIMIT):
        while True:
            try:
                async with here.open("run", exclusive=True) as token:
                    assert not token.cancelled
                    return
            except KeyHeld:
                await anyio.sleep(0.02)


async def source() -> AsyncGenerator[int, None]:
    raise AssertionError("must not be started")
    yield 1


async def test_held(url: str) -> None:
    """C14: one who holds a key exclusively keeps out others, here and there, and nobody else."""
    async with two_of_them(url) as (here, there):
        async with here.open("run", exclusive=True) as token, there.open("run") as other:
            async with there.open("another", exclusive=True):
                for each in here, there:
                    with pytest.raises(KeyHeld, match="'run'"):
                        async with with_cancellation(source(), each.open("run", exclusive=True)):
                            raise AssertionError("must not be entered")
            assert there.keys() == ["run"]
            there.cancel("run", "stop")
            assert [await fired(token), await fired(other)] == ["stop", "stop"]
        await until(lambda: here._work.is_finished and there._work.is_finished)
        await wait_until_free(there)


async def test_held_again(url: str) -> None:
    """C14: one who has let go of a key holds it again, or another one here does: nobody has it."""
    async with registry(url) as here:
        for _ in range(5):
            async with here.open("run", exclusive=True) as token:
                assert not token.cancelled


async def test_stop_and_follow(url: str) -> None:
    """C21: stop the one elsewhere that holds it, wait until it has left, and take its place."""
    async with two_of_them(url) as (here, there), anyio.create_task_group() as tasks:
        tasks.start_soon(hold, there)
        await until(lambda: len(there))
        with anyio.fail_after(LIMIT):
            released = await here.cancel_and_wait("run", "make room")
            assert released == Released(all_left=True, held=True)
            await until(lambda: there._work.is_finished)
            await wait_until_free(here)
            assert await here.cancel_and_wait("nobody") == Released(all_left=True, held=False)


@pytest.mark.usefixtures("short")
async def test_renewed(url: str) -> None:
    """C20: a lease is renewed for as long as the block is open, and given back at its end."""
    async with two_of_them(url) as (here, there):
        async with here.open("run", exclusive=True) as token:
            await anyio.sleep(2)
            with pytest.raises(KeyHeld):
                await there.open("run", exclusive=True).__aenter__()
            assert not token.cancelled
        await until(lambda: here._work.is_finished)
        async with admin(url) as client:
            assert not await client.exists([f"{here._prefix}:lease:run"])


@pytest.mark.usefixtures("short")
async def test_removed(url: str) -> None:
    """C20: the lease is removed, and then somebody else's: its holder is told that it is lost."""
    async with registry(url) as here, admin(url) as client:
        lease = f"{here._prefix}:lease:run"
        async with here.open("run", exclusive=True) as token:
            await client.delete([lease])
            await anyio.sleep(0.6)
            assert not token.cancelled
            assert await client.exists([lease]), "it was set again, for it was nobody's"
            await client.set(lease, "somebody else")
            assert await fired(token) == KeyLost()
            assert str(token.reason) == "the key is no longer held exclusively"
        await until(lambda: here._work.is_finished)
        assert await client.get(lease) == b"somebody else"


@pytest.mark.usefixtures("short")
async def test_long_outage(outage: Outage) -> None:
    """C20: cut off for longer than the lease: its holder is told, though the server is away."""

    async def run() -> AsyncGenerator[str, None]:
        try:
            yield "runs"
            await anyio.sleep_forever()
        except StreamCancelled as stop:
            yield str(stop.reason)

    async with registry(outage.url) as here:
        async with with_cancellation(run(), here.open("run", exclusive=True)) as stream:
            assert await anext(stream) == "runs"
            outage.begin()
            with anyio.fail_after(LIMIT):
                assert await anext(stream) == str(KeyLost())
            assert not here.connected
        with pytest.raises(RegistryUnavailable, match="Redis is away"):
            await here.open("run", exclusive=True).__aenter__()


async def test_short_outage(outage: Outage) -> None:
    """C20: away for a moment, and back without its memory: the lease is set again."""
    prefix = new_prefix()
    async with registry(outage.url, prefix) as here, registry(outage.url, prefix) as there:
        async with here.open("run", exclusive=True) as token:
            outage.begin()
            await until(lambda: not (here.connected or there.connected))
            outage.end()
            await until(lambda: here.connected and there.connected)
            await until(lambda: here._work.is_finished)
            with pytest.raises(KeyHeld):
                await there.open("run", exclusive=True).__aenter__()
            assert not token.cancelled


async def test_frozen(backend: Backend, url: str) -> None:
    """C20: a holder that is frozen frees the key within a lease, and is told when it wakes up."""
    prefix = new_prefix()
    async with registry(url, prefix) as here:
        with worker(backend, url, prefix, exclusive=True) as process:
            with pytest.raises(KeyHeld):
                await here.open("run", exclusive=True).__aenter__()
            os.kill(process.pid, signal.SIGSTOP)
            await wait_until_free(here)
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout is not None
            rest = await anyio.to_thread.run_sync(process.stdout.read)
            assert rest == "told: the key is no longer held exclusively\n0 keys\n"


async def test_killed(backend: Backend, url: str) -> None:
    """C20: a holder that is killed frees the key within a lease."""
    prefix = new_prefix()
    async with registry(url, prefix) as here:
        with worker(backend, url, prefix, exclusive=True) as process:
            process.kill()
            await wait_until_free(here)


async def test_misuse(url: str) -> None:
    """Misuse: a plain `with`, and one that is used again: an error, and nothing is held."""
    async with registry(url) as here:
        with pytest.raises(TypeError, match="exclusive needs an 'async with'"):
            with here.open("run", exclusive=True):
                raise AssertionError("must not be entered")
        plain = here.open("run")
        async with plain:
            with pytest.raises(RuntimeError, match="used once"):
                await plain.__aenter__()
        used = here.open("run", exclusive=True)
        async with used:
            assert len(here) == 1
        await wait_until_free(here)
        await until(lambda: here._work.is_finished)
        with pytest.raises(RuntimeError, match="used once"):
            await used.__aenter__()
        assert len(here) == 0
        await wait_until_free(here)


async def test_without_the_right(url: str) -> None:
    """C20: the user may not run scripts: it says so, and all else works."""
    user = admin_url(url).replace("redis://", "redis://simple:any@")
    rights = [each for each in RIGHTS.split() if each != "+eval"]
    async with admin(url) as client:
        await client.acl_setuser("simple", "reset", "on", "nopass", *rights)
        async with registry(user) as here:
            with pytest.raises(RegistryUnavailable, match=r"refuses it .*'eval'"):
                await here.open("run", exclusive=True).__aenter__()
            assert here.connected
            async with here.open("run"):
                assert len(here) == 1


@pytest.mark.usefixtures("impatient")
async def test_late(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: the server takes too long: an error; what it may have set by then is removed."""
    prefix, keep = new_prefix(), Store.keep

    async def slow(*arguments: Any) -> Any:
        kept = await keep(*arguments)
        await anyio.sleep(1)
        return kept

    async with registry(url, prefix) as here, registry(url, prefix) as there:
        with monkeypatch.context() as slowly:
            slowly.setattr(Store, "keep", slow)
            with pytest.raises(RegistryUnavailable, match="in time"):
                await here.open("run", exclusive=True).__aenter__()
        await wait_until_free(there)


async def test_cancelled_while_it_asks(url: str) -> None:
    """G9: cancelled while it asks for the lease: it is given back."""
    async with two_of_them(url) as (here, there):
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with here.open("run", exclusive=True):
                raise AssertionError("must not be entered")
        assert len(here) == 0
        await wait_until_free(there)


async def test_reply_is_lost(url: str) -> None:
    """C20: the lease is set, and the connection fails before it is told: it asks again."""
    async with registry(url) as here, admin(url) as client, anyio.create_task_group() as tasks:
        keep = Store.keep

        async def fails(*arguments: Any) -> Any:
            monkeypatch.undo()
            await keep(*arguments)
            raise ConnectionResetError

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(Store, "keep", fails)
            tasks.start_soon(hold, here)
            await until(lambda: len(here))
        assert here.stats().reconnects == 1
        assert await client.pttl(f"{here._prefix}:lease:run") > 0
        await client.client_kill(type_=PureToken.PUBSUB)
        here.cancel("run")


async def test_registry_is_left(url: str) -> None:
    """G9: the registry is left before its holder: that is told, since nobody renews the lease."""
    async with registry(url) as here:
        opening = here.open("run", exclusive=True)
        token = await opening.__aenter__()
    assert token.reason == KeyLost()
    await opening.__aexit__(None, None, None)


async def test_cluster() -> None:
    """C14: the same in a cluster."""
    prefix = new_prefix()
    with cluster_of(1) as cluster:
        async with (
            Redis(connect=cluster.client) as redis,
            RedisCancelRegistry(redis, prefix=prefix) as here,
            RedisCancelRegistry(redis, prefix=prefix) as there,
        ):
            async with here.open("run", exclusive=True):
                with pytest.raises(KeyHeld):
                    await there.open("run", exclusive=True).__aenter__()
            await wait_until_free(there)


async def test_refused_renewal() -> None:
    """C20: the server refuses a renewal: it is tried again, until the time is over."""
    leases = Leases(lambda: None)
    lease = leases.take("run")
    leases.kept(lease, anyio.current_time())
    leases.refused(lease, RuntimeError("memory"))
    assert not lease.lost.cancelled
    assert leases.due() == []
    pause = leases.pause()
    assert pause is not None
    assert 0 < pause <= 1
    lease.until = lease.renew_at = anyio.current_time()
    assert leases.due() == []
    assert lease.lost.reason == KeyLost()


async def test_given_back_during_an_outage() -> None:
    """C16: what could not be removed is tried again, unless the server has forgotten it by then."""
    leases = Leases(lambda: None)
    old, new = leases.take("old"), Lease("new")
    leases.kept(old, anyio.current_time() - 60)
    leases.give_back(old)
    leases.give_back(new)
    assert leases.pause() == 0
    returned = leases.take_returned()
    assert returned == [old, new]
    leases.return_again(returned)
    assert leases.take_returned() == [new]
    assert leases.pause() is None


async def test_connection_fails_while_it_is_given_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: a lease that could not be given back is given back over the next connection."""
    remove, failed = Store.remove, anyio.Event()

    async def remove_later(self: Store, leases: list[Lease]) -> None:
        if not failed.is_set():
            failed.set()
            raise ConnectionResetError
        await remove(self, leases)

    monkeypatch.setattr(Store, "remove", remove_later)
    async with two_of_them(url) as (here, there):
        async with here.open("run", exclusive=True):
            pass
        await wait_until_free(there)
        assert failed.is_set()
