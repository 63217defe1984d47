"""One connection and its users, without a server: what takes luck to happen with one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import anyio
import coredis
import pytest
from coredis.exceptions import AuthorizationError, ClusterDownError, MovedError, ReadOnlyError

from streamkit._redis.line import Line, is_refusal
from streamkit._redis.link import Link
from streamkit._redis.server import Server
from streamkit._redis.store import _answer
from streamkit._redis.subscription import Subscription
from streamkit.redis import Redis, RedisCancelRegistry
from support import wait_all_blocked

# coredis 6.9 leaves streams of its own unclosed.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

REFUSED = AuthorizationError("no")


class FakeSubscription:
    """What notes who is subscribed."""

    def __init__(self) -> None:
        self.channels: list[str] = []

    async def subscribe(self, channels: tuple[str, ...]) -> None:
        self.channels.extend(channels)

    async def unsubscribe(self, channels: list[str]) -> None:
        for channel in channels:
            self.channels.remove(channel)

    async def listen(self, receive: Callable[[str, object], None]) -> None:
        self.receive = receive
        await anyio.sleep_forever()

    async def keep_alive(self, every: float) -> None:
        await anyio.sleep_forever()

    def close(self) -> None:
        pass


class FakeServer:
    """A server with one connection."""

    def __init__(self) -> None:
        self.subscription = FakeSubscription()

    def place_of(self, channel: str) -> None:
        return None

    async def open_subscription(self, node: None) -> FakeSubscription:
        return self.subscription


class FakePart:
    """A part that is what it does over a connection, too: as often refused as it is said."""

    def __init__(self, channel: str = "channel", refused: int = 0, refused_later: int = 0) -> None:
        self.channels: tuple[str, ...] = (channel,)
        self.received: list[object] = []
        self.uses = 0
        self._refused = refused
        self._refused_later = refused_later

    def use(self, server: object, channels: object) -> FakePart:
        self.uses += 1
        self._end = anyio.Event()
        return self

    async def check(self) -> None:
        if self.uses <= self._refused:
            raise REFUSED

    def receive(self, data: object) -> None:
        self.received.append(data)

    async def run(self, connected: Callable[[], None]) -> None:
        connected()
        if self.uses <= self._refused_later:
            raise REFUSED
        await self._end.wait()

    def end(self) -> None:
        self._end.set()

    def given_up(self) -> None:
        pass


class FakeWatcher:
    def __init__(self) -> None:
        self.events: list[str] = []

    def is_connected(self, part: object) -> None:
        self.events.append("connected")

    def is_refused(self, part: object, error: Exception) -> None:
        assert error is REFUSED
        self.events.append("refused")


async def test_refused_and_granted() -> None:
    """C20: a part is refused at first: it asks again over the same connection."""
    server: Any = FakeServer()
    watcher = FakeWatcher()
    part = FakePart(refused=2)
    async with anyio.create_task_group() as tasks:
        line = Line(server, tasks, watcher, 1)
        line.add(part)
        await anyio.sleep(1)
        assert watcher.events == ["refused", "refused", "connected"]
        assert server.subscription.channels == ["channel"]
        server.subscription.receive("channel", b"message")
        server.subscription.receive("other", b"message")
        assert part.received == [b"message"]
        await line.remove(part)
        assert server.subscription.channels == []
        server.subscription.receive("channel", b"late")
        tasks.cancel_scope.cancel()
    assert part.received == [b"message"]


async def test_refused_later() -> None:
    """C20: a part is refused something when it was subscribed: it asks again, and stays so."""
    server: Any = FakeServer()
    watcher = FakeWatcher()
    part = FakePart(refused_later=1)
    async with anyio.create_task_group() as tasks:
        line = Line(server, tasks, watcher, 1)
        line.add(part)
        await anyio.sleep(1)
        assert watcher.events == ["connected", "refused", "connected"]
        assert server.subscription.channels == ["channel"]
        server.subscription.receive("channel", b"message")
        tasks.cancel_scope.cancel()
    assert part.received == [b"message"]


async def test_left_while_it_is_refused() -> None:
    """G9: a part goes between two attempts, or before the first, or is none: at once."""
    server: Any = FakeServer()
    watcher = FakeWatcher()
    refused, soon, stranger = FakePart(refused=10**6), FakePart(), FakePart()
    async with anyio.create_task_group() as tasks:
        line = Line(server, tasks, watcher, 1)
        line.add(refused)
        await anyio.sleep(10)
        before = anyio.current_time()
        await line.remove(refused)
        assert line.parts() == []
        await line.end(stranger)
        line.add(soon)
        await line.remove(soon)
        assert anyio.current_time() == before
        tasks.cancel_scope.cancel()
    assert set(watcher.events) == {"refused"}


async def test_left_before_it_was_subscribed() -> None:
    """C20: a part is refused its channel, and goes: there is nothing to take off."""
    server: Any = FakeServer()

    async def refuse(channels: tuple[str, ...]) -> None:
        raise REFUSED

    server.subscription.subscribe = refuse
    part = FakePart()
    async with anyio.create_task_group() as tasks:
        line = Line(server, tasks, FakeWatcher(), 1)
        line.add(part)
        await anyio.sleep(1)
        await line.remove(part)
        assert line.parts() == []
        tasks.cancel_scope.cancel()


async def test_one_of_two_goes() -> None:
    """C20: two parts have the same channel, one goes: the other one hears."""
    server: Any = FakeServer()
    first, second = FakePart(), FakePart()
    async with anyio.create_task_group() as tasks:
        line = Line(server, tasks, FakeWatcher(), 1)
        line.add(first)
        line.add(second)
        await wait_all_blocked()
        await line.remove(first)
        assert server.subscription.channels
        server.subscription.receive("channel", b"message")
        tasks.cancel_scope.cancel()
    assert (first.received, second.received) == ([], [b"message"])


def test_news_of_who_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    """G9: a part has gone when it is told how it fares: that is no news."""
    link = Link(Any, 1)
    link.is_refused(FakePart(), REFUSED)
    link.is_connected(FakePart())
    assert not link.connected
    assert not caplog.records


def test_refusals() -> None:
    """C20: what is no answer of the right server is no refusal: it is asked elsewhere."""
    assert is_refusal(REFUSED)
    assert not is_refusal(ReadOnlyError("a replica"))
    assert not is_refusal(ClusterDownError("a fail-over"))
    assert not is_refusal(OSError())


def test_redirection() -> None:
    """C20: in a cluster, a slot that is elsewhere is nothing that the user must be told."""
    moved = MovedError("1 127.0.0.1:1")
    with pytest.raises(MovedError) as caught, Server(coredis.RedisCluster("host", 1)).explained():
        raise moved
    assert caught.value is moved


async def test_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Misuse: used in another process than that in which it was entered."""
    redis = Redis("redis://127.0.0.1:1")
    async with redis, RedisCancelRegistry("redis://127.0.0.1:1") as registry:
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: -1)
            for use in redis.link, lambda: registry.open("run"), lambda: registry.cancel("run"):
                with pytest.raises(RuntimeError, match="forked from"):
                    use()


