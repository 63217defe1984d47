"""What a log does over a connection, with a server that does what the test says."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any

import anyio
import pytest
from coredis.exceptions import (
    ConnectionError as LostConnection,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from streamkit._redislog.call import Call
from streamkit._redislog.desk import Desk
from streamkit._redislog.names import Names, Wire
from streamkit._redislog.opened import _Block
from streamkit._redislog.part import LogPart
from streamkit._redislog.produced import Produced
from streamkit._redislog.scripts_others import TOUCH
from streamkit._redislog.scripts_producer import APPEND, CREATE, PEEK, RENEW, UNDO
from streamkit.redis import RedisLog
from streamkit.runs import LogFull, LogUnavailable, Page, Requests, Terms
from support import wait_all_blocked

NAMES = Names("test")
PAGE = [b"0a", 1, 2, None, None, 0, b"one", b"two"]


class FakeServer:
    """A server that answers what it is told to, when it is told to."""

    database = 0
    is_cluster = False

    def __init__(self) -> None:
        #: The scripts of each round trip, with the first argument that is no key.
        self.trips: list[list[tuple[Any, ...]]] = []
        self.answer: Callable[[tuple[Any, ...]], object] = lambda _: b"OK"
        self.may_answer = anyio.Event()
        self.may_answer.set()

    def explained(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def send(self, commands: Sequence[Any]) -> list[object]:
        self.trips.append([(each.name, *each.serialized_arguments) for each in commands])
        trip = self.trips[-1]
        await self.may_answer.wait()
        answers = [self.answer(each) for each in trip]
        if any(isinstance(answer, LostConnection) for answer in answers):
            raise LostConnection
        return answers


class FakeChannels:
    """Channels that note who is subscribed."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.may_answer = anyio.Event()
        self.may_answer.set()

    async def subscribe(self, channels: Any, receive: Any) -> None:
        channels = set(channels)
        await self.may_answer.wait()
        self.names |= set(channels)
        self.receive = receive

    async def unsubscribe(self, channels: Any, receive: Any) -> None:
        self.names -= set(channels)


class World:
    def __init__(self, desk: Desk, server: FakeServer, channels: FakeChannels) -> None:
        self.desk = desk
        self.server = server
        self.channels = channels

    async def connected(self) -> None:
        """Use a connection until it fails, or all is done."""
        server: Any = self.server
        channels: Any = self.channels
        session = LogPart(self.desk, NAMES.probe, 5.0).use(server, channels)
        with suppress(ExceptionGroup):
            await session.run(lambda: None)


@asynccontextmanager
async def world(*, connected: bool = True) -> AsyncGenerator[World, None]:
    desk = Desk(15.0, 10.0)
    desk.begin()
    it = World(desk, FakeServer(), FakeChannels())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.expire)
        if connected:
            tasks.start_soon(it.connected)
            await wait_all_blocked()
        yield it
        tasks.cancel_scope.cancel()


def touch(number: int = 0, size: int = 0) -> Call:
    return Call(TOUCH, (NAMES.of(str(number)).meta,), ("0a",), size=size)


async def test_gathers() -> None:
    """What comes while a round trip is under way goes with the next one, all of it."""
    async with world() as it, anyio.create_task_group() as tasks:
        it.server.may_answer = anyio.Event()
        for number in range(100):
            tasks.start_soon(it.desk.call, touch(number), it.desk.writes)
            await wait_all_blocked()
        it.server.may_answer.set()
        await wait_all_blocked()
        assert [len(trip) for trip in it.server.trips] == [1, 99]


async def test_small_ones_first() -> None:
    """A renewal waits for no items, and items for no more than a round trip takes."""
    async with world() as it, anyio.create_task_group() as tasks:
        it.server.may_answer = anyio.Event()
        for number, size in enumerate([0, 600_000, 600_000, 0, 5_000_000, 1]):
            tasks.start_soon(it.desk.call, touch(number, size), it.desk.writes)
            await wait_all_blocked()
        it.server.may_answer.set()
        await wait_all_blocked()
        sent = [[int(each[3].split("{")[1][0]) for each in trip] for trip in it.server.trips]
        assert sent == [[0], [3, 1], [2], [4], [5]]


