"""What a log must do with a run that others ask to stop, as tests."""

from __future__ import annotations

import secrets
from functools import partial

import anyio

from .._runs.errors import RunNotFound
from .._runs.log import REMEMBER, Terms
from .suite import Suite, WrittenRun, ignore, raises


class Asking(Suite):
    """A run is cancelled."""

    # A run is cancelled

    async def test_cancelled(self) -> None:
        """A producer is told at its next write and its next renewal. The first reason stays."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            assert await log.request_cancel(run.id, b"one") == "running"
            assert await log.request_cancel(run.id, b"two") == "running"
            assert (await run.append(b"item")).cancel == b"one"
            assert (await log.renew(run.id, run.epoch)).cancel == b"one"
            assert (await log.get(run.id)).cancel_requested

    async def test_cancelled_too_late(self) -> None:
        """A run that has ended, or an incarnation that no longer exists, is not cancelled."""
        async with self._opened() as log:
            run = await WrittenRun.create(log)
            assert await log.request_cancel(run.id, b"one", epoch="0e") == "ended"
            assert await log.request_cancel(run.id, b"one", epoch=run.epoch) == "running"
            await log.end(run.id, run.epoch, b"end")
            assert await log.request_cancel(run.id, b"two") == "ended"
            other = await WrittenRun.create(log)
            await log.end(other.id, other.epoch, b"end")
            assert await log.request_cancel(other.id, b"one") == "ended"
            assert not (await log.get(other.id)).cancel_requested

    async def test_cancelled_by_whom(self) -> None:
        """Only the owner may cancel a run that has one."""
        async with self._opened() as log:
            run = await WrittenRun.create(log, Terms(owner="me"))
            await raises(RunNotFound, log.request_cancel(run.id, b"one", owner="you"))
            assert not (await log.get(run.id)).cancel_requested
            assert await log.request_cancel(run.id, b"one", owner="me") == "running"
            await log.end(run.id, run.epoch, b"end")
            await raises(RunNotFound, log.request_cancel(run.id, b"one", owner="you"))

    async def test_cancelled_before(self) -> None:
        """A cancellation that comes before its run is for the first run, and no other."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)
            assert await log.request_cancel(run_id, b"one") == "unknown"
            assert await log.request_cancel(run_id, b"two") == "unknown"
            assert (await log.create(run_id, "0a", Terms(), ignore)).cancel == b"one"
            assert (await log.get(run_id)).cancel_requested
            await log.end(run_id, "0a", b"end")
            await log.delete(run_id, "0a")
            assert (await log.create(run_id, "0b", Terms(), ignore)).cancel is None

    async def test_cancelled_before_by_whom(self) -> None:
        """A cancellation that names an owner is for a run of that owner."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)
            await log.request_cancel(run_id, b"you", owner="you")
            await log.request_cancel(run_id, b"me", owner="me")
            terms = Terms(owner="me")
            assert (await log.create(run_id, "0a", terms, ignore)).cancel == b"me"
            await log.end(run_id, "0a", b"end")
            await log.delete(run_id, "0a")
            assert (await log.create(run_id, "0b", terms, ignore)).cancel is None
            # One that meant an existing run is for no other.
            other = secrets.token_hex(8)
            assert await log.request_cancel(other, b"one", epoch="0e") == "ended"
            assert (await log.create(other, "0a", Terms(), ignore)).cancel is None

    async def test_cancelled_before_by_several(self) -> None:
        """Of several cancellations that come before their run, the first reason counts."""
        async with self._opened() as log:
            for owners in (None, "me"), ("me", None):
                run_id = secrets.token_hex(8)
                for owner in owners:
                    await log.request_cancel(run_id, repr(owner).encode(), owner=owner)
                    # Logs have clocks of milliseconds.
                    await anyio.sleep(0.01)
                requests = await log.create(run_id, "0a", Terms(owner="me"), ignore)
                assert requests.cancel == repr(owners[0]).encode()

    async def test_cancelled_long_before(self) -> None:
        """A cancellation that comes before its run is forgotten in time."""
        async with self._opened() as log:
            run_id = secrets.token_hex(8)
            await log.request_cancel(run_id, b"one")
            await anyio.sleep(REMEMBER + 1.0 if self.time_travels else 0.0)
            cancel = (await log.create(run_id, "0a", Terms(), ignore)).cancel
            assert cancel == (None if self.time_travels else b"one")

    async def test_unwatched(self) -> None:
        """A run knows since when nobody reads it, and is cancelled for that only if nobody does."""
        async with self._opened() as log:
            run = await WrittenRun.create(log, Terms(unwatched=0.5))
            await anyio.sleep(0.6)
            assert (await log.renew(run.id, run.epoch)).unwatched_for >= 0.5
            await log.touch(run.id, run.epoch)
            assert (await run.append(b"one")).unwatched_for < 0.5
            cancel = partial(log.request_cancel, run.id, b"alone", unwatched_for=0.5)
            assert await cancel() == "ended"
            await anyio.sleep(0.6)
            assert await cancel() == "running"
            assert (await log.renew(run.id, run.epoch)).cancel == b"alone"
