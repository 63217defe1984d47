"""The registry is left, is cancelled, or fails: what it sends, and what it leaves."""

from __future__ import annotations

import asyncio
from textwrap import dedent

import anyio
import anyio.to_thread
import pytest

from support import Backend
from support.valkey import (
    LIMIT,
    MARKS,
    Outage,
    admin,
    at_once,
    fired,
    new_prefix,
    registry,
    silent_server,
    until,
)

pytestmark = MARKS


async def is_clean(url: str, prefix: str) -> bool:
    async with admin(url) as client:
        return not await client.keys(f"{prefix}:cancel:*")


class TestEnd:
    async def test_sends_the_last_one(self, url: str) -> None:
        """C20: a cancellation right before the block is left is sent all the same."""
        prefix = new_prefix()
        async with registry(url, prefix) as there, there.open("run") as token:
            async with registry(url, prefix) as here:
                here.cancel("run", "last")
            assert await fired(token) == "last"

    async def test_before_it(self, url: str) -> None:
        """H4: a cancel before the registry is entered is sent when it is."""
        prefix = new_prefix()
        here = registry(url, prefix)
        assert here.cancel("run", "early") == 0
        assert here, "an empty registry is true"
        async with registry(url, prefix) as there, there.open("run") as token, here:
            assert await fired(token) == "early"

    async def test_after_it(self, url: str) -> None:
        """Misuse: a cancel after the block would reach nobody: that is an error, which says so."""
        async with registry(url) as here:
            pass
        with pytest.raises(RuntimeError, match="is not open"):
            here.cancel("run")

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
        prefix = new_prefix()
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
        prefix = new_prefix()
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
        monkeypatch.setattr("streamkit._redis.connection._PATIENCE", 0.1)
        with silent_server() as silent:
            here = registry(silent, connect_timeout=2 * LIMIT)
            async with here:
                here._redis.patience = here._redis.link()._patience = 2 * LIMIT
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

    async def test_cancelled_while_it_connects(self) -> None:
        """C1: the block is entered in a cancelled scope: nothing is left of it."""
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with registry("redis://127.0.0.1:1"):
                raise AssertionError("must not be entered")
        assert scope.cancelled_caught


def test_two_runs(backend: Backend, url: str) -> None:
    """H10: two event loops, one after the other, with one prefix: the second finds the first's."""
    prefix = new_prefix()

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
