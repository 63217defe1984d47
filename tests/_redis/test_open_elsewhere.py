"""Hold a key that others may have cancelled before."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import anyio
import anyio.to_thread
import pytest

from streamkit import StreamCancelled, with_cancellation
from streamkit._redis.wire import Cancellation
from support.valkey import (
    LIMIT,
    MARKS,
    admin,
    fired,
    new_prefix,
    registry,
    two_of_them,
    until,
)

pytestmark = MARKS


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
        prefix = new_prefix()
        async with registry(url, prefix) as here, admin(url) as client:
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

    async def test_remembered_for_ever(self, url: str) -> None:
        """C13: if that is longer than the server can count, it is as long as it can."""
        async with two_of_them(url, remember=sys.maxsize) as (here, there):
            there.cancel("run", "early")
            await until(lambda: not there._ledger.unsent)
            async with here.open("run") as token:
                assert token.reason == "early"

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
        prefix = new_prefix()
        async with registry(url, prefix) as here, admin(url) as client:
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
