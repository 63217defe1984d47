"""A log in Redis whose calls are interrupted: at each await, and whatever it does then."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import anyio
import pytest
from runners import log_of

from streamkit._redis.server import Server
from streamkit._redislog.call import Lane
from streamkit._redislog.session import Session
from streamkit.redis import RedisLog
from streamkit.runs import Runs, Terms
from streamkit.testing import Run, interrupt_everywhere
from support import Backend
from support.interrupted_logs import DOUBT, STEPS, Life, Moment, Visit, ignore, kinds_of, lives
from support.valkey import admin, new_prefix

# Enough for all, on a machine that does other things as well.
ENOUGH = 300.0

# A task of the log may be sending something when who has called it is gone. That the connection
# comes back is seen by what is sent over it then.
SENDING = "ConnectionPool.acquire"


@pytest.fixture(autouse=True)
def _short_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit._redislog.log.DOUBT", DOUBT)


def logs(url: str, prefix: str) -> tuple[RedisLog, RedisLog]:
    """
    Return a log, and one of the same names whose leases are over at once.

    With a connection more or less in the pool, all would wait for ever.
    """
    options: Any = {"outage": 20.0, "reconcile": 0.05, "max_connections": 2}
    return log_of(url, prefix, lease=15.0, **options), log_of(url, prefix, lease=0.001)


async def check_nothing_is_held(log: Any) -> None:
    """See that nobody waits, nothing is followed or produced, and no channel is subscribed to."""
    desk = log._desk
    assert desk.produced == desk.followed == desk._listeners == desk._pages == {}
    with anyio.fail_after(10):
        while len(desk.writes) or len(desk.reads) or desk._subscribed:
            await anyio.sleep(0.001)
    assert log.connected


def test_at_each_await(url: str) -> None:
    """Runs: wherever a call is cancelled, it was done or not, and all that follows is as ever."""
    prefix = new_prefix()

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, Life], None]:
        log, short = logs(url, prefix)
        async with log.open():
            [life] = await lives(log, short, 1)
            yield life.live, life

    async def check(run: Run, life: Life) -> None:
        assert run.told or life.done == len(STEPS), run.error
        await life.go_on(partial(check_nothing_is_held, life.log))

    meant = [SENDING]
    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH, ignore=meant)
    # A watch waits for its subscription, and twice; a burial takes two looks.
    assert len(report.points) >= len(STEPS) + 4


def test_the_block(url: str) -> None:
    """Runs: wherever who opens a log and leaves it is cancelled, no connection is left."""
    prefix = new_prefix()

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, RedisLog], None]:
        log, _ = logs(url, prefix)

        async def use() -> None:
            async with log.open():
                await log.touch("nobody's", "0e")

        yield use, log

    async def check(run: Run, log: RedisLog) -> None:
        assert not log.connected
        assert not log._opened._blocks
        async with log.open():
            await log.touch("nobody's", "0e")
            await check_nothing_is_held(log)

    # coredis 6.9 leaves them unclosed in a connection that is given up while it is made.
    meant = ["MemoryObjectReceiveStream", "MemoryObjectSendStream"]
    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH, ignore=meant)
    assert len(report.points) >= 3


def test_runs(url: str) -> None:
    """Runs: wherever who starts, reads and stops a run is cancelled, it is there or is not."""
    prefix = new_prefix()

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, tuple[Visit, RedisLog]], None]:
        log, _ = logs(url, prefix)
        async with Runs(log) as runs:
            await log.touch("nobody's", "0e")
            visit = Visit(runs)
            yield visit.go, (visit, log)

    async def check(run: Run, seen: tuple[Visit, RedisLog]) -> None:
        visit, log = seen
        assert run.told or visit.is_over, run.error
        await visit.check()
        await check_nothing_is_held(log)

    # The source of a run goes on.
    meant = ["Visit._words", SENDING]
    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH, ignore=meant)
    assert report.points


ENTRIES = [bytes([number]) * 600_000 for number in range(3)]
HOWS: dict[str, Callable[[RedisLog, str], Awaitable[object]]] = {
    "append": lambda log, run_id: log.append(run_id, "0e", 1, ENTRIES, acknowledged=0, first=1),
    "append after a loss": lambda log, run_id: log.append(
        run_id, "0e", 4, [b"last"], acknowledged=3, first=1
    ),
    "renew": lambda log, run_id: log.renew(run_id, "0e", acknowledged=3),
    "end": lambda log, run_id: log.end(run_id, "0e", b"end", acknowledged=3),
}


@pytest.mark.parametrize("how", HOWS)
def test_between_round_trips(url: str, how: str) -> None:
    """
    Runs: what is much is written in pieces, and what was lost is written again: wherever that is
    cancelled, there are the first of the entries, and the next call writes the others.
    """
    prefix, call, known = new_prefix(), HOWS[how], [b"1", b"2", b"3"]
    whole = {"append": ENTRIES, "append after a loss": [*known, b"last"]}.get(how, known)
    numbers = count()

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[object, tuple[RedisLog, str]], None]:
        log, _ = logs(url, prefix)
        run_id = f"run{next(numbers)}"
        async with log.open():
            await log.create(run_id, "0e", Terms(), ignore)
            if how != "append":
                await log.append(run_id, "0e", 1, known, acknowledged=0, first=1)
                async with admin(url) as client:
                    await client.hset(f"{prefix}:run:{{{run_id}}}:meta", {"last": 1})
                    await client.xdel(f"{prefix}:run:{{{run_id}}}:entries", ["2-0", "3-0"])

            async def work() -> None:
                await call(log, run_id)

            yield work, (log, run_id)

    async def check(run: Run, seen: tuple[RedisLog, str]) -> None:
        log, run_id = seen
        found = await entries_of(log, run_id)
        assert found == whole[: len(found)]
        if how != "end":
            await call(log, run_id)
            assert await entries_of(log, run_id) == whole
        if not await log.end(run_id, "0e", b"end", acknowledged=len(whole)):
            # It has ended before; or what was lost was forgotten with that call, and it is lost.
            assert how == "end"
            record = await log.get(run_id)
            assert record.lapsed or (record.outcome, found) == (b"end", whole)
        await check_nothing_is_held(log)

    meant = [SENDING]
    report = interrupt_everywhere(make, check, clock="real", max_seconds=ENOUGH, ignore=meant)
    assert len(report.points) >= 3


async def entries_of(log: RedisLog, run_id: str) -> list[bytes]:
    # What was asked for before has been done.
    await log.touch(run_id, "0e")
    found: list[bytes] = []
    while page := (await log.read(run_id, len(found))).entries:
        found += page
    return found


def _take_and_come(moment: Moment, take: Any) -> Any:
    def take_and_come(lane: Lane) -> Any:
        calls = take(lane)
        if calls:
            moment.come()
        return calls

    return take_and_come


def _come_and_send(moment: Moment, send: Any) -> Any:
    async def come_and_send(server: Server, commands: Any) -> Any:
        await moment.come_and_wait()
        return await send(server, commands)

    return come_and_send


def _send_and_come(moment: Moment, send: Any) -> Any:
    async def send_and_come(server: Server, commands: Any) -> Any:
        answers = await send(server, commands)
        await moment.come_and_wait()
        return answers

    return send_and_come


def _settle_and_come(moment: Moment, settle: Any) -> Any:
    def settle_and_come(session: Session, *args: Any) -> None:
        settle(session, *args)
        moment.come()

    return settle_and_come


MOMENTS: dict[str, tuple[type, str, Any]] = {
    "taken": (Lane, "take", _take_and_come),
    "being sent": (Server, "send", _come_and_send),
    "answered": (Server, "send", _send_and_come),
    # Who has called could go on.
    "told": (Session, "_settle", _settle_and_come),
}


@pytest.mark.real_time
@pytest.mark.one_of_each
@pytest.mark.parametrize("when", MOMENTS)
async def test_at_each_moment(
    url: str, monkeypatch: pytest.MonkeyPatch, backend: Backend, when: str
) -> None:
    """Runs: however far a call is when it is cancelled, it was done or not, as a whole."""
    owner, name, wrapper = MOMENTS[when]
    log, short = logs(url, new_prefix())
    async with log.open():
        for kind in kinds_of(when, backend):
            moment = Moment()
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, wrapper(moment, getattr(owner, name)))
                for step, life in enumerate(await lives(log, short, len(STEPS))):
                    await moment.interrupt(life, step, kind)
                    await life.go_on(partial(check_nothing_is_held, log))
            assert moment.met == STEPS
