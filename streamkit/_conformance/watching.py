"""What a log must do for the watchers of a run, whose calls may be cancelled, as tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from .suite import Suite, WrittenRun, at_once, ignore


class Watching(Suite):
    """A run is watched, a call is cancelled, the log is left."""

    # A run is watched

    async def test_watched(self) -> None:
        """A watcher is woken by an entry, the end and the removal, even if it was not waiting."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
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
        """However many read, each gets everything; a cancelled reader disturbs no other."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)

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
            entries, *seen = await at_once(write, *patient, *impatient)
            assert seen[:10] == [entries] * 10
            assert all(entries[: len(some)] == some for some in seen[10:])

    # A call is cancelled

    async def test_calls_are_cancelled(self) -> None:
        """Whatever call is cancelled, the log goes on as before."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            await run.append(b"one")

            async def watch() -> None:
                async with log.watch(run.id) as watch:
                    await watch.wait()

            calls: list[Callable[[], Awaitable[object]]] = [
                partial(log.get, run.id),
                partial(log.read, run.id, 0),
                partial(log.renew, run.id, run.epoch),
                partial(log.touch, run.id, run.epoch),
                partial(log.create, run.id, run.epoch, run.terms, ignore),
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
            run = await WrittenRun.create(log)
            async with log.open():
                await run.append(b"one")
            await run.append(b"two")
        async with log.open():
            assert await run.entries() == [b"one", b"two"]
