"""
What a log of runs must do, as tests: for whoever writes one.

.. code-block:: python

    from streamkit.testing import log_conformance

    TestMyLog = log_conformance(lambda: MyLog("..."))

pytest collects the class under the name that it is given. Its tests are async, so they need a
plugin: that of anyio is installed already, and runs them where ``pytestmark = pytest.mark.anyio``
is written.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from ._core.public import name_publicly
from ._runs.errors import RunExists, RunNotFound, RunRunning
from ._runs.log import (
    AFTER_READ as _AFTER_READ,
    DOUBT as _DOUBT,
    REMEMBER as _REMEMBER,
    SLACK as _SLACK,
    Record,
    Requests,
    RunLog,
    Terms,
)

__all__ = ["LogConformance", "log_conformance"]


def log_conformance(
    factory: Callable[[], RunLog], *, time_travels: bool = False
) -> type[LogConformance]:
    """
    Return a suite that tests a log, as a class for pytest.

    :param factory: returns a log that was not opened. It is called anew for each test, and may
        return logs of one store: ids are random. Give it a short lease, for that is waited for
    :param time_travels: whether a sleep takes no time, for the log as well, so that it may be
        waited for what takes minutes
    :return: a class whose name begins with ``Test``

    """
    namespace = {"factory": staticmethod(factory), "time_travels": time_travels}
    return type("TestLog", (LogConformance,), namespace)


class LogConformance:
    """The tests themselves: made into a class for one log by :func:`log_conformance`."""

    #: Returns a new log.
    factory: Callable[[], RunLog]
    #: Whether a sleep takes no time.
    time_travels: bool = False

    # A run is created

    async def test_created(self) -> None:
        """What was said of a run is what is known of it."""
        async with self._opened() as log:
            terms = Terms(owner="me", data=b'{"a":1}', keep=60.0, unwatched=30.0, started_at=12.5)
            run = await _Run.create(log, terms)
            record = await log.get(run.id)
            assert record == Record(
                terms=terms,
                epoch=run.epoch,
                first=1,
                last=0,
                head=None,
                outcome=None,
                cancel_requested=False,
                lapsed=False,
            )
            assert run.requests.cancel is None
            assert not run.requests.fenced

    async def test_created_twice(self) -> None:
        """The same epoch is the same run, as when a reply was lost; another finds the id taken."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one")
            again = await log.create(run.id, run.epoch, run.terms, _ignore)
            assert not again.fenced
            assert (await log.get(run.id)).last == 1
            await _raises(RunExists, log.create(run.id, "0e", run.terms, _ignore))
            await log.end(run.id, run.epoch, b"end")
            await _raises(RunExists, log.create(run.id, "0e", run.terms, _ignore))

    async def test_one_of_many_creates(self) -> None:
        """Of several starts at once, one succeeds."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)

            async def create(epoch: str) -> bool:
                try:
                    await log.create(run_id, epoch, Terms(), _ignore)
                except RunExists:
                    return False
                return True

            created = await _at_once(*(partial(create, f"{number:x}") for number in range(10)))
            assert sum(created) == 1

    async def test_unknown(self) -> None:
        """Of a run that is not there, nothing is known."""
        async with self._opened() as log:
            await _raises(RunNotFound, log.get("nobody"))
            await _raises(RunNotFound, log.read("nobody", 0))
            await _raises(RunNotFound, log.delete("nobody", "0e"))
            await log.touch("nobody", "0e")
            assert (await log.renew("nobody", "0e")).fenced
            assert (await _append(log, "nobody", "0e", 1, b"one")).fenced
            assert await log.end("nobody", "0e", b"end") is False
            assert await log.bury("nobody", "0e", b"end") == "gone"

    async def test_any_id(self) -> None:
        """An id may be any text."""
        async with self._opened() as log:
            for run_id in ("a b", "a:b", "{a}", "a*", "\u00fc\u2028\n\0", "x" * 1024):
                epoch = secrets.token_hex(8)
                name = f"{run_id[:1000]}{epoch}"
                await log.create(name, epoch, Terms(owner=run_id), _ignore)
                assert (await log.get(name)).terms.owner == run_id

    # Entries are added, and read

    async def test_read_in_order(self) -> None:
        """Entries are read as they were added, from any position, so many at a time."""
        async with self._opened() as log:
            run = await _Run.create(log)
            entries = [b"%d" % number for number in range(1, 11)]
            await run.append(*entries[:1])
            await run.append(*entries[1:7])
            await run.append(*entries[7:])
            for after in range(11):
                page = await log.read(run.id, after)
                assert list(page.entries) == entries[after:]
                assert (page.first, page.last, page.epoch) == (1, 10, run.epoch)
                assert page.outcome is None
                page = await log.read(run.id, after, 3)
                assert list(page.entries) == entries[after : after + 3]
            assert list((await log.read(run.id, 11)).entries) == []

    async def test_any_bytes(self) -> None:
        """An entry may be any bytes, of any number."""
        async with self._opened() as log:
            run = await _Run.create(log)
            entries = [b"", b"\0", bytes(range(256)), b"\r\n", b"x" * 1_000_000]
            await run.append(*entries)
            assert await run.entries() == entries

    async def test_append_twice(self) -> None:
        """What is written again, since a reply was lost, is there once."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one", b"two")
            await _append(log, run.id, run.epoch, 1, b"one", b"two")
            await _append(log, run.id, run.epoch, 2, b"two", b"three")
            assert await run.entries() == [b"one", b"two", b"three"]

    async def test_no_hole(self) -> None:
        """What cannot follow is not written."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one")
            try:
                requests = await _append(log, run.id, run.epoch, 3, b"three", acknowledged=2)
            except ValueError:
                requests = Requests(fenced=True)
            assert requests.fenced
            assert (await log.get(run.id)).last <= 1

    async def test_another_epoch(self) -> None:
        """A producer of another incarnation does nothing."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one")
            assert (await _append(log, run.id, "0e", 2, b"two")).fenced
            assert (await log.renew(run.id, "0e")).fenced
            assert await log.end(run.id, "0e", b"end") is False
            assert await log.bury(run.id, "0e", b"end") == "gone"
            await log.touch(run.id, "0e")
            assert await run.entries() == [b"one"]
            assert (await log.get(run.id)).outcome is None

    async def test_trimmed(self) -> None:
        """The oldest entries go, and what is kept is told; those after it stay."""
        async with self._opened() as log:
            run = await _Run.create(log)
            entries = [b"%d" % number for number in range(1, 501)]
            for number in range(0, 500, 50):
                await run.append(*entries[number : number + 50], first=max(number - 49, 1))
            record = await log.get(run.id)
            assert record.last == 500
            assert 401 - _SLACK <= record.first <= 401
            page = await log.read(run.id, record.first - 1, 500)
            assert list(page.entries) == entries[record.first - 1 :][: len(page.entries)]
            assert page.entries
            page = await log.read(run.id, record.first - 2)
            assert list(page.entries) == []
            assert page.first == record.first

    async def test_all_trimmed(self) -> None:
        """A batch may be larger than what is kept of it."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(*[b"x"] * 300, first=300)
            page = await log.read(run.id, 299)
            assert (list(page.entries), page.last) == ([b"x"], 300)
            assert 300 - _SLACK <= page.first <= 300

    async def test_head(self) -> None:
        """A status is kept, with the entries or before them."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await log.append(run.id, run.epoch, 1, [], acknowledged=0, first=1, head=409)
            assert (await log.get(run.id)).head == 409
            await run.append(b"one")
            page = await log.read(run.id, 0)
            assert (page.head, page.last) == (409, 1)

    # A run ends

    async def test_ended(self) -> None:
        """An end can be read, and nothing comes after it."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one")
            assert await log.end(run.id, run.epoch, b"end") is True
            record = await log.get(run.id)
            assert (record.outcome, record.last, record.lapsed) == (b"end", 1, False)
            page = await log.read(run.id, 1)
            assert (list(page.entries), page.outcome) == ([], b"end")
            assert (await _append(log, run.id, run.epoch, 2, b"two")).fenced
            assert (await log.renew(run.id, run.epoch)).fenced
            assert await log.end(run.id, run.epoch, b"other") is False
            assert await log.bury(run.id, run.epoch, b"lost") == "gone"
            assert (await log.get(run.id)).outcome == b"end"
            assert await run.entries() == [b"one"]

    async def test_kept(self) -> None:
        """An ended run is kept for as long as it was said, and then gone; its id is free."""
        async with self._opened() as log:
            run = await _Run.create(log, Terms(keep=0.5))
            await log.end(run.id, run.epoch, b"end")
            await log.get(run.id)
            await anyio.sleep(1.0)
            await _raises(RunNotFound, log.get(run.id))
            await log.create(run.id, "0e", Terms(), _ignore)
            record = await log.get(run.id)
            assert (record.epoch, record.last, record.outcome) == ("0e", 0, None)

    async def test_kept_for_readers(self) -> None:
        """An ended run that is read is kept for a minute more."""
        async with self._opened() as log:
            run = await _Run.create(log, Terms(keep=0.5))
            await run.append(b"one")
            await log.end(run.id, run.epoch, b"end")
            for _ in range(3):
                await log.read(run.id, 0)
                await anyio.sleep(_AFTER_READ - 1.0 if self.time_travels else 0.5)
            assert await run.entries() == [b"one"]

    async def test_kept_for_who_follows(self) -> None:
        """Who watches a run sees its end, however short it is kept."""
        async with self._opened() as log:
            run = await _Run.create(log, Terms(keep=0.0))
            async with log.watch(run.id):
                await log.end(run.id, run.epoch, b"end")
                await anyio.sleep(1.0)
                assert (await log.read(run.id, 0)).outcome == b"end"

    async def test_deleted(self) -> None:
        """A run that goes on is not deleted. One that has ended is, and its id is free."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one")
            await _raises(RunRunning, log.delete(run.id, run.epoch))
            await log.end(run.id, run.epoch, b"end")
            await _raises(RunNotFound, log.delete(run.id, "0e"))
            await log.delete(run.id, run.epoch)
            await _raises(RunNotFound, log.get(run.id))
            await log.create(run.id, "0e", Terms(), _ignore)
            page = await log.read(run.id, 0)
            assert (list(page.entries), page.epoch, page.last) == ([], "0e", 0)
            assert (await _append(log, run.id, run.epoch, 2, b"two")).fenced

    # A run is cancelled

    async def test_cancelled(self) -> None:
        """A producer is told with its next write and its next renewal. The first reason stays."""
        async with self._opened() as log:
            run = await _Run.create(log)
            assert await log.request_cancel(run.id, b"one") == "running"
            assert await log.request_cancel(run.id, b"two") == "running"
            assert (await run.append(b"item")).cancel == b"one"
            assert (await log.renew(run.id, run.epoch)).cancel == b"one"
            assert (await log.get(run.id)).cancel_requested

    async def test_cancelled_too_late(self) -> None:
        """A run that has ended, or an incarnation that is not there any more, is not cancelled."""
        async with self._opened() as log:
            run = await _Run.create(log)
            assert await log.request_cancel(run.id, b"one", epoch="0e") == "ended"
            assert await log.request_cancel(run.id, b"one", epoch=run.epoch) == "running"
            await log.end(run.id, run.epoch, b"end")
            assert await log.request_cancel(run.id, b"two") == "ended"
            other = await _Run.create(log)
            await log.end(other.id, other.epoch, b"end")
            assert await log.request_cancel(other.id, b"one") == "ended"
            assert not (await log.get(other.id)).cancel_requested

    async def test_cancelled_by_whom(self) -> None:
        """Only the owner may cancel a run that has one."""
        async with self._opened() as log:
            run = await _Run.create(log, Terms(owner="me"))
            await _raises(RunNotFound, log.request_cancel(run.id, b"one", owner="you"))
            assert not (await log.get(run.id)).cancel_requested
            assert await log.request_cancel(run.id, b"one", owner="me") == "running"
            await log.end(run.id, run.epoch, b"end")
            await _raises(RunNotFound, log.request_cancel(run.id, b"one", owner="you"))

    async def test_cancelled_before(self) -> None:
        """A cancellation that comes before its run is for the first one, and no other."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)
            assert await log.request_cancel(run_id, b"one") == "unknown"
            assert await log.request_cancel(run_id, b"two") == "unknown"
            assert (await log.create(run_id, "0a", Terms(), _ignore)).cancel == b"one"
            assert (await log.get(run_id)).cancel_requested
            await log.end(run_id, "0a", b"end")
            await log.delete(run_id, "0a")
            assert (await log.create(run_id, "0b", Terms(), _ignore)).cancel is None

    async def test_cancelled_before_by_whom(self) -> None:
        """One that names an owner is for a run of that owner."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)
            await log.request_cancel(run_id, b"you", owner="you")
            await log.request_cancel(run_id, b"me", owner="me")
            terms = Terms(owner="me")
            assert (await log.create(run_id, "0a", terms, _ignore)).cancel == b"me"
            await log.end(run_id, "0a", b"end")
            await log.delete(run_id, "0a")
            assert (await log.create(run_id, "0b", terms, _ignore)).cancel is None
            # One that means a run that was there is for no other.
            other = secrets.token_hex(8)
            assert await log.request_cancel(other, b"one", epoch="0e") == "ended"
            assert (await log.create(other, "0a", Terms(), _ignore)).cancel is None

    async def test_cancelled_long_before(self) -> None:
        """A cancellation that comes before its run is forgotten in time."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)
            await log.request_cancel(run_id, b"one")
            await anyio.sleep(_REMEMBER + 1.0 if self.time_travels else 0.0)
            cancel = (await log.create(run_id, "0a", Terms(), _ignore)).cancel
            assert cancel == (None if self.time_travels else b"one")

    async def test_unwatched(self) -> None:
        """A run knows since when nobody reads it, and is cancelled for that only if it is true."""
        async with self._opened() as log:
            run = await _Run.create(log, Terms(unwatched=0.5))
            await anyio.sleep(0.6)
            assert (await log.renew(run.id, run.epoch)).unwatched_for >= 0.5
            await log.touch(run.id, run.epoch)
            assert (await run.append(b"one")).unwatched_for < 0.5
            cancel = partial(log.request_cancel, run.id, b"alone", unwatched_for=0.5)
            assert await cancel() == "ended"
            await anyio.sleep(0.6)
            assert await cancel() == "running"
            assert (await log.renew(run.id, run.epoch)).cancel == b"alone"

    # A run is watched

    async def test_watched(self) -> None:
        """Who watches is woken by an entry, the end and the removal, also while nobody waits."""
        async with self._opened() as log:
            run = await _Run.create(log)
            for change in (
                partial(run.append, b"one"),
                partial(log.end, run.id, run.epoch, b"end"),
                partial(log.delete, run.id, run.epoch),
            ):
                async with log.watch(run.id) as before, log.watch(run.id) as meanwhile:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(meanwhile.wait)
                        await anyio.sleep(0.1)
                        await change()
                    with anyio.fail_after(5):
                        await before.wait()

    async def test_watched_by_many(self) -> None:
        """However many read, each gets everything; one that is cancelled disturbs no other."""
        async with self._opened() as log:
            run = await _Run.create(log)

            async def read(patience: float) -> list[bytes]:
                seen: list[bytes] = []
                with anyio.move_on_after(patience):
                    async with log.watch(run.id) as watch:
                        while True:
                            page = await log.read(run.id, len(seen), 3)
                            seen += page.entries
                            if len(seen) == page.last:
                                if page.outcome is not None:
                                    break
                                await watch.wait()
                return seen

            async def write() -> list[bytes]:
                written: list[bytes] = []
                for number in range(20):
                    # More than is read at once.
                    batch = [b"%d" % number] * (number % 5)
                    await run.append(*batch)
                    written += batch
                    await anyio.sleep(0.01)
                await log.end(run.id, run.epoch, b"end")
                return written

            patient = [partial(read, 30.0)] * 10
            impatient = [partial(read, 0.05)] * 10
            entries, *seen = await _at_once(write, *patient, *impatient)
            assert seen[:10] == [entries] * 10
            assert all(entries[: len(some)] == some for some in seen[10:])

    # A producer dies

    async def test_lease(self) -> None:
        """A producer that gives a sign of life keeps its run; one that does not, does not."""
        async with self._opened() as log:
            run = await _Run.create(log)
            for sign in (partial(log.renew, run.id, run.epoch), partial(run.append, b"one")):
                await anyio.sleep(_finite(log.lease) * 0.7)
                await sign()
            await anyio.sleep(_finite(log.lease) * 0.7)
            assert not (await log.get(run.id)).lapsed
            assert await log.bury(run.id, run.epoch, b"lost") == "alive"
            await anyio.sleep(_finite(log.lease) * 0.7)
            has_lease = log.lease == _finite(log.lease)
            assert (await log.get(run.id)).lapsed is has_lease
            assert (await log.read(run.id, 0)).lapsed is has_lease

    async def test_buried(self) -> None:
        """It takes two looks to bury a run, and a sign of life in between saves it."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await anyio.sleep(_finite(log.lease) + 0.1)
            has_lease = log.lease == _finite(log.lease)
            if has_lease:
                assert await log.bury(run.id, run.epoch, b"lost") == "doubted"
                await log.renew(run.id, run.epoch)
                await anyio.sleep(max(_finite(log.lease), _DOUBT) + 0.1)
                assert await log.bury(run.id, run.epoch, b"lost") == "doubted"
                await anyio.sleep(_DOUBT + 0.1)
                looks = [partial(log.bury, run.id, run.epoch, b"lost")] * 5
                assert sorted(await _at_once(*looks)) == ["buried", *["gone"] * 4]
                assert (await log.get(run.id)).outcome == b"lost"
                assert (await run.append(b"one")).fenced
                assert (await log.renew(run.id, run.epoch)).fenced
                assert await log.end(run.id, run.epoch, b"end") is False
            assert (await run.append(b"one")).fenced is has_lease

    # A call is cancelled

    async def test_calls_are_cancelled(self) -> None:
        """Whatever call is cancelled, the log goes on as before."""
        async with self._opened() as log:
            run = await _Run.create(log)
            await run.append(b"one")

            async def watch() -> None:
                async with log.watch(run.id) as watch:
                    await watch.wait()

            calls: list[Callable[[], Awaitable[object]]] = [
                partial(log.get, run.id),
                partial(log.read, run.id, 0),
                partial(log.renew, run.id, run.epoch),
                partial(log.touch, run.id, run.epoch),
                partial(log.create, run.id, run.epoch, run.terms, _ignore),
                watch,
            ]
            for _ in range(5):
                for call in calls:
                    for delay in (None, 0.0, 0.001):
                        with anyio.CancelScope() as scope:
                            if delay is None:
                                scope.cancel()
                            else:
                                scope.deadline = anyio.current_time() + delay
                            await call()
            await run.append(b"two")
            assert await run.entries() == [b"one", b"two"]

    # The log is left

    async def test_opened_again(self) -> None:
        """A log may be opened again, and twice at once. Leaving it removes nothing."""
        log = self.factory()
        async with log.open():
            run = await _Run.create(log)
            async with log.open():
                await run.append(b"one")
            await run.append(b"two")
        async with log.open():
            assert await run.entries() == [b"one", b"two"]

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[RunLog, None]:
        log = self.factory()
        async with log.open():
            yield log


