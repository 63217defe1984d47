"""What can go wrong with a log in Redis, with real processes and a real server."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from runners import LEASE, Reader, kill, log_of, racer, readers, runner

from streamkit.redis import Redis, RedisLog
from streamkit.runs import (
    CursorMismatch,
    LogLost,
    LogUnavailable,
    RunCancelled,
    RunLost,
    RunNotFound,
    Runs,
)
from support import Backend, wait_all_blocked
from support.ports import free_port
from support.proxy import proxy_to
from support.valkey import (
    MARKS,
    Outage,
    admin,
    log_url,
    new_prefix,
    start_server,
    url_of,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS


@pytest.fixture(autouse=True)
def _short_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit._redislog.log.DOUBT", 1.0)


async def cancelled(runs: Runs, of_them: list[Reader]) -> None:
    """End the run, and see that everybody has all of it."""
    assert await runs.cancel_and_wait("run", "enough", timeout=20)
    for reader in of_them:
        error = await reader.over()
        assert isinstance(error, RunCancelled)
        assert error.reason == "enough"
        assert reader.entries[-1].item == "last"
        assert len(reader.entries) == len(of_them[0].entries)


async def test_read_and_stopped_elsewhere(url: str, backend: Backend) -> None:
    """A run is read and stopped from another process: nothing is missing, also its last item."""
    prefix = new_prefix()
    with runner(backend, url, prefix) as process:
        async with Runs(log_of(url, prefix)) as runs, readers(runs) as some:
            await cancelled(runs, some)
        assert await process.says() == "told enough"
        assert await process.says() == "on_end cancelled enough"
        assert await process.says() == "gone"


async def test_races(url: str, backend: Backend) -> None:
    """Two processes start a run of the same id, 500 times: one of them does, each time."""
    prefix = new_prefix()
    with racer(backend, url, prefix) as one, racer(backend, url, prefix) as two:
        async with Runs(log_of(url, prefix)) as runs:
            for number in range(500):
                for process in (one, two) if number % 2 else (two, one):
                    assert process.stdin is not None
                    process.stdin.write(f"{number}\n")
                    process.stdin.flush()
                said = [await one.says(), await two.says()]
                assert said.count("lost") == 1
                if not number % 50:
                    assert (await runs.get(str(number))).epoch in said


async def test_killed(url: str, backend: Backend) -> None:
    """The process of a run is killed: the run is lost, for all, with the same end."""
    prefix = new_prefix()
    with runner(backend, url, prefix) as process:
        async with Runs(log_of(url, prefix)) as runs, Runs(log_of(url, prefix)) as others:
            late = Reader(others)
            async with readers(runs) as some:
                process.kill()
                for reader in some:
                    assert isinstance(await reader.over(), RunLost)
            await late.read()
            assert isinstance(late.error, RunLost)
            assert late.error.info.outcome == (await runs.get("run")).outcome
            assert late.entries == some[0].entries


async def test_frozen(url: str, backend: Backend) -> None:
    """A process is frozen until its run is buried, and woken: it is fenced, and writes no more."""
    prefix = new_prefix()
    with runner(backend, url, prefix) as process:
        async with Runs(log_of(url, prefix)) as runs:
            async with readers(runs) as some:
                process.send_signal(signal.SIGSTOP)
                for reader in some:
                    assert isinstance(await reader.over(), RunLost)
            info = await runs.get("run")
            process.send_signal(signal.SIGCONT)
            assert await process.says() == "told the run was ended elsewhere"
            assert await process.says() == "on_end cancelled the run was ended elsewhere"
            assert await process.says() == "gone"
            assert await runs.get("run") == info


async def test_frozen_for_a_moment(url: str, backend: Backend) -> None:
    """A process is frozen for longer than its lease, and woken while it is doubted: it lives."""
    prefix = new_prefix()
    with runner(backend, url, prefix) as process:
        async with Runs(log_of(url, prefix)) as runs, readers(runs) as some:
            process.send_signal(signal.SIGSTOP)
            await anyio.sleep(LEASE + 0.4)
            process.send_signal(signal.SIGCONT)
            await some[0].more(50)
            await cancelled(runs, some)


async def test_server_away(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed, and comes back with what it had: all is written, nobody is buried."""
    # In which the producer must be back.
    monkeypatch.setattr("streamkit._redislog.log.DOUBT", 5.0)
    config = {"appendonly": "yes", "appendfsync": "always"}
    server = start_server(data_dir=tmp_path, **config)
    url, prefix = url_of(server), new_prefix()
    try:
        with runner(backend, url, prefix):
            async with Runs(log_of(url, prefix)) as runs, readers(runs) as some:
                kill(server)
                await anyio.sleep(LEASE + 1.0)
                server = start_server(server.port, data_dir=tmp_path, **config)
                await some[0].more(300)
                await cancelled(runs, some)
    finally:
        server.terminate()


