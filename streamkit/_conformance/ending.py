"""What a log must do with a run that ends, or whose producer dies, as tests."""

from __future__ import annotations

from functools import partial

import anyio

from .._runs.errors import RunNotFound, RunRunning
from .._runs.log import AFTER_READ, DOUBT, Terms
from .suite import Suite, WrittenRun, append, at_once, finite, ignore, raises


class Ending(Suite):
    """A run ends, in one way or another."""

    # A run ends

    async def test_ended(self) -> None:
        """An end can be read, and nothing comes after it."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one")
            assert await log.end(run.id, run.epoch, b"end") is True
            record = await log.get(run.id)
            assert (record.outcome, record.last, record.lapsed) == (b"end", 1, False)
            page = await log.read(run.id, 1)
            assert (list(page.entries), page.outcome) == ([], b"end")
            assert (await append(log, run.id, run.epoch, 2, b"two")).fenced
            assert (await log.renew(run.id, run.epoch)).fenced
            assert await log.end(run.id, run.epoch, b"other") is False
            assert await log.bury(run.id, run.epoch, b"lost") == "gone"
            assert (await log.get(run.id)).outcome == b"end"
            assert await run.entries() == [b"one"]

    async def test_kept(self) -> None:
        """An ended run is kept for the given time, and is then gone; its id is free."""
        async with self._opened() as log:
            run = await WrittenRun.create(log, Terms(keep=0.5))
            await log.end(run.id, run.epoch, b"end")
            await log.get(run.id)
            await anyio.sleep(1.0)
            await raises(RunNotFound, log.get(run.id))
            await log.create(run.id, "0e", Terms(), ignore)
            record = await log.get(run.id)
            assert (record.epoch, record.last, record.outcome) == ("0e", 0, None)

    async def test_kept_for_readers(self) -> None:
        """An ended run that is being read is kept for a minute more."""
        async with self._opened() as log:
            run = await WrittenRun.create(log, Terms(keep=0.5))
            await run.append(b"one")
            await log.end(run.id, run.epoch, b"end")
            for _ in range(3):
                await log.read(run.id, 0)
                await anyio.sleep(AFTER_READ - 1.0 if self.time_travels else 0.5)
            assert await run.entries() == [b"one"]

    async def test_kept_for_who_follows(self) -> None:
        """Whoever watches a run sees its end, however short it is kept."""
        async with self._opened() as log:
            run = await WrittenRun.create(log, Terms(keep=0.0))
            async with log.watch(run.id):
                await log.end(run.id, run.epoch, b"end")
                await anyio.sleep(1.0)
                assert (await log.read(run.id, 0)).outcome == b"end"

    async def test_deleted(self) -> None:
        """A run that goes on is not deleted. One that has ended is, and its id is free."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one")
            await raises(RunRunning, log.delete(run.id, run.epoch))
            await log.end(run.id, run.epoch, b"end")
            await raises(RunNotFound, log.delete(run.id, "0e"))
            await log.delete(run.id, run.epoch)
            await raises(RunNotFound, log.get(run.id))
            await log.create(run.id, "0e", Terms(), ignore)
            page = await log.read(run.id, 0)
            assert (list(page.entries), page.epoch, page.last) == ([], "0e", 0)
            assert (await append(log, run.id, run.epoch, 2, b"two")).fenced

    # A producer dies

    async def test_lease(self) -> None:
        """A producer that gives a sign of life keeps its run; one that does not loses it."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            for sign in (partial(log.renew, run.id, run.epoch), partial(run.append, b"one")):
                await anyio.sleep(finite(log.lease) * 0.7)
                assert not (await log.get(run.id)).lapsed
                await sign()
            await anyio.sleep(finite(log.lease) * 0.7)
            assert not (await log.get(run.id)).lapsed
            assert await log.bury(run.id, run.epoch, b"lost") == "alive"
            await anyio.sleep(finite(log.lease) * 0.7)
            has_lease = log.lease == finite(log.lease)
            assert (await log.get(run.id)).lapsed is has_lease
            assert (await log.read(run.id, 0)).lapsed is has_lease

    async def test_buried(self) -> None:
        """It takes two looks to bury a run, and a sign of life in between saves it."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await anyio.sleep(finite(log.lease) + 0.1)
            has_lease = log.lease == finite(log.lease)
            if has_lease:
                assert await log.bury(run.id, run.epoch, b"lost") == "doubted"
                await log.renew(run.id, run.epoch)
                await anyio.sleep(max(finite(log.lease), DOUBT) + 0.1)
                assert await log.bury(run.id, run.epoch, b"lost") == "doubted"
                await anyio.sleep(DOUBT + 0.1)
                looks = [partial(log.bury, run.id, run.epoch, b"lost")] * 5
                assert sorted(await at_once(*looks)) == ["buried", *["gone"] * 4]
                assert (await log.get(run.id)).outcome == b"lost"
                assert (await run.append(b"one")).fenced
                assert (await log.renew(run.id, run.epoch)).fenced
                assert await log.end(run.id, run.epoch, b"end") is False
            assert (await run.append(b"one")).fenced is has_lease