async def test_source_of_a_script() -> None:
    """A server that does not know a script is sent it, and the next time its name is enough."""
    known: set[bytes] = set()

    def answer(sent: tuple[Any, ...]) -> object:
        if sent[0] == b"EVAL":
            known.add(TOUCH.sha)
        return b"done" if TOUCH.sha in known else NoScriptError("unknown")

    async with world() as it:
        it.server.answer = answer
        for _ in range(2):
            call = touch()
            await it.desk.call(call, it.desk.writes)
            assert call.reply == b"done"
            assert call.sent == 1
    assert [trip[0][0] for trip in it.server.trips] == [b"EVALSHA", b"EVAL", b"EVALSHA"]


async def test_one_is_refused() -> None:
    """One script fails: that one is tried again, and then given up; the others go on."""
    key = NAMES.of("1").meta

    def answer(sent: tuple[Any, ...]) -> object:
        return ResponseError("WRONGTYPE of that key") if sent[3] == key else b"done"

    async with world() as it, anyio.create_task_group() as tasks:
        it.server.answer = answer
        began = anyio.current_time()

        async def is_refused() -> None:
            with pytest.raises(LogUnavailable, match="WRONGTYPE"):
                await it.desk.call(touch(1), it.desk.writes)
            assert anyio.current_time() - began == pytest.approx(10, abs=1)

        tasks.start_soon(is_refused)
        await wait_all_blocked()
        for number in (0, 2):
            await it.desk.call(touch(number), it.desk.writes)
        assert anyio.current_time() == began
        await anyio.sleep(11)
        assert 40 < len(it.server.trips) < 60
        assert not it.desk.writes


async def test_no_memory() -> None:
    """What needs memory is refused at once, and what does not is tried again."""
    async with world() as it, anyio.create_task_group() as tasks:
        it.server.answer = lambda _: ResponseError("OOM no memory")
        names = NAMES.of("1")
        for script in CREATE, APPEND:
            with pytest.raises(LogFull):
                await it.desk.call(Call(script, (names.meta,), ()), it.desk.writes)
        renewal = Call(RENEW, (names.meta,), ())
        tasks.start_soon(it.desk.call, renewal, it.desk.writes)
        await anyio.sleep(1)
        it.server.answer = lambda _: b"done"
        await anyio.sleep(1)
        assert renewal.reply == b"done"


@pytest.mark.parametrize("error", [LostConnection("lost"), ReadOnlyError("a replica")])
async def test_answers_are_lost(error: Exception) -> None:
    """The connection fails: what has no answer is sent over the next one, in its order."""
    async with world() as it, anyio.create_task_group() as tasks:
        it.server.may_answer = anyio.Event()
        calls = [touch(number) for number in range(4)]
        for call in calls:
            tasks.start_soon(it.desk.call, call, it.desk.writes)
            await wait_all_blocked()
        # The last one is not wanted any more.
        it.server.answer = lambda sent: error if "{0}" in sent[3] else b"done"
        it.server.may_answer.set()
        await wait_all_blocked()
        assert calls[0].reply is None
        it.server.answer = lambda _: b"again"
        tasks.start_soon(it.connected)
        await wait_all_blocked()
        assert [call.reply for call in calls] == [b"again"] * 4
        assert [call.sent for call in calls] == [2, 1, 1, 1]
        tasks.cancel_scope.cancel()


async def test_nobody_waits() -> None:
    """Who has called is cancelled: what was not sent is not, and what was is not sent again."""
    async with world(connected=False) as it, anyio.create_task_group() as tasks:
        with anyio.move_on_after(1):
            await it.desk.call(touch(), it.desk.writes)
        assert not it.desk.writes
        tasks.start_soon(it.connected)
        await wait_all_blocked()
        assert it.server.trips == []
        it.server.may_answer = anyio.Event()
        with anyio.move_on_after(1):
            await it.desk.call(touch(), it.desk.writes)
        it.server.answer = lambda _: LostConnection("lost")
        it.server.may_answer.set()
        await wait_all_blocked()
        tasks.start_soon(it.connected)
        await wait_all_blocked()
        assert len(it.server.trips) == 1
        tasks.cancel_scope.cancel()