async def test_server_empty(outage: Outage, backend: Backend) -> None:
    """The server comes back empty: the run ends, and is never made anew."""
    prefix = new_prefix()
    with runner(backend, outage.url, prefix) as process:
        async with Runs(log_of(outage.url, prefix)) as runs:
            async with readers(runs) as some:
                outage.begin()
                outage.end()
                for reader in some:
                    assert isinstance(await reader.over(), RunNotFound | CursorMismatch)
            assert await process.says() == "told the run was ended elsewhere"
            assert await process.says() == "on_end cancelled the run was ended elsewhere"
            with pytest.raises(RunNotFound):
                await runs.get("run")
            async with admin(outage.url) as client:
                assert await client.keys("*") == set()


async def test_away_for_too_long(outage: Outage, backend: Backend) -> None:
    """The server stays away: the source is told, and readers; then they see what the log says."""
    prefix = new_prefix()
    with runner(backend, outage.url, prefix, 2.0) as process:
        async with Runs(log_of(outage.url, prefix, outage=2.0)) as runs:
            async with readers(runs) as some:
                outage.begin()
                for reader in some:
                    assert isinstance(await reader.over(), LogUnavailable)
            assert await process.says() == f"told {LogLost()}"
            assert await process.says() == f"on_end cancelled {LogLost()}"
            with pytest.raises(LogUnavailable):
                await runs.get("run")
            with pytest.raises(LogUnavailable):
                await runs.start(nothing())
            outage.end()
            with anyio.fail_after(20):
                while not await is_not_found(runs):
                    await anyio.sleep(0.1)


async def is_not_found(runs: Runs) -> bool:
    try:
        await runs.get("run")
    except RunNotFound:
        return True
    except LogUnavailable:
        return False
    raise AssertionError("there is none")


async def nothing() -> AsyncGenerator[None, None]:
    return
    yield


@pytest.mark.parametrize("what", ["meta", "entries"])
async def test_evicted(url: str, backend: Backend, what: str) -> None:
    """The server drops a key of a run: the run ends, or goes on with all of its entries."""
    prefix = new_prefix()
    with runner(backend, url, prefix) as process:
        async with Runs(log_of(url, prefix)) as runs, admin(url) as client, readers(runs) as some:
            assert await client.delete([f"{prefix}:run:{{run}}:{what}"]) == 1
            if what == "meta":
                for reader in some:
                    assert isinstance(await reader.over(), RunNotFound)
                assert await process.says() == "told the run was ended elsewhere"
                # No entry of it is left where a new run would find it.
                await runs.start(nothing(), id="run")
            else:
                # All of it is young, so that it is there, and is written again.
                await some[0].more(20)
                late = Reader(runs)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(late.read)
                    await late.until(20)
                    await cancelled(runs, [late, *some])
                late.check()


async def test_subscriber_is_killed(url: str, backend: Backend) -> None:
    """C20: who is subscribed is cut off again and again: nothing is missed."""
    prefix = new_prefix()
    with runner(backend, url, prefix):
        async with Runs(log_of(url, prefix)) as runs, admin(url) as client, readers(runs) as some:
            for _ in range(5):
                await client.client_kill(type_=b"PUBSUB")  # type: ignore[arg-type]
                await some[0].more(20)
            await cancelled(runs, some)


