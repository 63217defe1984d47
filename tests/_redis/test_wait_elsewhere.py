"""Wait until the holders in all processes have let go of a key."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest
from coredis import PureToken, Redis
from workers import worker

from streamkit._redis.waiter import Waiter
from streamkit._redis.wire import Cancellation, announcement
from streamkit.redis import (
    RedisCancelRegistry,
)
from support import Backend
from support.valkey import (
    LIMIT,
    MARKS,
    admin,
    fired,
    new_prefix,
    note_wait,
    registry,
    two_of_them,
    until,
)

pytestmark = MARKS


class Peer:
    """A process that holds a key, as far as others can tell: it answers when the test says so."""

    def __init__(self, messages: Any, client: Redis[bytes], name: str) -> None:
        self._messages = messages
        self._client = client
        self.name = name

    async def asked(self, after: tuple[str, str] | None = None) -> tuple[str, str]:
        """Wait for a cancellation, and return its latest request, or the first after another."""
        request = after
        with anyio.fail_after(LIMIT):
            while request == after:
                message = await anext(self._messages)
                channel, number = json.loads(message["data"])["requests"][-1]
                request = channel, number
        assert request is not None
        return request

    async def answer(
        self, request: tuple[str, str], *, holds: bool, process: str | None = None
    ) -> None:
        channel, number = request
        answer = {"request": number, "process": process or self.name, "holds": holds}
        await self._client.publish(channel, json.dumps(answer))


@asynccontextmanager
async def peer(client: Redis[bytes], prefix: str) -> AsyncGenerator[Peer, None]:
    name = process_name(prefix)
    # Not two channels, as those that are no peers.
    channels = [f"{prefix}:cancel", name, f"{prefix}:other"]
    async with client.pubsub(channels=channels, ignore_subscribe_messages=True) as messages:
        yield Peer(messages, client, name)


def process_name(prefix: str) -> str:
    return f"{prefix}:answers:{uuid4().hex}"


async def reconnect(here: RedisCancelRegistry, client: Redis[bytes]) -> None:
    """Cut off the only registry, and no peer, and wait until it has asked anew."""
    for connection in await client.client_list(type_=PureToken.PUBSUB):
        if connection["sub"] == 2:
            await client.client_kill(identifier=connection["id"])
    await until(lambda: not here.connected)
    await until(lambda: here.connected and here._work.is_finished)


class TestCancelAndWait:
    async def test_until_all_have_left(self, url: str) -> None:
        """C11: it returns when the last holder has left, here and there."""
        log: list[str] = []

        async def hold(registry: RedisCancelRegistry, name: str) -> None:
            async with registry.open("run") as token:
                log.append("held")
                await token.wait()
                await anyio.sleep(0.05)
                log.append(f"{name} left")

        async with two_of_them(url) as (here, there):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold, here, "here")
                tasks.start_soon(hold, there, "there")
                tasks.start_soon(hold, there, "there, too")
                await until(lambda: log == ["held"] * 3)
                with anyio.fail_after(LIMIT):
                    assert await here.cancel_and_wait("run")
                assert sorted(log[3:]) == ["here left", "there left", "there, too left"]

    async def test_many(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """C11: more at once than answers are kept during an outage: each is answered."""
        monkeypatch.setattr("streamkit._redis.ledger._LIMIT", 5)
        results: list[bool] = []

        async def hold(key: str) -> None:
            async with there.open(key) as token:
                await token.wait()

        async with two_of_them(url) as (here, there):
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tasks:
                    for number in range(50):
                        tasks.start_soon(hold, str(number))
                    await until(lambda: len(there) == 50)
                    for number in range(50):
                        tasks.start_soon(note_wait, results, here, str(number))
        assert results == [True] * 50

    async def test_nobody(self, url: str) -> None:
        """C20: nobody holds the key: it returns when all have said so."""
        async with two_of_them(url) as (here, _), here.open("other"):
            with anyio.fail_after(LIMIT):
                assert await here.cancel_and_wait("run")

    async def test_timeout(self, url: str) -> None:
        """T1: a holder that takes its time is waited for no longer than said."""
        async with two_of_them(url) as (here, there), there.open("run") as token:
            assert not await here.cancel_and_wait("run", "stop", timeout=0.1)
            assert await token.wait() == "stop"
            assert not here._waiters
            with pytest.raises(ValueError, match="timeout must be"):
                await here.cancel_and_wait("run", timeout=-1)

    async def test_connection_is_cut(self, url: str) -> None:
        """C11: the answers are lost with the connection: it asks again."""
        results: list[bool] = []

        async with two_of_them(url) as (here, there), admin(url) as client:
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tasks:
                    async with there.open("run") as token:
                        tasks.start_soon(note_wait, results, here)
                        await fired(token)
                        await until(lambda: not here._ledger.unsent)
                        await client.client_kill(type_=PureToken.PUBSUB)
                        await until(lambda: not (here.connected or there.connected))
                        await until(lambda: here.connected and there.connected)
                        assert results == []
            assert results == [True]

    async def test_answers_over_another_connection(self, url: str) -> None:
        """C11: it asks again: who has answered before is no answer of who is asked now."""
        prefix = new_prefix()
        results: list[bool] = []

        async with (
            admin(url) as client,
            peer(client, prefix) as holder,
            registry(url, prefix) as here,
            anyio.create_task_group() as tasks,
            here.open("other") as token,
        ):
            async with registry(url, prefix):
                tasks.start_soon(note_wait, results, here)
                first = await holder.asked()
                await until(lambda: len(here._waiters.all()[0]._answered) == 2)
            await reconnect(here, client)
            second = await holder.asked(after=first)
            # That of one who was asked before comes late.
            await holder.answer(first, holds=False, process=process_name(prefix))
            content = Cancellation("other", "id", None).content
            await client.publish(f"{prefix}:cancel", announcement("other", content, []))
            await fired(token)
            assert results == []
            await holder.answer(second, holds=False)
            with anyio.fail_after(LIMIT):
                await until(lambda: results)
        assert results == [True]

    async def test_holder_that_is_not_asked_again(self, url: str) -> None:
        """C11: a process says that it holds the key, and is then cut off: it is waited for."""
        prefix = new_prefix()
        results: list[bool] = []

        async with (
            admin(url) as client,
            registry(url, prefix) as here,
            anyio.create_task_group() as tasks,
        ):
            async with peer(client, prefix) as holder:
                tasks.start_soon(note_wait, results, here)
                request = await holder.asked()
                await holder.answer(request, holds=True)
                await until(lambda: here._waiters.all()[0]._holding)
            await reconnect(here, client)
            assert results == []
            await holder.answer(request, holds=False)
            with anyio.fail_after(LIMIT):
                await until(lambda: results)
        assert results == [True]

    async def test_holder_that_is_killed(self, backend: Backend, url: str) -> None:
        """C20: a holder dies without a word: the wait is over soon after, and says so."""
        prefix, results = new_prefix(), list[bool]()
        with worker(backend, url, prefix) as process:
            async with registry(url, prefix) as here, anyio.create_task_group() as tasks:
                os.kill(process.pid, signal.SIGSTOP)
                tasks.start_soon(note_wait, results, here)
                await anyio.sleep(0.2)
                assert results == []
                process.kill()
                with anyio.fail_after(LIMIT / 2):
                    await until(lambda: results)
        assert results == [True]

    async def test_holder_that_has_answered_and_dies(self, url: str) -> None:
        """C20: a holder says that it holds the key, and dies: it is not waited for any longer."""
        prefix, results = new_prefix(), list[bool]()
        async with (
            admin(url) as client,
            registry(url, prefix) as here,
            anyio.create_task_group() as tasks,
        ):
            async with peer(client, prefix) as holder:
                tasks.start_soon(note_wait, results, here)
                await holder.answer(await holder.asked(), holds=True)
                await until(lambda: here._waiters.all()[0]._holding)
            with anyio.fail_after(LIMIT / 2):
                await until(lambda: results)
        assert results == [True]

    async def test_holder_that_is_missing_for_a_moment(self, url: str) -> None:
        """C11: a holder is not there at one look, and there at the next: it is waited for."""
        prefix, results = new_prefix(), list[bool]()
        async with (
            admin(url) as client,
            registry(url, prefix) as here,
            anyio.create_task_group() as tasks,
        ):
            async with peer(client, prefix) as holder:
                tasks.start_soon(note_wait, results, here)
                request = await holder.asked()
                await holder.answer(request, holds=True)
                await until(lambda: here._waiters.all()[0]._holding)
            waiter = here._waiters.all()[0]
            await until(lambda: waiter._missing)
            channels = [holder.name, f"{prefix}:other", f"{prefix}:another"]
            async with client.pubsub(channels=channels):
                await until(lambda: not waiter._missing)
                await anyio.sleep(1.5)
                assert results == []
                await holder.answer(request, holds=False)
                with anyio.fail_after(LIMIT):
                    await until(lambda: results)
        assert results == [True]

    async def test_message_that_is_lost(self, url: str) -> None:
        """C11: a process is there and does not answer: it is asked again, under the same number."""
        prefix, results = new_prefix(), list[bool]()
        async with (
            admin(url) as client,
            peer(client, prefix) as holder,
            registry(url, prefix) as here,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(note_wait, results, here)
            first = await holder.asked()
            assert await holder.asked() == first
            assert results == []
            await holder.answer(first, holds=False)
            with anyio.fail_after(LIMIT):
                await until(lambda: results)
        assert results == [True]

    async def test_who_listens_to_everything(self, url: str) -> None:
        """C20: some other program is subscribed to all channels: it is not waited for."""
        prefix = new_prefix()
        async with (
            admin(url) as client,
            client.pubsub(patterns=["*"], channels=[f"{prefix}:cancel"]),
            registry(url, prefix) as here,
        ):
            with anyio.fail_after(LIMIT / 2):
                assert await here.cancel_and_wait("run")

    async def test_registry_is_left(self, url: str) -> None:
        """G9: the registry is left during the wait: it ends, and says that it was not in time."""
        results: list[bool] = []

        async with anyio.create_task_group() as tasks:
            prefix = new_prefix()
            async with registry(url, prefix) as there, there.open("run") as token:
                async with registry(url, prefix) as here:
                    tasks.start_soon(note_wait, results, here)
                    await fired(token)
                with anyio.fail_after(LIMIT):
                    await until(lambda: results)
        assert results == [False]
        with pytest.raises(RuntimeError, match="async with registry:"):
            await here.cancel_and_wait("run")

    async def test_registry_is_left_before_its_holder(self, url: str) -> None:
        """G9: the same where a holder in this process outlives the block."""
        results: list[bool] = []

        with ExitStack() as holders:
            async with anyio.create_task_group() as tasks:
                async with registry(url) as here:
                    token = holders.enter_context(here.open("run"))
                    tasks.start_soon(note_wait, results, here)
                    await fired(token)
                with anyio.fail_after(LIMIT):
                    await until(lambda: results)
        assert results == [False]

    async def test_registry_was_left_just_now(self, url: str) -> None:
        """H2: another thread begins to wait as the registry is left: that is no wait for ever."""
        async with registry(url) as here:
            # What the end of the block does, between two steps of the call.
            here._waiters.give_up()
            with anyio.fail_after(LIMIT):
                assert not await here.cancel_and_wait("run")

    async def test_by_a_holder(self, url: str) -> None:
        """G15: a task that waits for itself is told so at once, and nobody is cancelled."""
        async with two_of_them(url) as (here, there), there.open("run") as token:
            async with here.open("run"):
                with pytest.raises(RuntimeError, match="wait for ever"):
                    await here.cancel_and_wait("run")
            assert not token.cancelled

    async def test_asked_while_it_is_sent(self, url: str) -> None:
        """C14: somebody wants to wait while the cancellation is on its way: it is sent again."""

        class AsksAgain(Waiter):
            def expect(self, published: Cancellation, processes: Iterable[str]) -> None:
                super().expect(published, set(processes))
                here._ledger.ask(self.cancellation, second.request)

        async with two_of_them(url) as (here, _), here.open("other"):
            cancellation = here._ledger.send("run", None)
            first, second = AsksAgain(cancellation), Waiter(cancellation)
            here._waiters.add(first)
            here._waiters.add(second)
            here._ledger.ask(cancellation, first.request)
            with anyio.fail_after(LIMIT):
                await first.wait()
                await second.wait()

    async def test_twice_at_once(self, url: str) -> None:
        """C14: two who wait for the same key are both answered."""
        results: list[bool] = []

        async with two_of_them(url) as (here, there):
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tasks:
                    async with there.open("run") as token:
                        for reason in "a", "b":
                            tasks.start_soon(note_wait, results, here, "run", reason)
                        assert await fired(token) in ("a", "b")
                        assert results == []
        assert results == [True, True]