async def test_one_page_for_all() -> None:
    """Who wants the same page before it was asked for gets the same; later ones ask again."""
    async with world(connected=False) as it, anyio.create_task_group() as tasks:
        pages: list[object] = []

        async def read(patience: float = math.inf) -> None:
            with anyio.move_on_after(patience):
                pages.append(await it.desk.page("1", NAMES.of("1"), 0, 200))

        for patience in math.inf, 1.0, math.inf:
            tasks.start_soon(read, patience)
        await anyio.sleep(2)
        it.server.answer = lambda _: PAGE
        it.server.may_answer = anyio.Event()
        tasks.start_soon(it.connected)
        await wait_all_blocked()
        tasks.start_soon(read)
        await wait_all_blocked()
        it.server.may_answer.set()
        await wait_all_blocked()
        assert len(it.server.trips) == 2
        assert len(pages) == 3
        assert pages[0] is pages[1] is not pages[2]
        assert pages[0] == pages[2]
        tasks.cancel_scope.cancel()


async def test_page_that_nobody_wants() -> None:
    """All who wanted a page have gone: it is not asked for."""
    async with world(connected=False) as it, anyio.create_task_group() as tasks:
        with anyio.move_on_after(1):
            await it.desk.page("1", NAMES.of("1"), 0, 200)
        tasks.start_soon(it.connected)
        await wait_all_blocked()
        assert it.server.trips == []
        tasks.cancel_scope.cancel()


