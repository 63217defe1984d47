"""What a log must do with a run that is created and written to, as tests."""

from __future__ import annotations

import secrets
from functools import partial

from .._runs.errors import RunExists, RunNotFound
from .._runs.log import SLACK, Record, Requests, Terms
from .suite import Suite, WrittenRun, append, at_once, ignore, raises


class Writing(Suite):
    """A run is created, and written to; its entries are read."""

    # A run is created

    async def test_created(self) -> None:
        """What was given for a run is what is known of it."""
        async with self._opened() as log:
            terms = Terms(owner="me", data=b'{"a":1}', keep=60.0, unwatched=30.0, started_at=12.5)
            run = await WrittenRun.create(log, terms)
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
        """The same epoch is the same run, as after a lost reply; another one finds the id taken."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one")
            again = await log.create(run.id, run.epoch, run.terms, ignore)
            assert not again.fenced
            assert (await log.get(run.id)).last == 1
            await raises(RunExists, log.create(run.id, "0e", run.terms, ignore))
            await log.end(run.id, run.epoch, b"end")
            await raises(RunExists, log.create(run.id, "0e", run.terms, ignore))

    async def test_one_of_many_creates(self) -> None:
        """Of several starts at once, one succeeds."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)

            async def create(epoch: str) -> bool:
                try:
                    await log.create(run_id, epoch, Terms(), ignore)
                except RunExists:
                    return False
                return True

            created = await at_once(*(partial(create, f"{number:x}") for number in range(10)))
            assert sum(created) == 1

    async def test_unknown(self) -> None:
        """Nothing is known of a run that does not exist."""
        async with self._opened() as log:
            await raises(RunNotFound, log.get("nobody"))
            await raises(RunNotFound, log.read("nobody", 0))
            await raises(RunNotFound, log.delete("nobody", "0e"))
            await log.touch("nobody", "0e")
            assert (await log.renew("nobody", "0e")).fenced
            assert (await append(log, "nobody", "0e", 1, b"one")).fenced
            assert await log.end("nobody", "0e", b"end") is False
            assert await log.bury("nobody", "0e", b"end") == "gone"

    async def test_any_id(self) -> None:
        """An id may be any text."""
        async with self._opened() as log:
            for run_id in ("a b", "a:b", "{a}", "a*", "\u00fc\u2028\n\0", "x" * 1024):
                epoch = secrets.token_hex(8)
                name = f"{run_id[:1000]}{epoch}"
                await log.create(name, epoch, Terms(owner=run_id), ignore)
                assert (await log.get(name)).terms.owner == run_id

    # Entries are added, and read

    async def test_read_in_order(self) -> None:
        """Entries are read as they were added, from any position, a limited number at a time."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
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
        """An entry may be any bytes, however many."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            entries = [b"", b"\0", bytes(range(256)), b"\r\n", b"x" * 1_000_000]
            await run.append(*entries)
            assert await run.entries() == entries

    async def test_append_twice(self) -> None:
        """An entry that is written again, because a reply was lost, is there once."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one", b"two")
            await append(log, run.id, run.epoch, 1, b"one", b"two")
            await append(log, run.id, run.epoch, 2, b"two", b"three")
            assert await run.entries() == [b"one", b"two", b"three"]

    async def test_no_hole(self) -> None:
        """An entry that cannot follow is not written."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one")
            try:
                requests = await append(log, run.id, run.epoch, 3, b"three", acknowledged=2)
            except ValueError:
                requests = Requests(fenced=True)
            assert requests.fenced
            assert (await log.get(run.id)).last <= 1

    async def test_less_than_was_acknowledged(self) -> None:
        """A producer that knows of more entries than there are does not go on."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one", b"two")
            assert not (await log.renew(run.id, run.epoch, acknowledged=2)).fenced
            assert (await log.renew(run.id, run.epoch, acknowledged=3)).fenced
            assert await log.end(run.id, run.epoch, b"end", acknowledged=3) is False
            assert (await log.get(run.id)).outcome is None
            run = await WrittenRun.create(log)
            await run.append(b"one", b"two")
            assert await log.end(run.id, run.epoch, b"end", acknowledged=3) is False
            assert await run.entries() == [b"one", b"two"]
            assert (await log.get(run.id)).outcome is None

    async def test_another_epoch(self) -> None:
        """A producer of another incarnation does nothing."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one")
            assert (await append(log, run.id, "0e", 2, b"two")).fenced
            assert (await log.renew(run.id, "0e")).fenced
            assert await log.end(run.id, "0e", b"end") is False
            assert await log.bury(run.id, "0e", b"end") == "gone"
            await log.touch(run.id, "0e")
            assert await run.entries() == [b"one"]
            assert (await log.get(run.id)).outcome is None

    async def test_trimmed(self) -> None:
        """The oldest entries are dropped, the kept range is told, and later entries stay."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            entries = [b"%d" % number for number in range(1, 501)]
            for number in range(0, 500, 50):
                await run.append(*entries[number : number + 50], first=max(number - 49, 1))
            record = await log.get(run.id)
            assert record.last == 500
            assert 401 - SLACK <= record.first <= 401
            page = await log.read(run.id, record.first - 1, 500)
            assert list(page.entries) == entries[record.first - 1 :][: len(page.entries)]
            assert page.entries
            page = await log.read(run.id, record.first - 2)
            assert list(page.entries) == []
            assert page.first == record.first

    async def test_all_trimmed(self) -> None:
        """A batch may be larger than what is kept of it."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(*[b"x"] * 300, first=300)
            page = await log.read(run.id, 299)
            assert (list(page.entries), page.last) == ([b"x"], 300)
            assert 300 - SLACK <= page.first <= 300

    async def test_head(self) -> None:
        """A status is kept, with the entries or before them."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await log.append(run.id, run.epoch, 1, [], acknowledged=0, first=1, head=409)
            assert (await log.get(run.id)).head == 409
            await run.append(b"one")
            page = await log.read(run.id, 0)
            assert (page.head, page.last) == (409, 1)