async def test_server_pauses(url: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers nobody for some time, which is longer than a lease: nobody is buried."""
    monkeypatch.setattr("streamkit._redislog.log.DOUBT", 5.0)
    prefix = new_prefix()
    with runner(backend, url, prefix):
        async with Runs(log_of(url, prefix)) as runs, admin(url) as client, readers(runs) as some:
            await client.client_pause(3_000)
            await anyio.sleep(0.2)
            await some[0].more(100)
            await cancelled(runs, some)


async def test_producer_cut_off(url: str, backend: Backend) -> None:
    """The producer alone is cut off: its run is lost, and when it is back it is fenced."""
    prefix = new_prefix()
    port = int(url.rpartition(":")[2])
    with proxy_to(port) as proxy:
        way = url.replace(str(port), str(proxy.port))
        with runner(backend, way, prefix) as process:
            async with Runs(log_of(url, prefix)) as runs, readers(runs) as some:
                proxy.be("cut")
                for reader in some:
                    assert isinstance(await reader.over(), RunLost)
                proxy.be("open")
                assert await process.says() == "told the run was ended elsewhere"


async def test_answers_are_lost(url: str, backend: Backend) -> None:
    """The answers to what was written are lost again and again: nothing is doubled."""
    prefix = new_prefix()
    port = int(url.rpartition(":")[2])
    with proxy_to(port) as proxy:
        way = url.replace(str(port), str(proxy.port))
        with runner(backend, way, prefix):
            async with Runs(log_of(url, prefix)) as runs, readers(runs) as some:
                for _ in range(5):
                    proxy.be("mute")
                    await anyio.sleep(0.1)
                    proxy.be("open")
                    await some[0].more(20)
                assert proxy.lost
                await cancelled(runs, some)


async def test_reader_is_stalled(url: str, backend: Backend) -> None:
    """What is sent to a reader does not arrive for some time: it gets it then, once."""
    prefix = new_prefix()
    port = int(url.rpartition(":")[2])
    with proxy_to(port) as proxy:
        way = url.replace(str(port), str(proxy.port))
        with runner(backend, url, prefix):
            async with Runs(log_of(way, prefix)) as runs, readers(runs) as some:
                for state in "stalled", "mute", "cut":
                    proxy.be(state)  # type: ignore[arg-type]
                    await anyio.sleep(0.5)
                    proxy.be("open")
                    await some[0].more(50)
                await cancelled(runs, some)


async def test_few_connections(url: str, backend: Backend) -> None:
    """A pool of two connections does for a hundred readers that come and go."""
    prefix = new_prefix()
    with runner(backend, url, prefix):
        async with (
            Redis(log_url(url), max_connections=2) as redis,
            Runs(log_of(redis, prefix)) as runs,
            readers(runs) as some,
        ):
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(come_and_go, runs, number)
            await cancelled(runs, some)


async def come_and_go(runs: Runs, number: int) -> None:
    """Read, and be cancelled after some time, again and again."""
    for turn in range(5):
        with anyio.move_on_after((number * 7 + turn * 3) % 50 / 1000):
            async with runs.attach("run") as stream:
                async for _ in stream:
                    pass


async def test_rolled_back(backend: Backend, tmp_path: Path) -> None:
    """The server comes back without the last seconds: they are written again, the same items."""
    server = start_server(data_dir=tmp_path)
    url, prefix = url_of(server), new_prefix()
    try:
        with runner(backend, url, prefix):
            async with Runs(log_of(url, prefix)) as runs, readers(runs) as some:
                async with admin(url) as client:
                    await client.save()
                await some[0].more(100)
                kill(server)
                server = start_server(server.port, data_dir=tmp_path)
                await some[0].more(50)
                late = Reader(runs)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(late.read)
                    await late.until(50)
                    await cancelled(runs, [late, *some])
                late.check()
    finally:
        server.terminate()


@pytest.mark.parametrize("is_shared", [True, False])
async def test_left_while_away(is_shared: bool) -> None:
    """A log is left while its server is away: whoever waits for it is told, and nobody for ever."""
    url = f"redis://127.0.0.1:{free_port()}"
    async with Redis(url) as redis:
        log = RedisLog(redis if is_shared else url, prefix="test")
        told: list[str] = []

        async def ask(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(LogUnavailable, match="the log was left") as caught:
                await call()
            told.append(str(caught.value))

        async def watch() -> None:
            async with log.watch("run"):
                raise AssertionError("it may hear nothing")

        calls: list[Callable[[], Awaitable[object]]] = [
            partial(log.get, "run"),
            partial(log.read, "run", 0),
            partial(log.renew, "run", "0e"),
            watch,
        ]
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                async with log.open():
                    for call in calls:
                        tasks.start_soon(ask, call)
                    await wait_all_blocked()
        assert len(told) == 2 * len(calls)
        desk = log._unchecked
        assert not desk.writes
        assert not desk.reads
        assert desk.followed == desk._pages == {}
