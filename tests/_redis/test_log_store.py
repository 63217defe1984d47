"""What a log in Redis leaves in the server, and what it does when that is full, small or slow."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import anyio
import coredis
import pytest
from runners import Reader, kill, log_of, readers, runner

from streamkit import StreamCancelled
from streamkit.redis import Redis, RedisCancelRegistry, RedisLog
from streamkit.runs import (
    Entry,
    Fenced,
    LogFull,
    LogUnavailable,
    Page,
    Requests,
    RunCancelled,
    RunExists,
    RunLost,
    RunNotFound,
    Runs,
    Terms,
)
from support import Backend, wait_all_blocked
from support.proxy import proxy_to
from support.runs import end_of
from support.valkey import (
    LOG_RIGHTS,
    MARKS,
    admin,
    admin_url,
    new_prefix,
    start_server,
    until,
    url_of,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS


@pytest.fixture(autouse=True)
def _short_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit._redislog.log.DOUBT", 1.0)


async def numbers(last: int) -> AsyncGenerator[int, None]:
    for number in range(1, last + 1):
        yield number


async def items(runs: Runs, run_id: str, after: Any = None) -> list[Any]:
    async with runs.attach(run_id, after=after) as stream:
        return [entry.item async for entry in stream]


async def ended(runs: Runs, run_id: str) -> None:
    with anyio.fail_after(20):
        while (await runs.get(run_id)).outcome is None:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("option", ["keep", "lease"])
async def test_for_ever(url: str, option: str) -> None:
    """What is longer than the server can count is as long as it can."""
    prefix = new_prefix()
    options = {"keep": 1.0, "lease": 3.0, option: float(sys.maxsize)}
    log = log_of(url, prefix, lease=options["lease"])
    async with admin(url) as client, Runs(log, keep=options["keep"]) as runs:
        info = await runs.start(numbers(3))
        assert await items(runs, info.id) == [1, 2, 3]
        assert await client.pttl(f"{prefix}:run:{{{info.id}}}:meta") > 0


async def test_nothing_is_left(url: str) -> None:
    """When all that is kept has had its time, nothing is left; and no other name was touched."""
    prefix = new_prefix()
    async with admin(url) as client, Runs(log_of(url, prefix), keep=5.0) as runs:
        await client.set(f"{prefix}x:run:{{a}}:meta", "theirs")
        for run_id in "a", "b":
            await runs.start(numbers(100), id=run_id)
            await ended(runs, run_id)
        await runs.cancel("c")
        found = await client.keys(f"{prefix}:*")
        assert found
        for name in found:
            assert 0 < await client.pttl(name) <= 60_000
        with anyio.fail_after(30):
            while await client.keys(f"{prefix}:*") != {f"{prefix}:run:{{c}}:early".encode()}:
                await anyio.sleep(0.2)
        assert await client.keys(f"{prefix}*") - await client.keys(f"{prefix}:*") == {
            f"{prefix}x:run:{{a}}:meta".encode()
        }


async def test_keys_outlive_the_lease(url: str) -> None:
    """A run that goes on has keys that live for its lease and what it is kept, or a minute."""
    prefix = new_prefix()
    log = log_of(url, prefix, lease=9.0)
    async with admin(url) as client, log.open():
        for run_id, keep in ("a", 90.0), ("b", 0.0):
            await log.create(run_id, "0e", Terms(keep=keep), ignore)
            await log.append(run_id, "0e", 1, [b"one"], acknowledged=0, first=1)
            most = round(1000 * (12 + max(keep, 60)))
            for what in "meta", "entries":
                left = await client.pttl(f"{prefix}:run:{{{run_id}}}:{what}")
                assert most - 5_000 < left <= most


async def test_lost_and_kept_for_no_time(url: str) -> None:
    """A run that is kept for no time is lost as any other, and who reads it is told."""
    prefix = new_prefix()
    log, dying = (log_of(url, prefix, lease=0.3, reconcile=0.5) for _ in range(2))
    async with Runs(log) as runs, dying.open():
        await dying.create("run", "0e", Terms(keep=0.0), ignore)
        await dying.append("run", "0e", 1, [b"\x01tone"], acknowledged=0, first=1)
        entries, error = await end_of(runs, "run")
        assert entries == ["one"]
        assert isinstance(error, RunLost)


def ignore(requests: Requests) -> None:
    pass


async def test_large(url: str) -> None:
    """Items that are not published, since they are large, are read; as are those before them."""
    prefix = new_prefix()
    texts = ["x" * size for size in (1, 9_000, 2, 70_000, 300_000, 3, 8_192)]

    async def source() -> AsyncGenerator[str, None]:
        for text in texts:
            yield text
            await anyio.sleep(0.05)

    async with Runs(log_of(url, prefix)) as runs, Runs(log_of(url, prefix)) as there:
        await runs.start(source(), id="run")
        assert await items(there, "run") == texts
        assert await items(there, "run", 3) == texts[3:]


async def test_far_behind(url: str) -> None:
    """Who begins late reads page by page, and then hears."""
    prefix = new_prefix()
    async with Runs(log_of(url, prefix), max_items=10**6) as runs:
        await runs.start(numbers(5_000), id="run")
        async with Runs(log_of(url, prefix)) as there:
            assert await items(there, "run") == list(range(1, 5_001))
            assert await items(there, "run", 4_321) == list(range(4_322, 5_001))


async def test_trimmed_and_followed(url: str) -> None:
    """A run that keeps little is followed by who is fast enough."""
    prefix = new_prefix()

    async def source() -> AsyncGenerator[int, None]:
        for number in range(1, 301):
            yield number
            await anyio.sleep(0.002)

    async with Runs(log_of(url, prefix), max_items=150) as runs, Runs(log_of(url, prefix)) as there:
        await runs.start(source(), id="run")
        assert await items(there, "run") == list(range(1, 301))
        assert (await there.get("run")).first > 100


async def test_left_with_an_error(url: str) -> None:
    """E1: what leaves the block of a log is that, and in no group; the log may be opened again."""
    log = log_of(url, new_prefix())
    error = LookupError("body")
    with pytest.raises(LookupError) as caught:
        async with log.open():
            raise error
    assert caught.value is error
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        assert (await log.get("a")).last == 0


async def test_races(url: str) -> None:
    """Two logs create a run of the same id at once, 500 times: one of them does."""
    prefix = new_prefix()
    here, there = log_of(url, prefix), log_of(url, prefix)

    async def create(log: RedisLog, run_id: str, epoch: str, won: list[str]) -> None:
        try:
            await log.create(run_id, epoch, Terms(), ignore)
        except RunExists:
            return
        won.append(epoch)

    async with here.open(), there.open():
        for begin in range(0, 500, 50):
            all_won: list[list[str]] = [[] for _ in range(50)]
            async with anyio.create_task_group() as tasks:
                for number, won in enumerate(all_won, start=begin):
                    for log, epoch in (here, "0a"), (there, "0b"):
                        tasks.start_soon(create, log, str(number), epoch, won)
            assert [len(won) for won in all_won] == [1] * 50
            for number in begin, begin + 49:
                assert all_won[number - begin] == [(await there.get(str(number))).epoch]


async def test_dropped_entries(url: str) -> None:
    """The server has dropped the entries of a run: who reads waits until they are written again,
    but no longer than for an outage, and not for a run that has ended."""
    prefix = new_prefix()
    patient, log = log_of(url, prefix), log_of(url, prefix, outage=0.3)
    entries = [b"%d" % number for number in range(1, 6)]
    pages: list[Page] = []

    async def read() -> None:
        # Between being told that they are gone and having them again, the server knows of none.
        while not (page := await patient.read("a", 0)).entries:
            await anyio.sleep(0.01)
        pages.append(page)

    async with admin(url) as client, log.open(), patient.open():
        await log.create("a", "0e", Terms(), ignore)
        await log.append("a", "0e", 1, entries, acknowledged=0, first=1)
        await client.delete([f"{prefix}:run:{{a}}:entries"])
        with pytest.raises(RunNotFound):
            await log.read("a", 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(0.3)
            assert not pages
            await log.append("a", "0e", 6, [b"6"], acknowledged=5, first=1)
        assert list(pages[0].entries)[:5] == entries
        await client.delete([f"{prefix}:run:{{a}}:entries"])
        await log.end("a", "0e", b"end")
        with pytest.raises(RunNotFound):
            await patient.read("a", 0)


@pytest.mark.parametrize("how", ["append", "renew", "end"])
async def test_what_was_lost_is_written_again(url: str, how: str) -> None:
    """The server has lost the last entries, which are found missing by whatever is written next."""
    prefix = new_prefix()
    log = log_of(url, prefix)
    entries = [b"%d" % number for number in range(1, 7)]
    async with admin(url) as client, log.open():
        await log.create("a", "0e", Terms(), ignore)
        await log.append("a", "0e", 1, entries[:5], acknowledged=0, first=1, head=201)
        await client.hset(f"{prefix}:run:{{a}}:meta", {"last": 2})
        await client.xdel(f"{prefix}:run:{{a}}:entries", ["3-0", "4-0", "5-0"])
        if how == "append":
            await log.append("a", "0e", 6, entries[5:], acknowledged=5, first=1)
        elif how == "renew":
            assert not (await log.renew("a", "0e")).fenced
        else:
            assert await log.end("a", "0e", b"end")
        page = await log.read("a", 0)
        assert list(page.entries) == entries[: page.last]
        assert (page.last, page.head) == (6 if how == "append" else 5, 201)


@pytest.mark.parametrize("how", ["append", "renew", "end"])
async def test_what_was_lost_is_here_no_more(
    url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What the server has lost cannot be written again: nothing is, and the run is dead at once."""
    monkeypatch.setattr("streamkit._redislog.ring._SECONDS", -1.0)
    prefix = new_prefix()
    log = log_of(url, prefix, lease=30.0)
    async with admin(url) as client, log.open():
        await log.create("a", "0e", Terms(), ignore)
        await log.append("a", "0e", 1, [b"1", b"2"], acknowledged=0, first=1)
        await client.hset(f"{prefix}:run:{{a}}:meta", {"last": 1})
        if how == "append":
            assert (await log.append("a", "0e", 3, [b"3"], acknowledged=2, first=1)).fenced
        elif how == "renew":
            assert (await log.renew("a", "0e")).fenced
        else:
            assert await log.end("a", "0e", b"end") is False
        record = await log.get("a")
        assert (record.last, record.outcome, record.lapsed) == (1, None, True)
        assert (await log.renew("a", "0e")).fenced
        assert await log.bury("a", "0e", b"lost") == "doubted"