class FakeConnection:
    """A connection that gives the answers it was given."""

    def __init__(self, *messages: list[object]) -> None:
        self._messages = messages
        self.asked = 0

    @property
    async def push_messages(self) -> Any:
        for message in self._messages:
            yield message
        await anyio.sleep_forever()

    async def create_request(self, command: bytes) -> bytes:
        self.asked += 1
        return b"PONG"


def subscription_of(connection: Any) -> Subscription:
    return Subscription(connection, lambda _: None, sharded=False)


async def test_channel_that_is_taken_off_by_the_server() -> None:
    """C20: the server ends a subscription by itself: that counts as a connection that is lost."""
    heard: list[object] = []
    connection = FakeConnection(
        [b"subscribe", b"channel", 1],
        [b"message", b"channel", b"hello"],
        [b"sunsubscribe", b"channel", 0],
    )
    with pytest.raises(ConnectionResetError):
        await subscription_of(connection).listen(lambda *message: heard.append(message))
    assert heard == [("channel", b"hello")]


async def test_channel_that_is_taken_off_twice() -> None:
    """A channel is taken off, subscribed to and taken off: each is confirmed, and no more."""
    confirmed: list[object] = [b"unsubscribe", b"channel", 0]
    connection: Any = FakeConnection(confirmed, confirmed, confirmed)
    connection.send_command = lambda *command: None
    subscription = subscription_of(connection)
    for _ in range(2):
        await subscription.unsubscribe(["channel"])
    with pytest.raises(ConnectionResetError):
        await subscription.listen(lambda *message: None)
    assert subscription._unconfirmed == {}


async def test_alive() -> None:
    """G10: the server is asked if it is alive only when nothing was heard of it."""
    connection = FakeConnection([b"message", b"channel", b"hello"])
    subscription = subscription_of(connection)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscription.keep_alive, 2)
        await anyio.sleep(1)
        tasks.start_soon(subscription.listen, lambda *_: None)
        await anyio.sleep(2)
        assert connection.asked == 0
        await anyio.sleep(2)
        assert connection.asked == 1
        tasks.cancel_scope.cancel()


async def test_script_in_a_fail_over() -> None:
    """C20: a script is not run since the cluster is in a fail-over: that is no refusal."""

    async def asked() -> None:
        raise ClusterDownError("a fail-over")

    with pytest.raises(ClusterDownError):
        await _answer(asked())