async def test_pages_share_what_may_be_read() -> None:
    """However many pages are read at once, what is answered has a limit."""
    async with world() as it, anyio.create_task_group() as tasks:
        it.server.answer = lambda _: PAGE
        it.server.may_answer = anyio.Event()
        for number in range(41):
            tasks.start_soon(it.desk.page, str(number), NAMES.of(str(number)), 0, 200)
            await wait_all_blocked()
        it.server.may_answer.set()
        await wait_all_blocked()
        assert [len(trip) for trip in it.server.trips] == [1, 32, 8]
        for trip in it.server.trips:
            assert {sent[-2] for sent in trip} == {256 * 1024 // len(trip)}


async def test_away() -> None:
    """The server is away for too long: who waits is told, who comes later sooner, readers too."""
    async with world(connected=False) as it, anyio.create_task_group() as tasks:
        began = anyio.current_time()
        it.desk.is_disconnected()
        followed = it.desk.follow("1", NAMES.of("1"))
        changes = followed.changes
        with pytest.raises(LogUnavailable, match="it is away"):
            await it.desk.page("1", NAMES.of("1"), 0, 200)
        assert anyio.current_time() - began == pytest.approx(10, abs=0.5)
        assert followed.changes > changes
        with pytest.raises(LogUnavailable):
            await it.desk.page("1", NAMES.of("1"), 0, 200)
        assert anyio.current_time() - began == pytest.approx(10, abs=1)
        assert it.desk.is_away
        tasks.start_soon(it.connected)
        await wait_all_blocked()
        assert not it.desk.is_away
        tasks.cancel_scope.cancel()


async def test_given_up() -> None:
    """There will be no other connection: who waits is told."""
    async with world(connected=False) as it, anyio.create_task_group() as tasks:
        followed = it.desk.follow("1", NAMES.of("1"))

        async def wait() -> None:
            with pytest.raises(LogUnavailable, match="was left"):
                await it.desk.call(touch(), it.desk.writes)

        tasks.start_soon(wait)
        tasks.start_soon(followed.next_change)
        await wait_all_blocked()
        LogPart(it.desk, NAMES.probe, 1.0).given_up()


async def test_looks() -> None:
    """Runs that are followed are looked at; whoever follows is told what a message did not say."""
    async with world() as it:
        followed = it.desk.follow("1", NAMES.of("1"))
        it.server.answer = lambda _: PAGE[:6]
        await anyio.sleep(5)
        seen = followed.changes
        assert followed.heard.is_set()
        await anyio.sleep(20)
        # The same each time: that is no news.
        assert followed.changes == seen
        for answer in ([b"0a", 1, 3, None, None, 0], [b"0a", 1, 3, None, None, 1], []):
            it.server.answer = lambda _, answer=answer: answer
            await anyio.sleep(5)
            assert followed.changes > seen
            seen = followed.changes
        it.desk.unfollow("1", followed)
        await wait_all_blocked()
        trips = len(it.server.trips)
        await anyio.sleep(20)
        assert len(it.server.trips) == trips
        assert it.channels.names == set()


async def test_asked() -> None:
    """A producer is told what is published for it, and what the server says when it is doubted."""
    told: list[Requests] = []
    async with world() as it:
        names = NAMES.of("1")
        produced = Produced("1", names, "0a", told.append)
        it.server.answer = lambda _: [b"ok", None, 0]
        it.desk.produce(produced)
        await wait_all_blocked()
        # When it is heard what is asked, the server is asked once for what was asked before.
        assert len(it.server.trips) == 1
        hear = it.channels.receive
        for data in (b"c 0b\nother", b"x", b"e 0a 7\nend", b"q 0a\n"):
            # Not its own, or nothing; and a producer that has given no sign of life proves nothing.
            hear(names.requests, data)
            hear("unknown", data)
        await wait_all_blocked()
        assert len(it.server.trips) == 1
        hear(names.requests, b"c 0a\nwhy")
        assert told == [Requests(), Requests(cancel=b"why")]
        produced.alive_at = anyio.current_time()
        hear(names.requests, b"q 0a\n")
        await wait_all_blocked()
        assert len(it.server.trips) == 2
        it.server.answer = lambda _: [b"behind", 1]
        hear(names.requests, b"q 0a\n")
        await wait_all_blocked()
        assert len(told) == 3
        it.server.answer = lambda _: [b"fenced"]
        hear(names.requests, b"f 0a\n")
        await wait_all_blocked()
        assert told[-1].fenced
        assert it.desk.produced == {}
        assert it.channels.names == set()
        it.desk.finish(produced)
        produced.notify(Requests())
        assert len(told) == 4


async def test_sign_of_life_after_an_outage() -> None:
    """Over a new connection, a producer that lives says so at once, and else asks what is asked."""
    async with world(connected=False) as it:
        produced = Produced("1", NAMES.of("1"), "0a")
        it.server.answer = lambda _: [b"ok", None, 0]
        it.desk.produce(produced)
        for alive_at, script in (0.0, PEEK), (0.0, RENEW), (-20.0, PEEK):
            produced.alive_at = anyio.current_time() + alive_at
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(it.connected)
                await wait_all_blocked()
                tasks.cancel_scope.cancel()
            assert [sent[1] for sent in it.server.trips.pop()] == [script.sha]


async def test_request_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody may ask for anything: what cannot be read is logged, and harms nobody."""

    def fail(requests: Requests) -> None:
        raise ValueError("no JSON")

    async with world() as it:
        names = NAMES.of("1")
        it.server.answer = lambda _: [b"ok", None, 0]
        it.desk.produce(Produced("1", names, "0a", fail))
        await wait_all_blocked()
        it.channels.receive(names.requests, b"c 0a\nwhy")
        assert "a request could not be read" in caplog.text


async def test_same_id_again() -> None:
    """A run is produced whose id is used again: the earlier one is told nothing more."""
    async with world() as it:
        names = NAMES.of("1")
        it.server.answer = lambda _: [b"ok", None, 0]
        first, second = Produced("1", names, "0a"), Produced("1", names, "0b")
        it.desk.produce(first)
        it.desk.produce(second)
        it.desk.finish(first)
        assert it.desk.produced == {"1": second}
        await wait_all_blocked()
        assert it.channels.names == {names.requests}


async def test_followed_again() -> None:
    """A run is followed again before the server was told that it is not: nothing is missed."""
    async with world() as it:
        names = NAMES.of("1")
        it.server.answer = lambda _: PAGE[:6]
        first = it.desk.follow("1", names)
        await wait_all_blocked()
        it.desk.unfollow("1", first)
        again = it.desk.follow("1", names)
        assert again.heard.is_set()
        tail = again.tail
        tail.learn(Page([b"one"], 1, 1, "0a", None, None), 0, tail.version)
        assert tail.page(0, 200) is not None
        # Who comes may have seen another run by now.
        assert it.desk.follow("1", names) is again
        assert tail.page(0, 200) is None
        await wait_all_blocked()
        assert it.channels.names == {names.news}
        it.desk.unfollow("1", again)
        it.desk.unfollow("1", again)
        await wait_all_blocked()
        assert it.channels.names == set()


async def test_connection_is_lost() -> None:
    """Something may be missed from now on: nothing is told of what was heard."""
    async with world() as it:
        followed = it.desk.follow("1", NAMES.of("1"))
        await wait_all_blocked()
        tail = followed.tail
        tail.learn(Page([b"one"], 1, 1, "0a", None, None), 0, tail.version)
        it.desk.is_disconnected()
        assert not followed.heard.is_set()
        assert tail.page(0, 200) is None


async def test_not_followed_any_more() -> None:
    """Who follows has gone when the server has subscribed it: that is taken back."""
    async with world() as it:
        it.channels.may_answer = anyio.Event()
        followed = it.desk.follow("1", NAMES.of("1"))
        await wait_all_blocked()
        it.desk.unfollow("1", followed)
        it.channels.may_answer.set()
        await wait_all_blocked()
        assert it.channels.names == set()
        assert not followed.heard.is_set()


async def test_junk_is_published() -> None:
    """What is none of ours is published about a run: nobody is woken."""
    async with world() as it:
        names = NAMES.of("1")
        followed = it.desk.follow("1", names)
        await wait_all_blocked()
        seen = followed.changes
        # Something may have been published before it was heard.
        assert seen == 1
        it.channels.receive(names.news, b"junk")
        assert followed.changes == seen
        it.channels.receive(names.news, b"h 0a 1\n")
        assert followed.changes == seen + 1


async def test_refused_when_nobody_waits() -> None:
    """A script fails, and who has called has gone: it is not tried again."""
    async with world() as it:
        it.server.may_answer = anyio.Event()
        it.server.answer = lambda _: ResponseError("WRONGTYPE of that key")
        with anyio.move_on_after(1):
            await it.desk.call(touch(), it.desk.writes)
        it.server.may_answer.set()
        await anyio.sleep(5)
        assert len(it.server.trips) == 1


def test_names() -> None:
    """All names of a run have its id as their tag, whatever is in that; no two runs share one."""
    ids = ["a", "a b", "a%20b", "{a}", "}", "", "ü", "\udc80", "a:meta", "%"]
    names = [NAMES.of(run_id) for run_id in ids]
    for each in names:
        tags = {name[name.index("{") : name.index("}")] for name in (each.meta, each.entries)}
        tags |= {name[name.index("{") : name.index("}")] for name in (each.news, each.requests)}
        assert len(tags) == 1
        assert tags != {"{"}
    assert len({each.meta for each in names[:5] + names[6:]}) == len(ids) - 1
    wire = Wire(3, in_cluster=True)
    assert wire.channel("a") == "a@3"
    assert wire.name("a@3") == "a"
    assert wire.publish == b"SPUBLISH"


@pytest.mark.parametrize("lost", [0, 1])
async def test_full_after_a_lost_answer(lost: int) -> None:
    """A server that is full may have created a run the time before, whose answer was lost: it is
    removed. What was refused at once is not asked for again.
    """
    full = ResponseError("OOM command not allowed when used memory > 'maxmemory'.")
    log = RedisLog("redis://localhost", prefix="test")
    async with world(connected=False) as it:
        log._unchecked = it.desk
        log._opened._blocks[_Block()] = None
        log._opened._process, log._opened._thread = os.getpid(), threading.get_ident()
        answers = iter([LostConnection()] * lost + [full])

        def answer(command: tuple[Any, ...]) -> object:
            return next(answers) if CREATE.sha in command else b"deleted"

        it.server.answer = answer

        async def connect_again_and_again() -> None:
            while True:
                await it.connected()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect_again_and_again)
            with pytest.raises(LogFull):
                await log.create("run", "0e", Terms(), lambda requests: None)
            await wait_all_blocked()
            tasks.cancel_scope.cancel()
        sent = [command for trip in it.server.trips for command in trip]
        assert sum(CREATE.sha in command for command in sent) == lost + 1
        assert sum(UNDO.sha in command for command in sent) == lost
