"""Cancel a run in another process, over a real Valkey server."""

from __future__ import annotations

import json
import os
import signal
import threading

import anyio
import anyio.to_thread
import pytest
from workers import worker

from observing import blocked, consume
from streamkit import with_cancellation
from streamkit.redis import (
    MAX_KEY,
    MAX_REASON,
)
from support import Backend, Log
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

BAD_ID = json.dumps({"id": "\ud800", "reason": ""})


class TestProcesses:
    async def test_blocked_generator(self, backend: Backend, url: str) -> None:
        """C21: a generator that is blocked in another process is told, cleans up and lets go."""
        prefix = new_prefix()
        with worker(backend, url, prefix) as process:
            async with registry(url, prefix) as here:
                assert "run" not in here
                with anyio.fail_after(LIMIT):
                    assert await here.cancel_and_wait("run", "stop")
            assert process.stdout is not None
            rest = await anyio.to_thread.run_sync(process.stdout.read)
        assert rest == "told: stop\n0 keys\n"

    async def test_process_that_is_frozen(self, backend: Backend, url: str) -> None:
        """C20: the only holder is frozen: a wait ends with its timeout, and says so."""
        prefix = new_prefix()
        with worker(backend, url, prefix) as process:
            os.kill(process.pid, signal.SIGSTOP)
            async with registry(url, prefix) as here:
                assert not await here.cancel_and_wait("run", timeout=0.2)


class TestCancel:
    async def test_all_holders(self, url: str) -> None:
        """C20: holders of a key are told here and there, those of another key are not."""
        async with two_of_them(url) as (here, there):
            with here.open("run") as first, there.open("run") as second:
                async with there.open("run") as third, there.open("other") as other:
                    assert here.cancel("run", "stop") == 1
                    assert first.reason == "stop"
                    assert [await fired(token) for token in (second, third)] == ["stop"] * 2
                    assert not other.cancelled

    async def test_stream(self, url: str) -> None:
        """C21: the source of a stream is told while it is blocked, by a cancel elsewhere."""
        log = Log()
        async with two_of_them(url) as (here, there):
            stream = with_cancellation(blocked(log, "item"), here.open("run"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consume, stream, log)
                await until(lambda: "item" in log.events)
                there.cancel("run", "stop")
            assert log.events == ["item", "source: told to stop", "closed", "consumer: stop"]
            assert len(here) == len(there) == 0

    async def test_first_reason(self, url: str) -> None:
        """C14: where a cancel comes twice, the first reason stays, wherever each came from."""
        async with two_of_them(url) as (here, there):
            here.cancel("run", "first")
            await until(lambda: not here._ledger.unsent)
            there.cancel("run", "second")
            await until(lambda: not there._ledger.unsent)
            async with here.open("run") as first, there.open("run") as second:
                assert (first.reason, second.reason) == ("first", "first")

    @pytest.mark.parametrize("reason", ["", "ä\n\0", "\ud800", None, "x" * MAX_REASON])
    async def test_any_text(self, url: str, reason: str | None) -> None:
        """H1: any string is a key and a reason, and comes out as it is."""
        key = f"{{}}*:'{reason}"[: MAX_KEY // 4]
        async with two_of_them(url) as (here, there), there.open(key) as token:
            here.cancel(key, reason)
            assert await fired(token) == reason

    async def test_from_a_thread(self, url: str) -> None:
        """H2: cancelled in a plain thread: holders here and there are told."""
        async with two_of_them(url) as (here, there):
            async with here.open("run") as first, there.open("run") as second:
                thread = threading.Thread(target=here.cancel, args=["run", "stop"])
                thread.start()
                await anyio.to_thread.run_sync(thread.join)
                assert [await fired(token) for token in (first, second)] == ["stop"] * 2

    async def test_misuse(self, url: str) -> None:
        """Misuse: what is no text, or too long, is an error that says so; nobody is told."""
        async with registry(url) as here, here.open("run") as token:
            for key in b"run", 1, None:
                with pytest.raises(TypeError, match="a key must be a string"):
                    here.cancel(key)  # type: ignore[arg-type]
                with pytest.raises(TypeError, match="a key must be a string"):
                    here.open(key)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a reason must be a string"):
                here.cancel("run", 5)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a reason must be a string"):
                await here.cancel_and_wait("run", 5)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="1024 bytes"):
                here.open("ä" * (MAX_KEY // 2 + 1))
            with pytest.raises(ValueError, match="4096 bytes"):
                here.cancel("run", "x" * (MAX_REASON + 1))
            assert not token.cancelled
        with pytest.raises(RuntimeError, match="async with registry:"):
            here.open("run")
        with pytest.raises(RuntimeError, match="used once"):
            await here.__aenter__()
        with pytest.raises(RuntimeError, match="async with registry:"):
            await registry(url).cancel_and_wait("run")

    async def test_messages_of_others(self, url: str) -> None:
        """H1: what others write on the channel or in its place is passed over."""
        prefix = new_prefix()
        rubbish = [
            b"", b"\xff", b"[" * 100_000, b"1", b"{}", b'{"key": "run"}',
            b'{"key": "run", "content": "{}", "requests": []}',
            b'{"key": "run", "content": "{\\"id\\": 1, \\"reason\\": []}", "requests": []}',
            b'{"request": "x", "process": "y", "holds": true}',
            json.dumps({"key": "run", "content": BAD_ID, "requests": []}),
        ]  # fmt: skip
        async with registry(url, prefix) as here, admin(url) as client:
            async with here.open("run") as token:
                for message in rubbish:
                    await client.publish(f"{prefix}:cancel", message)
                content = json.dumps({"id": "1", "reason": "stop"})
                requests = [1, ["x"], ["\ud800", "b"], ["a channel of others", "b"]]
                message = {"key": "run", "content": content, "requests": requests}
                await client.publish(f"{prefix}:cancel", json.dumps(message))
                assert await fired(token) == "stop"
            await client.set(f"{prefix}:cancel:other", b"rubbish")
            async with here.open("other") as token:
                assert not token.cancelled
            here.cancel("other", "stop")
            await until(lambda: not here._ledger.unsent)
            async with here.open("other") as token:
                assert token.reason == "stop"