class _Run:
    """A run that is written to."""

    def __init__(self, log: RunLog, terms: Terms) -> None:
        self.id = secrets.token_hex(8)
        self.epoch = secrets.token_hex(8)
        self.terms = terms
        self.requests = Requests()
        self._log = log
        self._last = 0

    @classmethod
    async def create(cls, log: RunLog, terms: Terms | None = None) -> _Run:
        run = cls(log, Terms(keep=60.0) if terms is None else terms)
        run.requests = await log.create(run.id, run.epoch, run.terms, _ignore)
        return run

    async def append(self, *entries: bytes, first: int = 1) -> Requests:
        last = self._last
        requests = await _append(
            self._log, self.id, self.epoch, last + 1, *entries, acknowledged=last, first=first
        )
        self._last += len(entries)
        return requests

    async def entries(self) -> list[bytes]:
        """Read all of it."""
        entries: list[bytes] = []
        while page := (await self._log.read(self.id, len(entries))).entries:
            entries += page
        return entries


async def _append(
    log: RunLog,
    run_id: str,
    epoch: str,
    position: int,
    *entries: bytes,
    acknowledged: int = 0,
    first: int = 1,
) -> Requests:
    return await log.append(
        run_id, epoch, position, list(entries), acknowledged=acknowledged, first=first
    )


async def _at_once(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    results: list[Any] = [None] * len(calls)

    async def call(number: int) -> None:
        results[number] = await calls[number]()

    async with anyio.create_task_group() as tasks:
        for number in range(len(calls)):
            tasks.start_soon(call, number)
    return results


async def _raises(error: type[Exception], call: Awaitable[object]) -> None:
    caught: Exception | None = None
    try:
        await call
    except error as exc:
        caught = exc
    assert caught is not None, f"{error.__name__} was not raised"


def _finite(lease: float) -> float:
    """Return the lease, or some time for a log in which nobody dies."""
    return min(lease, 60.0)


def _ignore(requests: Requests) -> None:
    """Take no hint."""


name_publicly(globals())
