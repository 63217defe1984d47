"""The server goes, comes back, hangs, refuses, and forgets."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from coredis import PureToken

from streamkit import StreamCancelled, with_cancellation
from streamkit._redis.part import RegistryPart
from streamkit._redis.session import Session
from streamkit._redis.wire import Settlement
from streamkit.redis import (
    RedisCancelRegistry,
)
from support.valkey import (
    LIMIT,
    MARKS,
    Outage,
    admin,
    fired,
    first_warning,
    new_prefix,
    note_wait,
    registry,
    silent_server,
    two_of_them,
    until,
    warnings_in,
)

pytestmark = MARKS


def session_of(here: RedisCancelRegistry, server: Any) -> Session:
    """What a registry does over a connection to a server."""
    parts = here._ledger, here._leases, here._waiters, here._work
    return RegistryPart("test", 1000, *parts).use(server, server)


class Fails:
    """A server to which nothing can be sent."""

    database = 0
    is_cluster = False

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self._before = before

    def pipeline(self) -> object:
        self._before()
        raise ConnectionResetError


class TestOutage:
    async def test_cancelled_meanwhile(self, outage: Outage) -> None:
        """C21: cancelled elsewhere during the outage: it arrives when the server is back."""
        async with two_of_them(outage.url) as (here, there), here.open("run") as token:
            outage.begin()
            await until(lambda: not (here.connected or there.connected))
            there.cancel("run", "during the outage")
            await anyio.sleep(0.05)
            assert not token.cancelled
            outage.end()
            assert await fired(token) == "during the outage"
            await until(lambda: here.connected and there.connected)

    @pytest.mark.usefixtures("impatient")
    async def test_local(self, outage: Outage) -> None:
        """C21: during the outage, holders in the same process are told, and so are new ones."""
        async with registry(outage.url) as here, here.open("run") as token:
            outage.begin()
            await until(lambda: not here.connected)
            assert here.cancel("run", "stop") == 1
            assert token.reason == "stop"
            here.cancel("next", "early")
            async with here.open("next") as token:
                assert token.reason == "early"
            async with here.open("another") as token:
                assert not token.cancelled

    @pytest.mark.usefixtures("impatient")
    async def test_key_used_again(self, outage: Outage) -> None:
        """C16: a key that is used again during the outage is clean, too."""
        async with registry(outage.url) as here:
            outage.begin()
            await until(lambda: not here.connected)
            for _ in range(2):
                async with here.open("run") as token:
                    assert not token.cancelled
                    assert here.cancel("run", "old") == 1

    async def test_nothing_to_send(self, outage: Outage) -> None:
        """G10: left during the outage with nothing to send: it waits for nothing."""
        async with registry(outage.url) as here:
            outage.begin()
            await until(lambda: not here.connected)

    @pytest.mark.usefixtures("impatient")
    async def test_silent_server(self) -> None:
        """G10: a server that accepts and says nothing is away: entering is bounded."""
        with silent_server() as silent, anyio.fail_after(LIMIT):
            async with registry(silent) as here:
                assert not here.connected

    async def test_refuses_one_key(self, url: str) -> None:
        """C20: something else stands in the place of a cancellation: it is replaced."""
        prefix = new_prefix()
        async with registry(url, prefix) as here, registry(url, prefix) as there:
            async with admin(url) as client:
                await client.lpush(f"{prefix}:cancel:run", ["something else"])
            async with there.open("run") as token, there.open("other") as other:
                here.cancel("run", "stop")
                here.cancel("other", "stop")
                assert [await fired(token), await fired(other)] == ["stop", "stop"]

    async def test_streams_go_on(self, outage: Outage) -> None:
        """C20: the server goes and comes in the middle of a stream: it does not notice."""

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            outage.begin()
            await until(lambda: not here.connected)
            yield 2
            outage.end()
            await until(lambda: here.connected)
            yield 3
            await anyio.sleep_forever()

        async with two_of_them(outage.url) as (here, there):
            async with with_cancellation(source(), here.open("run")) as stream:
                assert [await anext(stream) for _ in range(3)] == [1, 2, 3]
                await until(lambda: there.connected)
                there.cancel("run", "after it")
                with pytest.raises(StreamCancelled, match="after it"):
                    await anext(stream)

    async def test_from_the_start(self, outage: Outage) -> None:
        """C20: the server is not there when the registry is entered: the same as an outage."""
        outage.begin()
        async with two_of_them(outage.url) as (here, there), here.open("run") as token:
            assert not here.connected
            assert "not connected" in repr(here)
            there.cancel("run", "stop")
            outage.end()
            assert await fired(token) == "stop"

    async def test_connection_is_cut(self, url: str) -> None:
        """C16: the server cuts the connections and keeps its memory: no old cancellation is new."""
        async with two_of_them(url) as (here, there), admin(url) as client:
            async with here.open("run") as token:
                there.cancel("run", "old")
                assert await fired(token) == "old"
            await until(lambda: here._work.is_finished)
            async with here.open("run") as token:
                assert not token.cancelled
                for _ in range(2):
                    await client.client_kill(type_=PureToken.PUBSUB)
                    await until(lambda: not here.connected)
                    await until(lambda: here.connected and there.connected)
                    await until(lambda: here._work.is_finished)
                assert not token.cancelled
                there.cancel("run", "new")
                assert await fired(token) == "new"

    async def test_chores_are_kept(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """C16: the connection fails while marks and answers are sent: they are sent again."""
        here = registry(url)
        chores = [Settlement("first"), Settlement("second")]
        here._ledger.put_back(chores)
        with pytest.raises(ConnectionResetError):
            await session_of(here, Fails()).run(lambda: None)
        assert here._ledger.take_chores(10) == chores

    async def test_oldest_chores_go(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """C16: the connection fails with more of them than are kept: the oldest go."""
        monkeypatch.setattr("streamkit._redis.ledger._LIMIT", 3)
        here = registry(url)
        here._ledger.put_back(map(Settlement, ["first", "second", "third"]))
        with pytest.raises(ConnectionResetError):
            await session_of(here, Fails(lambda: here._ledger.end("newest"))).run(lambda: None)
        assert here._ledger.take_chores(10) == list(map(Settlement, ["second", "third", "newest"]))

    async def test_waits_no_more(self, outage: Outage) -> None:
        """T1: who waits gives up before the server is back: it is sent all the same."""
        async with two_of_them(outage.url) as (here, there), there.open("run") as token:
            outage.begin()
            await until(lambda: not here.connected)
            assert not await here.cancel_and_wait("run", "stop", timeout=0.05)
            outage.end()
            assert await fired(token) == "stop"

    async def test_says_so_once(self, outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
        """C20: one warning for each outage, however often it tries, and one that it is over."""
        caplog.set_level(logging.WARNING, "streamkit")
        async with registry(outage.url) as here:
            for _ in range(2):
                outage.begin()
                await until(lambda: not here.connected)
                await anyio.sleep(0.3)
                outage.end()
                await until(lambda: here.connected)
        assert warnings_in(caplog) == ["Redis is away", "Redis is back"] * 2

    async def test_refused(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """C20: the server refuses what it is asked: it says why, and neither key nor reason."""
        prefix = new_prefix()
        user = url.replace("redis://", "redis://listener:any@")
        async with registry(url, prefix) as there, there.open("run") as token:
            async with admin(url) as client:
                await client.acl_setuser(
                    "listener", "on", "nopass", "~*", "&*", "+@all", "-publish"
                )
                async with registry(user, prefix) as here:
                    here.cancel("run", "the reason" * 100)
                    await until(lambda: warnings_in(caplog))
                    await client.acl_setuser("listener", "+publish")
                    assert await fired(token) == "the reason" * 100
        assert warnings_in(caplog) == ["Redis refuses what it is asked", "Redis is back"]
        message = first_warning(caplog)
        assert "AuthorizationError" in message
        assert "'publish'" in message
        assert "the reason" not in message

    async def test_refused_when_it_is_back(
        self, outage: Outage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """C20: the server is back and does not know who asks: that is one more warning."""
        user = outage.url.replace("redis://", "redis://worker:any@")

        async def introduce() -> None:
            async with admin(outage.url) as client:
                await client.acl_setuser("worker", "on", "nopass", "~*", "&*", "+@all")

        await introduce()
        async with registry(user) as here:
            outage.begin()
            await until(lambda: not here.connected)
            outage.end()
            await until(lambda: len(warnings_in(caplog)) == 2)
            await anyio.sleep(0.3)
            await introduce()
            await until(lambda: here.connected)
        assert warnings_in(caplog) == [
            "Redis is away",
            "Redis refuses what it is asked",
            "Redis is back",
        ]

    @pytest.mark.usefixtures("impatient")
    async def test_bounded(self, outage: Outage) -> None:
        """H7: cancellations that wait for the server are bounded: the oldest go."""
        async with registry(outage.url, max_remembered=10) as here:
            outage.begin()
            await until(lambda: not here.connected)
            for number in range(100):
                here.cancel(str(number))
            assert here._ledger.unsent == [str(number) for number in range(90, 100)]

    async def test_bounded_when_it_begins(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """H7: the connection fails with more to be sent than is kept then: the oldest go."""

        def cancel_many() -> None:
            for number in range(100):
                here.cancel(str(number))

        here = registry(url, max_remembered=10)
        here.cancel("first")
        with pytest.raises(ConnectionResetError):
            await session_of(here, Fails(cancel_many)).run(lambda: None)
        assert here._ledger.unsent == [str(number) for number in range(90, 100)]

    async def test_more_waits_than_are_remembered(self, outage: Outage) -> None:
        """C11: more who wait for the server than cancellations are kept: each is answered."""
        results: list[bool] = []

        async with registry(outage.url, max_remembered=2) as here:
            outage.begin()
            await until(lambda: not here.connected)
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tasks:
                    for number in range(5):
                        tasks.start_soon(note_wait, results, here, str(number))
                    await until(lambda: len(here._waiters) == 5)
                    outage.end()
        assert results == [True] * 5

    async def test_wait_through_it(self, outage: Outage) -> None:
        """C11: cancel_and_wait() during an outage waits for the server."""
        async with two_of_them(outage.url) as (here, there):
            outage.begin()
            await until(lambda: not here.connected)
            async with anyio.create_task_group() as tasks:
                results: list[bool] = []

                async with there.open("run") as token:
                    tasks.start_soon(note_wait, results, here)
                    outage.end()
                    await fired(token)
                    assert results == []
            assert results == [True]