async def test_answer_to_an_end_is_lost(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended a run is sent again, for its answer was lost: it has ended it, still."""
    log = log_of(url, new_prefix(), lease=0.2)
    async with log.open():
        for run_id in "a", "b":
            await log.create(run_id, "0e", Terms(), ignore)
        monkeypatch.setattr("secrets.token_hex", lambda size: "00")
        for _ in range(2):
            assert await log.end("a", "0e", b"end")
        with anyio.fail_after(10):
            while await log.bury("b", "0e", b"lost") != "buried":
                await anyio.sleep(0.1)
        assert await log.bury("b", "0e", b"lost") == "buried"
        monkeypatch.setattr("secrets.token_hex", lambda size: "01")
        assert not await log.end("a", "0e", b"end")
        assert await log.bury("b", "0e", b"lost") == "gone"


async def test_much_at_once(url: str) -> None:
    """What is too much for one script is written in pieces, and none of them twice."""
    log = log_of(url, new_prefix())
    entries = [
        bytes([number]) * size for number, size in enumerate([700_000, 500_000, 3, 2_000_000])
    ]
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        for _ in range(2):
            await log.append("a", "0e", 1, entries, acknowledged=0, first=1)
        await log.append("a", "0e", 5, [b"five"], acknowledged=4, first=1)
        seen: list[bytes] = []
        while page := (await log.read("a", len(seen))).entries:
            seen += page
        assert seen == [*entries, b"five"]
        await log.end("a", "0e", b"end")
        assert (await log.append("a", "0e", 6, entries, acknowledged=5, first=1)).fenced


@pytest.mark.parametrize("alive", [1, 10**13])
async def test_clock_is_put(url: str, backend: Backend, alive: int) -> None:
    """The clock of the server is put, by years: who lives is not buried, and who dies is."""
    prefix = new_prefix()
    # It renews its lease less often than it is doubted.
    log = log_of(url, prefix, lease=30.0)
    with runner(backend, url, prefix) as process:
        async with (
            admin(url) as client,
            Runs(log) as runs,
            Runs(log_of(url, prefix)) as there,
            readers(there) as some,
        ):
            run = await runs.start(quiet(), id="quiet")
            reader = Reader(there, "quiet")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader.read)
                await reader.until(1)
                process.kill()
                for run_id in "quiet", "run":
                    await client.hset(f"{prefix}:run:{{{run_id}}}:meta", {"alive": alive})
                assert isinstance(await some[0].over(), RunLost)
                await anyio.sleep(3)
                assert (await runs.get(run.id)).outcome is None
                await runs.cancel(run.id)


async def quiet() -> AsyncGenerator[str, None]:
    yield "x"
    await anyio.sleep_forever()


async def test_entries_are_lost(url: str) -> None:
    """The server has dropped the entries of a run that has ended: there is no such run."""
    prefix = new_prefix()
    async with admin(url) as client, Runs(log_of(url, prefix)) as runs:
        await runs.start(numbers(5), id="a")
        await ended(runs, "a")
        await client.delete([f"{prefix}:run:{{a}}:entries"])
        with pytest.raises(RunNotFound):
            await items(runs, "a")


async def test_created_late(url: str) -> None:
    """A call that creates a run comes when that was removed: it is not made anew."""
    log = log_of(url, new_prefix())
    async with log.open():
        await log.create("a", "0e", Terms(), ignore)
        await log.end("a", "0e", b"end")
        await log.delete("a", "0e")
        with pytest.raises(RunExists):
            await log.create("a", "0e", Terms(), ignore)
        await log.create("a", "0f", Terms(), ignore)
        with pytest.raises(ValueError, match="cannot follow 0"):
            await log.append("a", "0f", 2, [b"two"], acknowledged=0, first=1)


async def test_start_that_has_no_answer(url: str) -> None:
    """Nobody learns whether a run was created: it is removed when the server can be reached."""
    prefix = new_prefix()
    port = int(url.rpartition(":")[2])
    with proxy_to(port) as proxy:
        way = url.replace(str(port), str(proxy.port))
        async with (
            Runs(log_of(way, prefix, outage=2.0)) as runs,
            Runs(log_of(url, prefix)) as there,
        ):
            # The server knows the script by then.
            await runs.start(numbers(1))
            proxy.be("mute")
            with pytest.raises(LogUnavailable):
                await runs.start(numbers(1), id="a")
            assert (await there.get("a")).last == 0
            proxy.be("open")
            with anyio.fail_after(20):
                while not await is_gone(there, "a"):
                    await anyio.sleep(0.1)


async def is_gone(runs: Runs, run_id: str) -> bool:
    try:
        await runs.get(run_id)
    except RunNotFound:
        return True
    return False


@pytest.mark.parametrize("first", [0, 1])
async def test_left_in_any_order(url: str, first: int) -> None:
    """Two have opened a log, and leave in any order: who stays notices nothing."""
    log = log_of(url, new_prefix())
    leaving = [anyio.Event(), anyio.Event()]
    gone = [anyio.Event(), anyio.Event()]

    async def use(number: int) -> None:
        async with log.open():
            await leaving[number].wait()
        gone[number].set()

    async with anyio.create_task_group() as tasks:
        for number in 0, 1:
            tasks.start_soon(use, number)
            await wait_all_blocked()
        await log.create("a", "0e", Terms(), ignore)
        async with log.watch("a") as watch:
            leaving[first].set()
            await gone[first].wait()
            await log.append("a", "0e", 1, [b"one"], acknowledged=0, first=1)
            with anyio.fail_after(5):
                while not (await log.read("a", 0)).entries:
                    await watch.wait()
        assert log.connected
        leaving[1 - first].set()
    assert not log.connected
    assert "not connected" in repr(log)


async def test_the_block_is_cancelled(url: str) -> None:
    """The program is cancelled: runs have their grace, and their end is written."""
    prefix = new_prefix()

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "one"
            await anyio.sleep_forever()
        except StreamCancelled:
            await anyio.sleep(0.1)
            yield "two"

    with anyio.CancelScope() as scope:
        async with Runs(log_of(url, prefix)) as runs:
            await runs.start(source(), id="a")
            await until_read(runs, "a")
            scope.cancel()
            await anyio.sleep_forever()
    async with Runs(log_of(url, prefix)) as runs:
        seen: list[Any] = []
        with pytest.raises(RunCancelled, match="Shutdown"):
            async with runs.attach("a") as stream:
                async for entry in stream:
                    seen.append(entry.item)
        assert seen == ["one", "two"]


async def test_opened_without_a_server() -> None:
    """There is no server: the log is open after a moment, and who uses it is told."""
    log = log_of("redis://127.0.0.1:1", new_prefix(), outage=0.5)
    async with log.open():
        with pytest.raises(LogUnavailable):
            await log.get("a")
        with pytest.raises(LogUnavailable):
            async with log.watch("a"):
                raise AssertionError("must not be entered")
        assert not log.connected


async def test_memory_is_full(backend: Backend) -> None:
    """The server has no memory left: sources are told, and no run starts; ends and cancels work."""
    server = start_server(maxmemory="8mb")
    url, prefix = url_of(server), new_prefix()
    reasons: list[object] = []

    async def on_end(outcome: Any, info: Any) -> None:
        reasons.append(outcome.reason)

    async def loud() -> AsyncGenerator[str, None]:
        while True:
            yield "x" * 100_000

    try:
        async with Runs(log_of(url, prefix), max_bytes=10**9) as runs:
            await runs.start(quiet(), id="quiet")
            await until_read(runs, "quiet")
            await runs.start(loud(), id="loud", on_end=on_end)
            await ended(runs, "loud")
            assert [type(reason) for reason in reasons] == [LogFull]
            async with admin(url) as client:
                # Less than it has.
                await client.config_set({"maxmemory": "1mb"})
            with pytest.raises(LogFull):
                await runs.start(quiet())
            # Its lease goes on.
            await anyio.sleep(3)
            assert (await runs.get("quiet")).outcome is None
            assert await runs.cancel_and_wait("quiet", "stop", timeout=10)
            with pytest.raises(RunCancelled):
                await items(runs, "quiet")
    finally:
        server.terminate()


async def until_read(runs: Runs, run_id: str) -> Entry[Any]:
    async with runs.attach(run_id) as stream:
        async for entry in stream:
            return entry
    raise AssertionError("there is none")


async def test_eviction(backend: Backend) -> None:
    """The server drops keys for want of memory: a run ends, or is followed as before."""
    server = start_server(**{"maxmemory": "6mb", "maxmemory-policy": "allkeys-random"})
    url, prefix = url_of(server), new_prefix()
    try:
        with runner(backend, url, prefix):
            async with (
                Runs(log_of(url, prefix)) as runs,
                admin(url) as client,
                readers(runs) as some,
            ):
                for number in range(300):
                    await client.set(f"filler{number}", "x" * 50_000)
                    if some[0].is_over.is_set():
                        break
                if not some[0].is_over.is_set():
                    await runs.cancel_and_wait("run", timeout=20)
    finally:
        server.terminate()


async def test_small_output_buffer(backend: Backend) -> None:
    """Who is subscribed is cut off, since too much waits for it: nothing is missed."""
    server = start_server(**{"client-output-buffer-limit": "pubsub 1kb 1kb 1"})
    url, prefix = url_of(server), new_prefix()

    async def source() -> AsyncGenerator[str, None]:
        for number in range(200):
            yield str(number) * 1_000
            await anyio.sleep(0.002)

    try:
        async with (
            Runs(log_of(url, prefix, outage=50.0)) as runs,
            Runs(log_of(url, prefix, outage=50.0)) as there,
        ):
            await runs.start(source(), id="run")
            assert await items(there, "run") == [str(number) * 1_000 for number in range(200)]
    finally:
        server.terminate()


async def test_rolled_back_too_far(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server has lost is here no more: the run is lost, and no position is reused."""
    monkeypatch.setattr("streamkit._redislog.ring._SECONDS", 0.3)
    server = start_server(data_dir=tmp_path)
    url, prefix = url_of(server), new_prefix()
    told: list[object] = []

    async def source() -> AsyncGenerator[int, None]:
        number = 0
        while True:
            number += 1
            yield number
            await anyio.sleep(0.01)

    async def on_end(outcome: Any, info: Any) -> None:
        told.append(outcome.reason)

    try:
        async with (
            Runs(log_of(url, prefix)) as runs,
            Runs(log_of(url, prefix)) as there,
        ):
            await runs.start(source(), id="run", on_end=on_end)
            async with admin(url) as client:
                await client.save()
            await anyio.sleep(1)
            kill(server)
            server = start_server(server.port, data_dir=tmp_path)
            reader = Reader(there)
            await reader.read()
            assert isinstance(reader.error, RunLost)
            reader.check()
            assert told == [Fenced()]
    finally:
        server.terminate()


async def test_nothing_is_left_in_memory(url: str) -> None:
    """Many runs were produced, read and forgotten: nothing of them is left here."""
    log = log_of(url, new_prefix())
    async with Runs(log, keep=0.0) as runs:

        async def start_and_read(number: int) -> None:
            await runs.start(numbers(3), id=f"run{number}", keep=30.0)
            assert await items(runs, f"run{number}") == [1, 2, 3]

        for begin in range(0, 200, 50):
            async with anyio.create_task_group() as tasks:
                for number in range(begin, begin + 50):
                    tasks.start_soon(start_and_read, number)
        desk: Any = log._desk
        assert desk.produced == desk.followed == desk._listeners == desk._pages == {}
        link: Any = log._opened._link
        channels = link._line._channels
        [subscription] = channels._subscriptions.values()
        await until(lambda: len(channels._listeners) == 1 and not subscription._unconfirmed)
        assert len(channels._subscribed) == 1
        assert len(desk._subscribed) == 0


async def test_used_where_it_is_not_open(url: str) -> None:
    """Misuse: a log is asked where it is not open: an error, and nothing that nobody answers."""
    log = log_of(url, new_prefix())
    for advice in "never", "no more":
        with pytest.raises(RuntimeError, match="is not open: write 'async with Runs"):
            await log.get(advice)
        with pytest.raises(RuntimeError, match="is not open: write 'async with Runs"):
            log.watch(advice)
        async with log.open(), log.open():
            with pytest.raises(RunNotFound):
                await log.get(advice)


async def test_open_in_another_thread(url: str) -> None:
    """Misuse: a log is asked, or opened once more, in another event loop: an error, early."""
    log = log_of(url, new_prefix())

    async def open_it() -> None:
        with pytest.raises(RuntimeError, match="in the event loop of another thread"):
            await log.get("run")
        async with log.open():
            raise AssertionError("it is open elsewhere")

    async with log.open():
        with pytest.raises(RuntimeError, match="in the event loop of another thread"):
            await anyio.to_thread.run_sync(anyio.run, open_it)


async def test_one_connection_for_both(url: str) -> None:
    """A registry and two logs share a connection that is subscribed, and one for commands."""
    prefix = new_prefix()
    async with (
        admin(url) as client,
        Redis(admin_url(url), client_name=prefix.replace(":", "-")) as redis,
        RedisCancelRegistry(redis, prefix=prefix) as registry,
        Runs(log_of(redis, prefix)) as runs,
        Runs(log_of(redis, f"{prefix}:other")) as others,
    ):
        for some in runs, others:
            await some.start(numbers(10), id="run")
            assert await items(some, "run") == list(range(1, 11))
        async with registry.open("key") as token:
            registry.cancel("key", "why")
            assert token.reason == "why"
        names = [each["name"] for each in await client.client_list()]
        assert names.count(prefix.replace(":", "-")) == 2


async def test_database(url: str) -> None:
    """Two logs in two databases of a server have nothing to do with each other."""
    url, prefix = admin_url(url), new_prefix()
    async with Runs(log_of(url, prefix)) as zero, Runs(log_of(f"{url}/3", prefix)) as three:
        for runs, last in (zero, 3), (three, 5):
            await runs.start(numbers(last), id="run")
            assert await items(runs, "run") == list(range(1, last + 1))
        async with coredis.Redis.from_url(url) as client:
            assert await client.publish(f"{prefix}:run:{{run}}:news", b"") == 0


async def test_right_that_is_missing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """C20: the server refuses one command of the scripts: that is told, until it is allowed."""
    rights = [each for each in LOG_RIGHTS.split() if each != "+xtrim"]
    async with admin(url) as client:
        await client.acl_setuser("poor", "reset", "on", "nopass", *rights)
        poor = f"redis://poor:any@{url.rpartition('@')[2]}"
        log = log_of(poor, new_prefix())
        async with log.open():
            assert not log.connected
            assert "Redis refuses what it is asked" in caplog.text
            await client.acl_setuser("poor", "+xtrim")
            await until(lambda: log.connected)
            await log.create("a", "0e", Terms(), ignore)


def test_misuse() -> None:
    """Misuse: what cannot be is told at once."""
    make: Any = RedisLog
    for wrong in {"lease": 0}, {"outage": -1.0}, {"reconcile": math.inf}, {"max_held": 0}:
        with pytest.raises(ValueError, match="must be"):
            make("redis://localhost", prefix="chat", **wrong)
    with pytest.raises(TypeError, match="max_held must be an int"):
        make("redis://localhost", prefix="chat", max_held=1.5)
    with pytest.raises(ValueError, match="prefix must be a name"):
        make("redis://localhost", prefix="")
    with pytest.raises(TypeError, match="unknown options"):
        make("redis://localhost", prefix="chat", colour="red")
    with pytest.raises(TypeError, match="to its own object"):
        make(Redis("redis://localhost"), prefix="chat", ssl_context=None)


async def test_not_open() -> None:
    """Misuse: a shared connection is not open: this is said where the log is to be opened."""
    log = RedisLog(Redis("redis://localhost"), prefix="chat")
    assert not log.connected
    with pytest.raises(RuntimeError, match="is not open"):
        async with log.open():
            raise AssertionError("must not be entered")
